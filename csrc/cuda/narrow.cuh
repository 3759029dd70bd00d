// Narrow phases of the fused kernel: some rows, some columns, and the residual.
#ifndef TRM_EDGE_CUDA_NARROW_CUH
#define TRM_EDGE_CUDA_NARROW_CUH

#include "cuda/cta.cuh"

namespace trm::cuda {

constexpr int kNarrowSlots = 2;

// What two neighbouring columns of a row are added to: the normalised rows of the source. Read before the product, as
// they come from far.
struct Residual {
    float2 rows = {0, 0}, added = {0, 0};

    template <class C>
    __device__ __forceinline__ Residual(const C& c, const Source& from, int row, int column, bool needed) {
        if (!needed) return;
        const int at = c.plan.row_at(row, column);
        const uint2 words = read_now_8(from.rows + at);
        rows = reinterpret_cast<const float2&>(words);
        if (from.added) added = __ldcg(reinterpret_cast<const float2*>(from.added + at));
    }

    __device__ __forceinline__ float2 plus(float2 sum, float inverse) const {
        return make_float2(__fmul_rn(rows.x, inverse) + added.x + sum.x, __fmul_rn(rows.y, inverse) + added.y + sum.y);
    }
};

// Queries of one head for a tile of rows: of the rows `group` and `group + 8`.
template <int kHeadChunks>
struct Query {
    uint4 of[2][kHeadChunks];

    // Returns the largest word, as the one below.
    template <class C>
    __device__ __forceinline__ uint32_t read(const C& c, const uint16_t* qkv, int first_column, int row_tile) {
        uint32_t most = 0;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const int row = at_most(row_tile * kRowTile + c.lane.row(2 * half), c.p.rows - 1);
#pragma unroll
            for (int i = 0; i < kHeadChunks; ++i) {
                of[half][i] = read_now(qkv + c.plan.row_at(row, first_column + kChunk * i + 8 * c.lane.quad));
                most = largest(most, of[half][i]);
            }
        }
        return most;
    }
};

// 8 * kTiles keys and values of one head.
template <int kHeadChunks, int kTiles>
struct Keys {
    uint4 key[kTiles][kHeadChunks];
    uint4 value[kHeadChunks][4];                      // the first 4 * kTiles bytes
    static constexpr bool kBothAtOnce = kTiles == 2;  // more do not fit into the registers

    template <class C>
    __device__ __forceinline__ uint32_t read_keys(const C& c, const uint16_t* qkv, int first_column, int first_key) {
        const uint16_t* k = qkv + c.plan.rows_size();
        uint32_t most = 0;
#pragma unroll
        for (int j = 0; j < kTiles; ++j) {
            const int row = at_most(first_key + c.lane.spread(j, kTiles), c.p.rows - 1);
#pragma unroll
            for (int i = 0; i < kHeadChunks; ++i) {
                key[j][i] = read_now(k + c.plan.row_at(row, first_column + kChunk * i + 8 * c.lane.quad));
                most = largest(most, key[j][i]);
            }
        }
        return most;
    }

    // Those of keys past the last one are there too, and zero.
    template <class C>
    __device__ __forceinline__ uint32_t read_values(const C& c, const uint16_t* qkv, int first_column, int first_key) {
        const int first_own = first_key + 2 * kTiles * c.lane.quad;
        const uint16_t* v = qkv + 2 * c.plan.rows_size();
        uint32_t most = 0;
#pragma unroll
        for (int i = 0; i < kHeadChunks; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const auto* from = v + c.plan.value_at(first_own, first_column + kChunk * i + c.lane.spread(j));
                if (kTiles == 4) {
                    value[i][j] = read_now(from);
                } else {
                    const uint2 half = read_now_8(from);
                    value[i][j] = make_uint4(half.x, half.y, 0, 0);
                }
                most = largest(most, value[i][j]);
            }
        }
        return most;
    }
};

