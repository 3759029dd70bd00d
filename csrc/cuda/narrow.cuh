// Narrow phases of the fused kernel: some rows, some columns, and the residual.
#ifndef TRM_EDGE_CUDA_NARROW_CUH
#define TRM_EDGE_CUDA_NARROW_CUH

#include "cuda/cta.cuh"

namespace trm::cuda {

// The values of a warp's tile that its sums are added to: normalised rows of the source. Read before the product, as
// they come from far.
struct Residual {
    float2 rows[2], added[2];

    template <class C>
    __device__ __forceinline__ Residual(const C& c, const Source& from, int row, int column, bool needed) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            rows[i] = added[i] = make_float2(0, 0);
            if (!needed || row + 8 * i >= c.p.rows) continue;
            const int at = c.plan.row_at(row + 8 * i, column);
            rows[i] = __ldcg(reinterpret_cast<const float2*>(from.rows + at));
            if (from.added) added[i] = __ldcg(reinterpret_cast<const float2*>(from.added + at));
        }
    }

    template <class C>
    __device__ __forceinline__ void add(const C& c, float* to, int row, int column, float4 sum) const {
        const float sums[4] = {sum.x, sum.y, sum.z, sum.w};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            if (row + 8 * i >= c.p.rows) continue;
            const float inverse = c.inverse()[row + 8 * i];
            const float2 h =
                make_float2(__fmul_rn(rows[i].x, inverse) + added[i].x, __fmul_rn(rows[i].y, inverse) + added[i].y);
            *reinterpret_cast<float2*>(to + c.plan.row_at(row + 8 * i, column)) =
                make_float2(h.x + sums[2 * i], h.y + sums[2 * i + 1]);
        }
    }
};

// Attention of one head for a tile of rows, as far as it has got along the keys: weighted values, and of the rows
// `group` and `group + 8` the largest score and the sum of weights.
template <int kHeadChunks>
struct Attended {
    float out[kHeadChunks][4][4] = {};
    float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

    // Add 8 * kTiles keys, with a running maximum (Milakov and Gimelshein, arXiv 1805.02867).
    template <int kTiles, class C>
    __device__ __forceinline__ void add(const C& c, const uint4 (&query)[2][kHeadChunks], int first_column,
                                        int first_key) {
        const int L = c.p.rows, quad = c.lane.quad, first_own = first_key + 2 * kTiles * quad;
        uint4 key[kTiles][kHeadChunks];
        uint4 value[kHeadChunks][4];  // the first 4 * kTiles bytes
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
            const int row = first_key + c.lane.spread(j, kTiles);
#pragma unroll
            for (int i = 0; i < kHeadChunks; ++i)
                key[j][i] = row < L ? load16(c.p.k + c.plan.row_at(row, first_column + kChunk * i + 8 * quad))
                                    : make_uint4(0, 0, 0, 0);
        }
#pragma unroll
        for (int i = 0; i < kHeadChunks; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const auto* from = c.p.v + c.plan.value_at(first_own, first_column + kChunk * i + c.lane.spread(j));
                value[i][j] = make_uint4(0, 0, 0, 0);
                if (first_own >= L) continue;
                if (kTiles == 4) {
                    value[i][j] = load16(from);
                } else {
                    const uint2 half = __ldcg(reinterpret_cast<const uint2*>(from));
                    value[i][j].x = half.x;
                    value[i][j].y = half.y;
                }
            }
        }
        float score[kTiles][4] = {};
#pragma unroll
        for (int i = 0; i < kHeadChunks; ++i) {
#pragma unroll
            for (int j = 0; j < kTiles; ++j) mma_chunk(score[j], query[0][i], query[1][i], key[j][i]);
        }
        if (first_key + 8 * kTiles > L) {
#pragma unroll
            for (int j = 0; j < kTiles; ++j) {
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    if (first_own + 2 * j + i % 2 >= L) score[j][i] = -INFINITY;
            }
        }
        uint32_t weight[2][kTiles];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            float now = most[half];
#pragma unroll
            for (int j = 0; j < kTiles; ++j) now = fmaxf(now, fmaxf(score[j][2 * half], score[j][2 * half + 1]));
            now = fmaxf(now, __shfl_xor_sync(~0u, now, 1));
            now = fmaxf(now, __shfl_xor_sync(~0u, now, 2));
            if (first_key > 0) shrink(half, __expf(most[half] - now));
            most[half] = now;
#pragma unroll
            for (int j = 0; j < kTiles; ++j) {
                weight[half][j] = pack(__expf(score[j][2 * half] - now), __expf(score[j][2 * half + 1] - now));
                const float2 rounded = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162&>(weight[half][j]));
                sum[half] += rounded.x + rounded.y;
            }
        }
#pragma unroll
        for (int i = 0; i < kHeadChunks; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                mma(out[i][j], weight[0][0], weight[1][0], weight[0][1], weight[1][1], value[i][j].x, value[i][j].y);
                if (kTiles == 4)
                    mma(out[i][j], weight[0][kTiles - 2], weight[1][kTiles - 2], weight[0][kTiles - 1],
                        weight[1][kTiles - 1], value[i][j].z, value[i][j].w);
            }
        }
    }

    __device__ __forceinline__ void shrink(int half, float by) {
        sum[half] *= by;
#pragma unroll
        for (int i = 0; i < kHeadChunks; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                out[i][j][2 * half] *= by;
                out[i][j][2 * half + 1] *= by;
            }
        }
    }

    // Divided by the sums and rounded, rows `group` (half 0) or `group + 8`, as an operand.
    __device__ __forceinline__ void finish(int half, uint4 (&rows)[kHeadChunks]) {
        sum[half] += __shfl_xor_sync(~0u, sum[half], 1);
        sum[half] += __shfl_xor_sync(~0u, sum[half], 2);
        const float scale = __fdividef(1.0f, sum[half]);
#pragma unroll
        for (int i = 0; i < kHeadChunks; ++i) {
            const auto word = [&](int j) { return pack(out[i][j][2 * half] * scale, out[i][j][2 * half + 1] * scale); };
            rows[i] = make_uint4(word(0), word(1), word(2), word(3));
        }
    }
};

