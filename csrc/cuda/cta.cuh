// What one CTA of a kernel of the fused ways knows, and the pieces that all phases are made of.
//
// What one CTA writes and another reads goes through L2, as the first-level caches of multiprocessors do not see each
// other's stores.
#ifndef TRM_EDGE_CUDA_CTA_CUH
#define TRM_EDGE_CUDA_CTA_CUH

#include <cuda_runtime.h>

#include "cuda/handoff.cuh"
#include "cuda/params.cuh"

namespace trm::cuda {

// A CTA's share of every phase; in shared memory, as registers are short.
struct Own {
    Range qkv, inner, hidden;  // tiles of columns
    int group, groups;         // tiles of rows group, group + groups, ... in narrow phases
    bool halted;               // after the step before
};

// One CTA of a kernel for models with D = kHidden and heads of kHeadChunks * kChunk, which multiplies in Element. The
// plan is a copy in which these are constants, so that the compiler folds what follows from them.
template <class Element, int kHidden, int kHeadChunks, bool kIsPersistent>
struct Cta : Element {
    using Weights = typename Element::Weights;
    static constexpr bool kPersistent = kIsPersistent;
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
            *reinterpret_cast<Own*>(shared + p.own_offset) = {plan.qkv_share(number),
                                                              plan.inner_share(number),
                                                              plan.hidden_share(number),
                                                              plan.group_of(number),
                                                              plan.groups(),
                                                              false};
        __syncthreads();
    }

    __device__ Own& own() const { return *reinterpret_cast<Own*>(shared + p.own_offset); }
    __device__ int lane_number() const { return thread % 32; }
    __device__ uint4* operand() const { return shared + p.operand_offset; }
    __device__ float4* partial() const { return reinterpret_cast<float4*>(shared + p.partial_offset); }
    __device__ float4* narrow_partial() const { return reinterpret_cast<float4*>(operand()); }
    // 1 / rms of the rows that the last sublayer of that kind started from.
    __device__ float* inverse(Sublayer of) const {
        return reinterpret_cast<float*>(shared + p.inverse_offset) + of * plan.row_stride();
    }
    // c += a b over one chunk of k; `low` and `high` hold rows `group` and `group + 8` of a.
    __device__ static void mma_chunk(float (&c)[4], uint4 low, uint4 high, uint4 b) {
        Element::mma(c, low.x, high.x, low.y, high.y, b.x, b.y);
        Element::mma(c, low.z, high.z, low.w, high.w, b.z, b.w);
    }
    // The weights from tile `first` on, of those that start at `own`.
    __device__ const Weights* weights(const Matrix& m, int own, int first, int chunks) const {
        const Weights* begin = m.resident < 0
                                   ? static_cast<const Weights*>(m.packed) + static_cast<size_t>(own) * chunks * 32
                                   : reinterpret_cast<const Weights*>(shared + m.resident);
        return begin + static_cast<size_t>(first - own) * chunks * 32;
    }
    // Of the two columns of a tile that this lane holds.
    __device__ float2 scale(const Matrix& m, int tile) const {
        if constexpr (Element::kScaled) {
            return __ldg(reinterpret_cast<const float2*>(m.scales + tile * kColumnTile + lane.column(0)));
        } else {
            return make_float2(1, 1);
        }
    }
    __device__ static float2 scaled(float2 sum, float2 scale) {
        return Element::kScaled ? make_float2(sum.x * scale.x, sum.y * scale.y) : sum;
    }
};

// ---- Pieces ----

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

// Leave this warp's sums in shared memory, which has room for kSlots tiles of every warp, for sum_up; ends with a
// barrier.
template <int kSlots, int kRowTiles, int kTiles, class C>
__device__ __forceinline__ void share_sums(const C& c, float4* partial, const Sums<kRowTiles, kTiles>& sums) {
    float4* to = partial + c.warp * kSlots * 32 + c.lane_number();
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

// The sum over warps, always in the same order, of two neighbouring columns of a tile: those that a lane holds of row
// `group` (half 0) or `group + 8`.
template <int kSlots, class C>
__device__ __forceinline__ float2 sum_up(const C& c, const float4* partial, int slot, int half) {
    const float2* sums = reinterpret_cast<const float2*>(partial + slot * 32 + c.lane_number()) + half;
    float2 total = sums[0];
#pragma unroll
    for (int warp = 1; warp < kWarps; ++warp) {
        const float2 more = sums[warp * kSlots * 64];
        total = make_float2(total.x + more.x, total.y + more.y);
    }
    return total;
}

}  // namespace trm::cuda

#endif