// Attention of one head for a tile of rows, as far as it has got along the keys: weighted values, and of the rows
// `group` and `group + 8` the largest score and the sum of weights.
template <int kHeadChunks>
struct Attended {
    float out[kHeadChunks][4][4] = {};
    float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};

    // Add 8 * kTiles keys, with a running maximum (Milakov and Gimelshein, arXiv 1805.02867). Queries are read before
    // the first of them.
    template <int kTiles, class C>
    __device__ __forceinline__ void add(const C& c, const uint16_t* qkv, int first_column, int row_tile, int first_key,
                                        Query<kHeadChunks>& query) {
        const int L = c.p.rows, first_own = first_key + 2 * kTiles * c.lane.quad;
        Keys<kHeadChunks, kTiles> keys;
        uint32_t largest_word;
        do {
            largest_word = first_key == 0 ? query.read(c, qkv, first_column, row_tile) : 0;
            largest_word = max(largest_word, keys.read_keys(c, qkv, first_column, first_key));
            if (keys.kBothAtOnce) largest_word = max(largest_word, keys.read_values(c, qkv, first_column, first_key));
        } while (C::kPersistent && any_missing(largest_word));
        float score[kTiles][4] = {};
#pragma unroll
        for (int i = 0; i < kHeadChunks; ++i) {
#pragma unroll
            for (int j = 0; j < kTiles; ++j) c.mma_chunk(score[j], query.of[0][i], query.of[1][i], keys.key[j][i]);
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
                weight[half][j] = c.pack(__expf(score[j][2 * half] - now), __expf(score[j][2 * half + 1] - now));
                const float2 rounded = c.unpack(weight[half][j]);
                sum[half] += rounded.x + rounded.y;
            }
        }
        if (!keys.kBothAtOnce)
            while (any_missing(keys.read_values(c, qkv, first_column, first_key)) && C::kPersistent) continue;
#pragma unroll
        for (int i = 0; i < kHeadChunks; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const uint4& value = keys.value[i][j];
                c.mma(out[i][j], weight[0][0], weight[1][0], weight[0][1], weight[1][1], value.x, value.y);
                if (kTiles == 4)
                    c.mma(out[i][j], weight[0][kTiles - 2], weight[1][kTiles - 2], weight[0][kTiles - 1],
                          weight[1][kTiles - 1], value.z, value.w);
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
    template <class C>
    __device__ __forceinline__ void finish(const C& c, int half, uint4 (&rows)[kHeadChunks]) {
        sum[half] += __shfl_xor_sync(~0u, sum[half], 1);
        sum[half] += __shfl_xor_sync(~0u, sum[half], 2);
        const float scale = __fdividef(1.0f, sum[half]);
#pragma unroll
        for (int i = 0; i < kHeadChunks; ++i) {
            const auto word = [&](int j) {
                return c.pack(out[i][j][2 * half] * scale, out[i][j][2 * half + 1] * scale);
            };
            rows[i] = make_uint4(word(0), word(1), word(2), word(3));
        }
    }
};

template <int kHeadChunks, class C>
__device__ __forceinline__ void attend(const C& c, const uint16_t* qkv, int head, int row_tile,
                                       uint4 (&low)[kHeadChunks], uint4 (&high)[kHeadChunks]) {
    const int first_column = head * C::kHeadSize;
    Query<kHeadChunks> query;
    Attended<kHeadChunks> attended;
    int key = 0;
#pragma unroll 1
    for (; c.p.rows - key > kKeyTile / 2; key += kKeyTile)
        attended.template add<4>(c, qkv, first_column, row_tile, key, query);
    if (key < c.p.rows) attended.template add<2>(c, qkv, first_column, row_tile, key, query);
    attended.finish(c, 0, low);
    attended.finish(c, 1, high);
}

template <int kHeadChunks, int kTiles, class C>
__device__ __forceinline__ void multiply_attended(const C& c, const uint16_t* qkv, const typename C::Weights* weights,
                                                  int row_tile) {
    Sums<1, kTiles> sums = {};
#pragma unroll 1
    for (int head = c.warp; head < c.plan.heads; head += kWarps) {
        uint4 low[kHeadChunks], high[kHeadChunks];
        attend<kHeadChunks>(c, qkv, head, row_tile, low, high);
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
#pragma unroll
            for (int i = 0; i < kHeadChunks; ++i)
                c.mma_chunk(
                    sums[0][n], low[i], high[i],
                    C::weight_operand(weights[(n * C::kChunks + head * kHeadChunks + i) * 32 + c.lane_number()]));
        }
    }
    share_sums<kNarrowSlots>(c, c.narrow_partial(), sums);
}

