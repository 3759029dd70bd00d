// The four phases of a block of the network (plan.h), and what happens before the first and after the last: device code
// of one CTA. The persistent kernel runs them one after another, and values are handed over as they come; the graph of
// phases runs each as a kernel. Products are mma.sync on bfloat16 or float16 with float32 sums (sm_80 and up).
#ifndef TRM_EDGE_CUDA_PHASES_CUH
#define TRM_EDGE_CUDA_PHASES_CUH

#include <cstdint>

#include "cuda/narrow.cuh"
#include "cuda/wide.cuh"

namespace trm::cuda {

// Let the places of a sublayer be handed over anew, as far as they are written: thread `thread` of `threads`.
template <class C>
__device__ __forceinline__ void clear_places(const C& c, int number, int thread, int threads) {
    const Plan& plan = c.plan;
    const Places at = places_of(c.p, number);
    const int rows = round_up(c.p.rows, kRowTile), halves = rows * plan.hidden / 8;
    for (int i = thread; i < 2 * halves; i += threads) clear(at.from + 4 * i);
    if (number % 2) {
        for (int i = thread; i < rows * plan.inner / 8; i += threads) clear(at.wide + 8 * i);
        return;
    }
    for (int i = thread; i < halves; i += threads)
        for (int part = 0; part < 3; ++part) clear(at.wide + part * plan.rows_size() + 8 * i);
}

// Fetch what the host has written, make the sums that the first evaluations add, and clear all places.
template <class C>
__device__ __forceinline__ void start_phase(const C& c) {
    const int count = c.p.rows * c.plan.hidden / 4, first = c.number * kThreads + c.thread;
    const int stride = c.plan.ctas * kThreads;
    const auto at = [](const float* rows, int i) { return reinterpret_cast<const float4*>(rows)[i]; };
    const auto put = [](float* rows, int i, float4 value) { reinterpret_cast<float4*>(rows)[i] = value; };
    for (int i = first; i < count; i += stride) {
        const float4 e = at(c.p.refresh ? c.p.host_e : c.p.e, i);
        const float4 y = at(c.p.begin ? c.p.host_y : c.p.y, i), z = at(c.p.begin ? c.p.host_z : c.p.z, i);
        if (c.p.refresh) put(c.p.e, i, e);
        if (c.p.begin) {
            put(c.p.y, i, y);
            put(c.p.z, i, z);
        }
        put(c.p.ye, i, plus(y, e));
        put(c.p.ze, i, plus(z, e));
    }
    if constexpr (C::kPersistent)
        for (int number = 0; number < 2 * kCopies; ++number) clear_places(c, number, first, stride);
}

// Leave y, normalised, for the host and for the next run.
template <class C>
__device__ __forceinline__ void finish_phase(const C& c) {
    const Source from{rows_before(c.p, sublayers(c.p)), false, nullptr};
#pragma unroll 1
    for (int first = 0; first < c.p.rows; first += kRowTile) stage_rows<1>(c, from, first, c.inverse(kAttention));
    float* out = c.p.host_out + static_cast<size_t>(c.p.steps - 1) * c.p.rows * c.plan.hidden;
    keep_rows(c, from, Keep{c.p.y, c.p.ye, out}, c.thread, kThreads);
}

}  // namespace trm::cuda

#endif
