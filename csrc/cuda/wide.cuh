// Wide phases of the fused kernel: all rows, some columns. Rows are normalised and rounded on the way in.
#ifndef TRM_EDGE_CUDA_WIDE_CUH
#define TRM_EDGE_CUDA_WIDE_CUH

#include "cuda/cta.cuh"

namespace trm::cuda {

// The rows of kRowTiles tiles from `first` on; a warp takes every kWarps-th. Rows past the last one are there, zero or
// left over from an earlier call, and nobody looks at what becomes of them. Loads are issued at once, so that other
// work can be done until they are here.
template <int kRowTiles, class C>
struct StagedRows {
    static constexpr int kRows = kRowTiles * kRowTile / kWarps, kHidden = C::kChunks * kChunk;
    static constexpr int kFloats4 = (kHidden + 127) / 128;      // of a row in a lane
    static constexpr bool kAddedAhead = kRows * kFloats4 <= 8;  // more do not fit into the registers

    float4 rows[kRows][kFloats4], added[kRows][kFloats4];

    __device__ __forceinline__ static bool inside(const C& c) {
        return kHidden >= 128 || 4 * c.lane_number() < kHidden;
    }

    __device__ __forceinline__ StagedRows(const C& c, const Source& from, int first) {
        load(c, from.rows, first, rows);
        if (kAddedAhead && from.added) load(c, from.added, first, added);
    }

    __device__ __forceinline__ static void load(const C& c, const float* base, int first,
                                                float4 (&to)[kRows][kFloats4]) {
        const int at = c.plan.row_at(first + c.warp, 4 * c.lane_number());
#pragma unroll
        for (int j = 0; j < kRows; ++j) {
#pragma unroll
            for (int i = 0; i < kFloats4; ++i) {
                const float* place = base + at + j * kWarps * kHidden + 128 * i;
                to[j][i] = inside(c) ? __ldcg(reinterpret_cast<const float4*>(place)) : make_float4(0, 0, 0, 0);
            }
        }
    }

    // Normalise them and round them into the operand.
    __device__ __forceinline__ void stage(const C& c, const Source& from, int first) {
        float squares[kRows];
#pragma unroll
        for (int j = 0; j < kRows; ++j) {
            squares[j] = 0;
#pragma unroll
            for (int i = 0; i < kFloats4; ++i) {
                const float4& x = rows[j][i];
                squares[j] += x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w;
            }
        }
#pragma unroll
        for (int step = 16; step > 0; step /= 2) {
#pragma unroll
            for (int j = 0; j < kRows; ++j) squares[j] += __shfl_xor_sync(~0u, squares[j], step);
        }
#pragma unroll
        for (int j = 0; j < kRows; ++j) {
            const int row = j * kWarps + c.warp;
            const float inverse = from.normalised ? 1.0f : inverse_rms(squares[j], 1.0f / kHidden, c.p.norm_eps);
            if (c.lane_number() == 0) {
                c.inverse()[first + row] = inverse;
                if (c.number == 0) c.p.norms[first + row] = inverse;
            }
#pragma unroll
            for (int i = 0; i < kFloats4; ++i) rows[j][i] = scaled(rows[j][i], inverse);
        }
        if (from.added) {
            if (!kAddedAhead) load(c, from.added, first, added);
#pragma unroll
            for (int j = 0; j < kRows; ++j) {
#pragma unroll
                for (int i = 0; i < kFloats4; ++i) rows[j][i] = plus(rows[j][i], added[j][i]);
            }
        }
        uint2* to = reinterpret_cast<uint2*>(c.operand() + c.warp * C::kOperandStride) + c.lane_number();
#pragma unroll
        for (int j = 0; j < kRows; ++j) {
#pragma unroll
            for (int i = 0; i < kFloats4; ++i) {
                const float4& x = rows[j][i];
                if (inside(c))
                    to[j * kWarps * C::kOperandStride * 2 + 32 * i] = make_uint2(pack(x.x, x.y), pack(x.z, x.w));
            }
        }
    }
};

// Write out rows `from` as normalised, for the evaluations and the host that need them later.
template <class C>
__device__ __forceinline__ void keep_rows(const C& c, const Source& from, const Keep& keep) {
    if (keep.rows == nullptr) return;
    for (int row = first_kept_row(c.number, c.plan.ctas); row < c.p.rows; row += c.plan.ctas) {
        const float inverse = c.inverse()[row];
        for (int column = 4 * c.thread; column < c.plan.hidden; column += 4 * kThreads) {
            const int at = c.plan.row_at(row, column);
            const float4 v = __ldcg(reinterpret_cast<const float4*>(from.rows + at));
            const float4 e = __ldcg(reinterpret_cast<const float4*>(c.p.e + at));
            const float4 x = scaled(v, inverse);
            *reinterpret_cast<float4*>(keep.rows + at) = x;
            *reinterpret_cast<float4*>(keep.with_e + at) = plus(x, e);
            if (keep.out) *reinterpret_cast<float4*>(keep.out + at) = x;
        }
    }
}

// operand times kTiles tiles of weights, of which `tiles` are there: this warp's chunks of k.
template <int kRowTiles, int kTiles, class C>
__device__ __forceinline__ void multiply_staged(const C& c, const uint4* weights, int tiles) {
    Sums<kRowTiles, kTiles> sums = {};
    const uint4* operand = c.operand() + c.lane.group * C::kOperandStride + c.lane.quad;
#pragma unroll
    for (int i = 0; i < div_up(C::kChunks, kWarps); ++i) {
        const int chunk = i * kWarps + c.warp;
        if (C::kChunks % kWarps != 0 && chunk >= C::kChunks) continue;
        uint4 w[kTiles];
#pragma unroll
        for (int n = 0; n < kTiles; ++n)
            w[n] = weights[((kTiles > 2 ? min(n, tiles - 1) : n) * C::kChunks + chunk) * 32 + c.lane_number()];
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
            const uint4 low = operand[m * kRowTile * C::kOperandStride + 4 * chunk];
            const uint4 high = operand[(m * kRowTile + 8) * C::kOperandStride + 4 * chunk];
#pragma unroll
            for (int n = 0; n < kTiles; ++n) mma_chunk(sums[m][n], low, high, w[n]);
        }
    }
    share_sums<kRowTiles, kTiles>(c, sums);
}