template <int kTiles, class C>
__device__ __forceinline__ void multiply_inner(const C& c, const uint16_t* inner, const typename C::Weights* weights,
                                               int row_tile) {
    constexpr int kAhead = 6;  // chunks whose rows are on their way at once
    const int chunks = c.plan.inner / kChunk;
    const int row = row_tile * kRowTile + c.lane.group, last = c.p.rows - 1;
    const uint16_t* low_row = inner + c.plan.inner_at(at_most(row, last), 8 * c.lane.quad);
    const uint16_t* high_row = inner + c.plan.inner_at(at_most(row + 8, last), 8 * c.lane.quad);
    Sums<2, kTiles> sums = {};  // of even and odd chunks: two chains, as each product waits for the one before
#pragma unroll 1
    for (int first = c.warp; first < chunks; first += kAhead * kWarps) {
        uint4 low[kAhead], high[kAhead];
        uint32_t most;
        do {
            most = 0;
#pragma unroll
            for (int i = 0; i < kAhead; ++i) {
                const int chunk = at_most(first + i * kWarps, chunks - 1);
                low[i] = read_now(low_row + kChunk * chunk);
                high[i] = read_now(high_row + kChunk * chunk);
            }
#pragma unroll
            for (int i = 0; i < kAhead; ++i) most = largest(largest(most, low[i]), high[i]);
        } while (C::kPersistent && any_missing(most));
#pragma unroll
        for (int i = 0; i < kAhead; ++i) {
            const int chunk = first + i * kWarps;
            if (chunk >= chunks) continue;
#pragma unroll
            for (int n = 0; n < kTiles; ++n)
                c.mma_chunk(sums[i % 2][n], low[i], high[i],
                            C::weight_operand(weights[(n * chunks + chunk) * 32 + c.lane_number()]));
        }
    }
    Sums<1, kTiles> total;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) total[0][n][i] = sums[0][n][i] + sums[1][n][i];
    }
    share_sums<kNarrowSlots>(c, c.narrow_partial(), total);
}

// kTiles tiles of columns from `tile` on, for one tile of rows.
template <int kHeadChunks, int kTiles, class C>
__device__ __forceinline__ void narrow_tiles(const C& c, const Moment& m, const Matrix& matrix, int row_tile,
                                             int tile) {
    const int n = c.warp / 2, half = c.warp % 2;  // of a tile that this warp finishes
    const int row = row_tile * kRowTile + c.lane.row(2 * half);
    const int column = (tile + n) * kColumnTile + c.lane.column(0);
    const bool mine = n < kTiles && row < c.p.rows, attention = sublayer_of(m) == kAttention;
    const Residual residual(c, source_of(c.p, m), row, column, mine);
    const uint16_t* wide = places_of(c.p, m.number).wide;
    const float2 scale = c.scale(matrix, tile + at_most(n, kTiles - 1));
    const auto* weights = c.weights(matrix, c.own().hidden.begin, tile, attention ? C::kChunks : c.plan.inner / kChunk);
    if (attention) {
        multiply_attended<kHeadChunks, kTiles>(c, wide, weights, row_tile);
    } else {
        multiply_inner<kTiles>(c, wide, weights, row_tile);
    }
    if (!mine) return;
    const float2 sum = c.scaled(sum_up<kNarrowSlots>(c, c.narrow_partial(), n, half), scale);
    const float2 x = residual.plus(sum, c.inverse(sublayer_of(m))[row]);
    hand_over(places_of(c.p, m.number).to + c.plan.row_at(row, column), x.x, x.y);
}

template <int kHeadChunks, class C>
__device__ __forceinline__ void narrow_phase(const C& c, const Moment& m) {
    const Layer& layer = c.p.layer[m.s / 2];
    const Matrix& matrix = sublayer_of(m) == kAttention ? layer.out : layer.down;
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
                narrow_tiles<kHeadChunks, 2>(c, m, matrix, row_tile, tile);
            } else {
                narrow_tiles<kHeadChunks, 1>(c, m, matrix, row_tile, tile);
            }
            tile += two ? 2 : 1;
        }
    }
}

}  // namespace trm::cuda

#endif
