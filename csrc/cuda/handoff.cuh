// How CTAs of the persistent kernel hand values over: a reader waits for the values themselves.
//
// A grid barrier between two phases costs a fence, a round trip to count arrivals and one to see them, and then the
// values are still to be read. Here whoever needs values reads them again and again until all of them have been
// written: before that, their words are kMissing, which no value is. So each word says of itself that it is there, and
// no order among words is needed. What all CTAs have read for the last time is cleared again, out of the way of what
// anyone waits for: see copy_of in plan.h.
#ifndef TRM_EDGE_CUDA_HANDOFF_CUH
#define TRM_EDGE_CUDA_HANDOFF_CUH

#include <cuda_runtime.h>

#include <cstdint>

#include "cuda/ptx.cuh"

namespace trm::cuda {

constexpr uint32_t kMissing = 0xffffffff;

// The word that hands `bits` over: itself, but for one of the many NaNs.
__device__ inline uint32_t present(uint32_t bits) { return min(bits, kMissing - 1); }

__device__ inline void hand_over(void* to, uint32_t bits) { write_now(to, present(bits)); }

__device__ inline void hand_over(void* to, float first, float second) {
    write_now(to, make_uint2(present(__float_as_uint(first)), present(__float_as_uint(second))));
}

// Whether a word is missing is whether the largest one is.
__device__ inline uint32_t largest(uint32_t so_far, uint4 v) { return max(max(so_far, max(v.x, v.y)), max(v.z, v.w)); }
__device__ inline uint32_t largest(uint32_t so_far, uint2 v) { return max(so_far, max(v.x, v.y)); }

// For all lanes of a warp.
__device__ inline bool any_missing(uint32_t largest_word) { return __any_sync(~0u, largest_word == kMissing); }

__device__ inline void clear(void* at) { write_now(at, make_uint4(kMissing, kMissing, kMissing, kMissing)); }

}  // namespace trm::cuda

#endif