// Cos and sin by which a warp turns its tile of queries or keys; read before the product, as they come from far.
struct Turn {
    float2 of[2];  // rows `group` and `group + 8`

    template <class C>
    __device__ __forceinline__ Turn(const C& c, int tile, int first_row, bool needed) {
        of[0] = of[1] = make_float2(1, 0);
        if (!needed || c.p.rope == nullptr || c.plan.qkv_part(tile) == 2) return;
        const float2* table = c.p.rope + c.plan.rotary_index(tile, c.lane.column(0), C::kHeadSize);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int row = first_row + 8 * i, position = row < c.p.answer_end ? row : row + c.p.position_shift;
            if (row < c.p.rows) of[i] = __ldg(table + position * (C::kHeadSize / 2));
        }
    }
};

// Two neighbouring columns of a row: queries and keys are rotated, queries scaled, and all of them rounded and stored.
template <class C>
__device__ __forceinline__ void store_qkv(const C& c, int tile, int row, float2 turn, float first, float second) {
    if (row >= c.p.rows) return;
    const int part = c.plan.qkv_part(tile), to = c.plan.stored_column(tile, c.lane.column(0));
    if (part == 2) {
        c.p.v[c.plan.value_at(row, to)] = __float2bfloat16_rn(first);
        c.p.v[c.plan.value_at(row, to + 1)] = __float2bfloat16_rn(second);
        return;
    }
    const float scale = part == 0 ? c.p.query_scale : 1.0f;
    __nv_bfloat16* to_row = (part == 0 ? c.p.q : c.p.k) + c.plan.row_at(row, to);
    *reinterpret_cast<uint32_t*>(to_row) =
        pack((first * turn.x - second * turn.y) * scale, (second * turn.x + first * turn.y) * scale);
}

template <class C>
__device__ __forceinline__ void store_inner(const C& c, int pair, int row, float first, float second) {
    if (row >= c.p.rows) return;
    const int column = pair * kColumnTile + c.lane.column(0);
    *reinterpret_cast<uint32_t*>(c.p.inner + c.plan.inner_at(row, column)) = pack(first, second);
}

// The rows of kRowTiles tiles from `first` on.
template <int kRowTiles, class C>
__device__ __forceinline__ void wide_block(const C& c, bool attention, const Matrix& matrix, const Source& from,
                                           int first) {
    static_assert(kWarps == kPassRows * kPassColumns, "a warp finishes a tile");
    StagedRows<kRowTiles, C> rows(c, from, first);
    const Range own = attention ? c.own().qkv : c.own().inner;
    const int m = c.warp / kPassColumns, n = c.warp % kPassColumns;
    const int row = first + m * kRowTile + c.lane.row(0);
    for (int tile = own.begin; tile < own.end || tile == own.begin; tile += kPassColumns) {
        const int tiles = min(kPassColumns, own.end - tile);
        const bool mine = m < kRowTiles && (attention ? n : 2 * n) < tiles;
        const Turn turn(c, tile + n, row, attention && mine);
        if (tile == own.begin) {
            rows.stage(c, from, first);
            __syncthreads();
        }
        const uint4* weights = c.weights(matrix, own.begin, tile, C::kChunks);
        if (tiles == 1) multiply_staged<kRowTiles, 1>(c, weights, tiles);
        if (tiles == 2) multiply_staged<kRowTiles, 2>(c, weights, tiles);
        if (tiles > 2) multiply_staged<kRowTiles, kPassColumns>(c, weights, tiles);
        if (mine && attention) {
            const float4 sum = sum_up(c, m, n);
            store_qkv(c, tile + n, row, turn.of[0], sum.x, sum.y);
            store_qkv(c, tile + n, row + 8, turn.of[1], sum.z, sum.w);
        } else if (mine) {
            const float4 gate = sum_up(c, m, 2 * n), up = sum_up(c, m, 2 * n + 1);
            store_inner(c, tile / 2 + n, row, silu(gate.x) * up.x, silu(gate.y) * up.y);
            store_inner(c, tile / 2 + n, row + 8, silu(gate.z) * up.z, silu(gate.w) * up.w);
        }
        if (tile + kPassColumns < own.end || first + kRowTiles * kRowTile < c.p.rows) __syncthreads();
    }
}

template <class C>
__device__ __forceinline__ void wide_phase(const C& c, Sublayer sublayer, const Layer& layer, const Source& from) {
    const bool attention = sublayer == kAttention;
    const Matrix& matrix = attention ? layer.qkv : layer.gate_up;
    int first = 0;
#pragma unroll 1
    for (; c.p.rows - first > kRowTile; first += kBlockRows) wide_block<2>(c, attention, matrix, from, first);
    if (first < c.p.rows) wide_block<1>(c, attention, matrix, from, first);
}

}  // namespace trm::cuda

#endif