template <int kHeadChunks, class C>
__device__ __forceinline__ void attend(const C& c, int head, int row_tile, uint4 (&low)[kHeadChunks],
                                       uint4 (&high)[kHeadChunks]) {
    const int first_column = head * C::kHeadSize;
    uint4 query[2][kHeadChunks];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int row = row_tile * kRowTile + c.lane.row(2 * half);
#pragma unroll
        for (int i = 0; i < kHeadChunks; ++i)
            query[half][i] = load16(c.p.q + c.plan.row_at(row, first_column + kChunk * i + 8 * c.lane.quad));
    }
    Attended<kHeadChunks> attended;
    int key = 0;
#pragma unroll 1
    for (; c.p.rows - key > kKeyTile / 2; key += kKeyTile) attended.template add<4>(c, query, first_column, key);
    if (key < c.p.rows) attended.template add<2>(c, query, first_column, key);
    attended.finish(0, low);
    attended.finish(1, high);
}

template <int kHeadChunks, int kTiles, class C>
__device__ __forceinline__ void multiply_attended(const C& c, const uint4* weights, int row_tile) {
    Sums<1, kTiles> sums = {};
#pragma unroll 1
    for (int head = c.warp; head < c.plan.heads; head += kWarps) {
        uint4 low[kHeadChunks], high[kHeadChunks];
        attend<kHeadChunks>(c, head, row_tile, low, high);
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
#pragma unroll
            for (int i = 0; i < kHeadChunks; ++i)
                mma_chunk(sums[0][n], low[i], high[i],
                          weights[(n * C::kChunks + head * kHeadChunks + i) * 32 + c.lane_number()]);
        }
    }
    share_sums<1, kTiles>(c, sums);
}

template <int kTiles, class C>
__device__ __forceinline__ void multiply_inner(const C& c, const uint4* weights, int row_tile) {
    constexpr int kAhead = 6;  // chunks whose rows are on their way at once
    const int chunks = c.plan.inner / kChunk;
    const int at = c.plan.inner_at(row_tile * kRowTile + c.lane.group, 8 * c.lane.quad);
    const __nv_bfloat16 *low_row = c.p.inner + at, *high_row = low_row + 8 * c.plan.inner;
    Sums<2, kTiles> sums = {};  // of even and odd chunks: two chains, as each product waits for the one before
#pragma unroll 1
    for (int first = c.warp; first < chunks; first += kAhead * kWarps) {
        uint4 low[kAhead], high[kAhead];
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
            const int chunk = first + i * kWarps;
            low[i] = high[i] = make_uint4(0, 0, 0, 0);
            if (chunk >= chunks) continue;
            low[i] = load16(low_row + kChunk * chunk);
            high[i] = load16(high_row + kChunk * chunk);
        }
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
            const int chunk = first + i * kWarps;
            if (chunk >= chunks) continue;
#pragma unroll
            for (int n = 0; n < kTiles; ++n)
                mma_chunk(sums[i % 2][n], low[i], high[i], weights[(n * chunks + chunk) * 32 + c.lane_number()]);
        }
    }
    Sums<1, kTiles> total;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) total[0][n][i] = sums[0][n][i] + sums[1][n][i];
    }
    share_sums<1, kTiles>(c, total);
}

// kTiles tiles of columns from `tile` on, for one tile of rows.
template <int kHeadChunks, int kTiles, class C>
__device__ __forceinline__ void narrow_tiles(const C& c, bool attention, const Matrix& matrix, const Source& from,
                                             int row_tile, int tile) {
    const int row = row_tile * kRowTile + c.lane.row(0);
    const int column = (tile + c.warp) * kColumnTile + c.lane.column(0);
    const bool mine = c.warp < kTiles;
    const Residual residual(c, from, row, column, mine);
    const uint4* weights =
        c.weights(matrix, c.own().hidden.begin, tile, attention ? C::kChunks : c.plan.inner / kChunk);
    if (attention) {
        multiply_attended<kHeadChunks, kTiles>(c, weights, row_tile);
    } else {
        multiply_inner<kTiles>(c, weights, row_tile);
    }
    if (mine) residual.add(c, attention ? c.p.middle : c.p.state, row, column, sum_up(c, 0, c.warp));
}

template <int kHeadChunks, class C>
__device__ __forceinline__ void narrow_phase(const C& c, Sublayer sublayer, const Layer& layer, const Source& from) {
    const bool attention = sublayer == kAttention;
    const Matrix& matrix = attention ? layer.out : layer.down;
    if (c.own().hidden.size() == 0) return;
    bool again = false;
#pragma unroll 1
    for (int row_tile = c.own().group; row_tile * kRowTile < c.p.rows; row_tile += c.own().groups) {
#pragma unroll 1
        for (int tile = c.own().hidden.begin; tile < c.own().hidden.end;) {
            if (again) __syncthreads();  // until the sums before are read
            again = true;
            const bool two = c.own().hidden.end - tile > 1;
            if (two) {
                narrow_tiles<kHeadChunks, 2>(c, attention, matrix, from, row_tile, tile);
            } else {
                narrow_tiles<kHeadChunks, 1>(c, attention, matrix, from, row_tile, tile);
            }
            tile += two ? 2 : 1;
        }
    }
}

}  // namespace trm::cuda

#endif
