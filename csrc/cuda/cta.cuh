// What a kernel of the fused ways gets, and what one of its CTAs knows; the pieces that all phases are made of.
//
// What one CTA writes and another reads goes through L2 (ld.global.cg), as the first-level caches of multiprocessors do
// not see each other's stores.
#ifndef TRM_EDGE_CUDA_CTA_CUH
#define TRM_EDGE_CUDA_CTA_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "cuda/plan.h"

namespace trm::cuda {

// A product's weights in fragments, [tile][k / kChunk][32 lanes] of 16 bytes.
struct Matrix {
    const uint4* packed;
    int resident;  // offset [16 bytes] of this CTA's tiles in shared memory, or -1: read from L2
};

struct Layer {
    Matrix qkv, out, gate_up, down;
};

// Everything a kernel gets. Arrays of rows are [row_stride, D] float32 unless said otherwise.
struct Params {
    Plan plan;
    Layer layer[kMaxLayers];
    int rows, answer_end, position_shift;  // rows from answer_end on stand position_shift further
    int l_cycles, h_cycles, steps;
    bool begin, refresh;
    float norm_eps, query_scale;
    const float2* rope;  // [positions, head / 2] cos and sin; null: no rotary positions

    const float *host_e, *host_y, *host_z;
    float* host_out;             // [steps, rows, D]
    float *e, *y, *z, *ye, *ze;  // y + e and z + e, as y and z change
    float *state, *middle;       // before their norm
    __nv_bfloat16 *q, *k, *v;    // v: [D, row_stride]
    __nv_bfloat16* inner;        // [row_stride, I]
    float* norms;                // [rows] inverse rms of the last rows normalised, for kernels of their own
    unsigned* arrivals;          // the two counters of the grid barrier
    int operand_offset, partial_offset, inverse_offset, own_offset;  // in shared memory [16 bytes]; weights come first
};

// What a sublayer starts from: rows before or (`normalised`) after their norm, plus other rows.
struct Source {
    const float* rows;
    bool normalised;
    const float* added;  // or null
};

// Where an evaluation leaves the normalised rows that it started from; null: nowhere.
struct Keep {
    float* rows;
    float* with_e;
    float* out;
};

enum Sublayer { kAttention, kSwiglu };

// A CTA's share of every phase; in shared memory, as registers are short.
struct Own {
    Range qkv, inner, hidden;  // tiles of columns
    int group, groups;         // tiles of rows group, group + groups, ... in narrow phases
};

// One CTA of a kernel for models with D = kHidden and heads of kHeadChunks * kChunk. The plan is a copy in which these
// are constants, so that the compiler folds what follows from them.
template <int kHidden, int kHeadChunks>
struct Cta {
    static constexpr int kChunks = kHidden / kChunk;
    static constexpr int kHeadSize = kHeadChunks * kChunk;
    static constexpr int kOperandStride = operand_stride(kHidden);

    const Params& p;
    Plan plan;
    uint4* shared;
    int number, thread, warp;
    Lane lane;

    __device__ Cta(const Params& params, uint4* shared_memory)
        : p(params),
          plan{kHidden,         kHidden / kHeadSize, params.plan.inner, params.plan.layers, params.plan.max_rows,
               params.plan.ctas},
          shared(shared_memory),
          number(static_cast<int>(blockIdx.x)),
          thread(static_cast<int>(threadIdx.x)),
          warp(static_cast<int>(threadIdx.x) / 32),
          lane(static_cast<int>(threadIdx.x) % 32) {
        if (thread == 0)
            *reinterpret_cast<Own*>(shared + p.own_offset) = {plan.qkv_share(number), plan.inner_share(number),
                                                              plan.hidden_share(number), plan.group_of(number),
                                                              plan.groups()};
        __syncthreads();
    }

    __device__ const Own& own() const { return *reinterpret_cast<const Own*>(shared + p.own_offset); }
    __device__ int lane_number() const { return thread % 32; }
    __device__ uint4* operand() const { return shared + p.operand_offset; }
    __device__ float4* partial() const { return reinterpret_cast<float4*>(shared + p.partial_offset); }
    __device__ float* inverse() const { return reinterpret_cast<float*>(shared + p.inverse_offset); }
    // The weights from tile `first` on, of those that start at `own`.
    __device__ const uint4* weights(const Matrix& m, int own, int first, int chunks) const {
        const uint4* begin = m.resident < 0 ? m.packed + static_cast<size_t>(own) * chunks * 32 : shared + m.resident;
        return begin + static_cast<size_t>(first - own) * chunks * 32;
    }
};

// ---- Pieces ----

__device__ inline uint32_t pack(float low, float high) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return reinterpret_cast<const uint32_t&>(pair);
}

__device__ inline void mma(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0,
                           uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// c += a b over one chunk of k; `low` and `high` hold rows `group` and `group + 8` of a.
__device__ inline void mma_chunk(float (&c)[4], uint4 low, uint4 high, uint4 b) {
    mma(c, low.x, high.x, low.y, high.y, b.x, b.y);
    mma(c, low.z, high.z, low.w, high.w, b.z, b.w);
}

__device__ inline uint4 load16(const __nv_bfloat16* from) { return __ldcg(reinterpret_cast<const uint4*>(from)); }

// 1 / rms; NaN where the squares are beyond float32, as rows of zeros would look like an answer.
__device__ inline float inverse_rms(float squares, float one_by_n, float eps) {
    return rsqrtf(fmaf(squares, one_by_n, eps)) + (squares - squares);
}

__device__ inline float silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

// Not contracted with a sum that follows: rows that are kept for later have to be the rows that were used.
__device__ inline float4 scaled(float4 a, float by) {
    return make_float4(__fmul_rn(a.x, by), __fmul_rn(a.y, by), __fmul_rn(a.z, by), __fmul_rn(a.w, by));
}

__device__ inline float4 plus(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }

template <int kRowTiles, int kTiles>
using Sums = float[kRowTiles][kTiles][4];

// Leave this warp's sums in shared memory for sum_up; ends with a barrier.
template <int kRowTiles, int kTiles, class C>
__device__ __forceinline__ void share_sums(const C& c, const Sums<kRowTiles, kTiles>& sums) {
    float4* to = c.partial() + c.warp * kWarps * 32 + c.lane_number();
#pragma unroll
    for (int m = 0; m < kRowTiles; ++m) {
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
            const float (&s)[4] = sums[m][n];
            to[(m * kPassColumns + n) * 32] = make_float4(s[0], s[1], s[2], s[3]);
        }
    }
    __syncthreads();
}

// The sum over warps of what this lane holds of a tile, always in the same order.
template <class C>
__device__ __forceinline__ float4 sum_up(const C& c, int m, int n) {
    const float4* sums = c.partial() + (m * kPassColumns + n) * 32 + c.lane_number();
    float4 total = sums[0];
#pragma unroll
    for (int warp = 1; warp < kWarps; ++warp) total = plus(total, sums[warp * kWarps * 32]);
    return total;
}

}  // namespace trm::cuda

#endif
