// Wide phases of the fused kernel: all rows, some columns. Rows are normalised and rounded on the way in.
#ifndef TRM_EDGE_CUDA_WIDE_CUH
#define TRM_EDGE_CUDA_WIDE_CUH

#include "cuda/cta.cuh"

namespace trm::cuda {

constexpr int kWideSlots = kPassRows * kPassColumns;

// What a warp has of the rows of kRowTiles tiles from `first` on: every kWarps-th row. In place of rows past the last
// one its first is read again, and nobody looks at what becomes of it. (Not the last one: all warps of all CTAs would
// read the same row again and again, and it would come later.)
template <int kRowTiles, class C>
struct Rows {
    static constexpr int kRows = kRowTiles * kRowTile / kWarps, kHidden = C::kChunks * kChunk;
    static constexpr int kFloats4 = (kHidden + 127) / 128;  // of a row in a lane

    float4 of[kRows][kFloats4];

    __device__ __forceinline__ static bool inside(const C& c) {
        return kHidden >= 128 || 4 * c.lane_number() < kHidden;
    }

    // Returns the largest word.
    __device__ __forceinline__ uint32_t read(const C& c, const float* base, int first) {
        uint32_t most = 0;
#pragma unroll
        for (int j = 0; j < kRows; ++j) {
            const int own = first + c.warp + j * kWarps;
            const int row = own < c.p.rows ? own : at_most(first + c.warp, c.p.rows - 1);
            const float* from = base + c.plan.row_at(row, 4 * c.lane_number());
#pragma unroll
            for (int i = 0; i < kFloats4; ++i) {
                const uint4 words = inside(c) ? read_now(from + 128 * i) : make_uint4(0, 0, 0, 0);
                of[j][i] = reinterpret_cast<const float4&>(words);
            }
        }
#pragma unroll
        for (int j = 0; j < kRows; ++j) {
#pragma unroll
            for (int i = 0; i < kFloats4; ++i) most = largest(most, reinterpret_cast<const uint4&>(of[j][i]));
        }
        return most;
    }
};

// Until there is a value of each tile of columns in each tile of rows: the rest comes at about the same time, and if
// all CTAs read everything again and again, it would come later. Warps share the tiles; ends with a barrier.
template <int kRowTiles, class C>
__device__ __forceinline__ void await_rows(const C& c, const Source& from, int first) {
    constexpr int kTiles = div_up(C::kChunks * kChunk / kColumnTile, kWarps);
    const int m = c.lane_number() / kTiles, tile = c.warp * kTiles + c.lane_number() % kTiles;
    if (C::kPersistent && !from.given) {
        const int row = at_most(first + m * kRowTile, c.p.rows - 1);
        const float* place = from.rows + c.plan.row_at(row, tile * kColumnTile);
        while (any_missing(m < kRowTiles ? read_now_4(place) : 0)) continue;
    }
    __syncthreads();
}

// Normalise rows and round them into the operand.
template <int kRowTiles, class C>
__device__ __forceinline__ void stage_rows(const C& c, const Source& from, int first, float* inverse_of) {
    Rows<kRowTiles, C> rows, added;
    constexpr int kRows = rows.kRows, kFloats4 = rows.kFloats4;
    constexpr bool kAddedAhead = kRowTiles == 1;  // more do not fit into the registers
    if (kAddedAhead && from.added) added.read(c, from.added, first);
    await_rows<kRowTiles>(c, from, first);  // which is also until the operand and the norms before have been used
    while (any_missing(rows.read(c, from.rows, first)) && C::kPersistent && !from.given) continue;
    float squares[kRows];
#pragma unroll
    for (int j = 0; j < kRows; ++j) {
        squares[j] = 0;
#pragma unroll
        for (int i = 0; i < kFloats4; ++i) {
            const float4& x = rows.of[j][i];
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
        const int row = first + j * kWarps + c.warp;
        const float inverse = from.given ? 1.0f : inverse_rms(squares[j], 1.0f / rows.kHidden, c.p.norm_eps);
        if (c.lane_number() == 0) {
            inverse_of[row] = inverse;
            if (!C::kPersistent && c.number == 0) c.p.norms[row] = inverse;
        }
#pragma unroll
        for (int i = 0; i < kFloats4; ++i) rows.of[j][i] = scaled(rows.of[j][i], inverse);
    }
    if (from.added) {
        if (!kAddedAhead) added.read(c, from.added, first);
#pragma unroll
        for (int j = 0; j < kRows; ++j) {
#pragma unroll
            for (int i = 0; i < kFloats4; ++i) rows.of[j][i] = plus(rows.of[j][i], added.of[j][i]);
        }
    }
    uint2* to = reinterpret_cast<uint2*>(c.operand() + c.warp * C::kOperandStride) + c.lane_number();
#pragma unroll
    for (int j = 0; j < kRows; ++j) {
#pragma unroll
        for (int i = 0; i < kFloats4; ++i) {
            const float4& x = rows.of[j][i];
            if (rows.inside(c))
                to[j * kWarps * C::kOperandStride * 2 + 32 * i] = make_uint2(c.pack(x.x, x.y), c.pack(x.z, x.w));
        }
    }
    __syncthreads();
}

// Write out rows `from` as normalised, for the evaluations and the host that need them later: `thread` of `threads`.
template <class C>
__device__ __forceinline__ void keep_rows(const C& c, const Source& from, const Keep& keep, int thread, int threads) {
    if (keep.rows == nullptr) return;
    for (int row = first_kept_row(c.number, c.plan.ctas); row < c.p.rows; row += c.plan.ctas) {
        const float inverse = c.inverse(kAttention)[row];
        for (int column = 4 * thread; column < c.plan.hidden; column += 4 * threads) {
            const int at = c.plan.row_at(row, column);
            const uint4 words = read_now(from.rows + at);
            const float4 e = __ldcg(reinterpret_cast<const float4*>(c.p.e + at));
            const float4 x = scaled(reinterpret_cast<const float4&>(words), inverse);
            *reinterpret_cast<float4*>(keep.rows + at) = x;
            *reinterpret_cast<float4*>(keep.with_e + at) = plus(x, e);
            if (keep.out) *reinterpret_cast<float4*>(keep.out + at) = x;
        }
    }
}

// operand times kTiles tiles of weights, of which `tiles` are there: this warp's chunks of k.
template <int kRowTiles, int kTiles, class C>
__device__ __forceinline__ void multiply_staged(const C& c, const typename C::Weights* weights, int tiles) {
    Sums<kRowTiles, kTiles> sums = {};
    const uint4* operand = c.operand() + c.lane.group * C::kOperandStride + c.lane.quad;
#pragma unroll
    for (int i = 0; i < div_up(C::kChunks, kWarps); ++i) {
        const int chunk = i * kWarps + c.warp;
        if (C::kChunks % kWarps != 0 && chunk >= C::kChunks) continue;
        uint4 w[kTiles];
#pragma unroll
        for (int n = 0; n < kTiles; ++n)
            w[n] = C::weight_operand(
                weights[((kTiles > 2 ? min(n, tiles - 1) : n) * C::kChunks + chunk) * 32 + c.lane_number()]);
#pragma unroll
        for (int m = 0; m < kRowTiles; ++m) {
            const uint4 low = operand[m * kRowTile * C::kOperandStride + 4 * chunk];
            const uint4 high = operand[(m * kRowTile + 8) * C::kOperandStride + 4 * chunk];
#pragma unroll
            for (int n = 0; n < kTiles; ++n) c.mma_chunk(sums[m][n], low, high, w[n]);
        }
    }
    share_sums<kWideSlots>(c, c.partial(), sums);
}

// Cos and sin by which queries and keys of a row are turned, in the columns that this lane holds of a tile.
template <class C>
__device__ __forceinline__ float2 turn_of(const C& c, int tile, int row) {
    if (c.p.rope == nullptr || c.plan.qkv_part(tile) == 2 || row >= c.p.rows) return make_float2(1, 0);
    const int position = row < c.p.answer_end ? row : row + c.p.position_shift;
    return __ldg(c.p.rope + position * (C::kHeadSize / 2) + c.plan.rotary_index(tile, c.lane.column(0), C::kHeadSize));
}

// Two neighbouring columns of a row: queries and keys are rotated, queries scaled, and all of them rounded and stored.
// Of values, the lanes of two neighbouring rows trade, so that each has both rows of one column, which lie in one word.
// Rows of values past the last one become zero: attention gives them a weight of 0, which a NaN would survive.
template <class C>
__device__ __forceinline__ void store_qkv(const C& c, uint16_t* to, int tile, int row, float2 turn, float2 sum) {
    const int part = c.plan.qkv_part(tile), column = c.plan.stored_column(tile, c.lane.column(0));
    const bool there = row < c.p.rows;
    if (part == 2) {
        if (!there) sum = make_float2(0, 0);
        const bool odd = row % 2;
        const float other = __shfl_xor_sync(~0u, odd ? sum.x : sum.y, 4);
        const uint32_t word = odd ? c.pack(other, sum.y) : c.pack(sum.x, other);
        hand_over(to + 2 * c.plan.rows_size() + c.plan.value_at(row - odd, column + odd), word);
        return;
    }
    if (!there) return;
    const float scale = part == 0 ? c.p.query_scale : 1.0f;
    hand_over(to + part * c.plan.rows_size() + c.plan.row_at(row, column),
              c.infinite_to_nan(
                  c.pack((sum.x * turn.x - sum.y * turn.y) * scale, (sum.y * turn.x + sum.x * turn.y) * scale)));
}

template <class C>
__device__ __forceinline__ void store_inner(const C& c, uint16_t* to, int pair, int row, float first, float second) {
    if (row >= c.p.rows) return;
    const int column = pair * kColumnTile + c.lane.column(0);
    hand_over(to + c.plan.inner_at(row, column), c.pack(first, second));
}

// The rows of kRowTiles tiles from `first` on.
template <int kRowTiles, class C>
__device__ __forceinline__ void wide_block(const C& c, const Moment& at, const Matrix& matrix, int first) {
    static_assert(kWarps == 2 * kPassColumns && kPassRows == 2, "who finishes which half of a tile");
    const bool attention = sublayer_of(at) == kAttention;
    const Source from = source_of(c.p, at);
    stage_rows<kRowTiles>(c, from, first, c.inverse(sublayer_of(at)));
    uint16_t* const to = places_of(c.p, at.number).wide;
    const Range own = attention ? c.own().qkv : c.own().inner;
    // A warp finishes half of tile n, or of pair n % 2 of them.
    const int half = c.warp % 2, n = c.warp / 2;
#pragma unroll 1
    for (int tile = own.begin; tile < own.end; tile += kPassColumns) {
        const int tiles = min(kPassColumns, own.end - tile);
        const auto* weights = c.weights(matrix, own.begin, tile, C::kChunks);
        float2 turns[kRowTiles];  // read before the product, as they come from far, as scales do
        const int pair = n % 2, finished = attention ? n : 2 * pair;  // the first tile that this warp finishes
        const float2 scale = c.scale(matrix, tile + at_most(finished, tiles - 1));
        const float2 up_scale = attention ? scale : c.scale(matrix, tile + at_most(finished + 1, tiles - 1));
        if (attention && n < tiles) {
            for (int m = 0; m < kRowTiles; ++m)
                turns[m] = turn_of(c, tile + n, first + m * kRowTile + c.lane.row(2 * half));
        }
        if (tiles == 1) multiply_staged<kRowTiles, 1>(c, weights, tiles);
        if (tiles == 2) multiply_staged<kRowTiles, 2>(c, weights, tiles);
        if (tiles > 2) multiply_staged<kRowTiles, kPassColumns>(c, weights, tiles);
        if (attention) {
            for (int m = 0; m < kRowTiles && n < tiles; ++m)
                store_qkv(c, to, tile + n, first + m * kRowTile + c.lane.row(2 * half), turns[m],
                          c.scaled(sum_up<kWideSlots>(c, c.partial(), m * kPassColumns + n, half), scale));
        } else {
            const int m = n / 2, slot = m * kPassColumns + 2 * pair;
            if (m < kRowTiles && 2 * pair < tiles) {
                const float2 gate = c.scaled(sum_up<kWideSlots>(c, c.partial(), slot, half), scale);
                const float2 up = c.scaled(sum_up<kWideSlots>(c, c.partial(), slot + 1, half), up_scale);
                store_inner(c, to, tile / 2 + pair, first + m * kRowTile + c.lane.row(2 * half), silu(gate.x) * up.x,
                            silu(gate.y) * up.y);
            }
        }
        if (tile + kPassColumns < own.end) __syncthreads();  // until these sums are read
    }
}

template <class C>
__device__ __forceinline__ void wide_phase(const C& c, const Moment& m) {
    const Layer& layer = c.p.layer[m.s / 2];
    const Matrix& matrix = sublayer_of(m) == kAttention ? layer.qkv : layer.gate_up;
    int first = 0;
#pragma unroll 1
    for (; c.p.rows - first > kRowTile; first += kBlockRows) wide_block<2>(c, m, matrix, first);
    if (first < c.p.rows) wide_block<1>(c, m, matrix, first);
}

}  // namespace trm::cuda

#endif
