// The four phases of a block of the network (plan.h), and what happens before the first and after the last: device code
// of one CTA. The persistent kernel runs them one after another with grid barriers between them, the graph of phases as
// a kernel each. Products are mma.sync on bfloat16 with float32 sums (sm_80 and up).
#ifndef TRM_EDGE_CUDA_PHASES_CUH
#define TRM_EDGE_CUDA_PHASES_CUH

#include <cstdint>

#include "cuda/narrow.cuh"
#include "cuda/wide.cuh"

namespace trm::cuda {

// Fetch what the host has written, make the sums that the first evaluations add, and clear the values of keys that are
// none: attention gives them a weight of 0, which a NaN of an earlier call would survive.
template <class C>
__device__ __forceinline__ void start_phase(const C& c) {
    const int count = c.p.rows * c.plan.hidden / 4, stride = c.plan.ctas * kThreads;
    const auto at = [](const float* rows, int i) { return reinterpret_cast<const float4*>(rows)[i]; };
    const auto put = [](float* rows, int i, float4 value) { reinterpret_cast<float4*>(rows)[i] = value; };
    for (int i = c.number * kThreads + c.thread; i < count; i += stride) {
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
    const int last = round_up(c.p.rows, kKeyTile);
    for (int column = c.number * kThreads + c.thread; column < c.plan.hidden; column += stride)
        for (int row = c.p.rows; row < last; ++row) c.p.v[c.plan.value_at(row, column)] = __float2bfloat16_rn(0.0f);
}

// Leave y, normalised, for the host and for the next run.
template <class C>
__device__ __forceinline__ void finish_phase(const C& c) {
    const Source from{c.p.state, false, nullptr};
#pragma unroll 1
    for (int first = 0; first < c.p.rows; first += kRowTile) StagedRows<1, C>(c, from, first).stage(c, from, first);
    __syncthreads();
    float* out = c.p.host_out + static_cast<size_t>(c.p.steps - 1) * c.p.rows * c.plan.hidden;
    keep_rows(c, from, Keep{c.p.y, c.p.ye, out});
}

// What the l-th evaluation of cycle h of a step starts from, and what it keeps of the one before. `z` gets the first
// l_cycles evaluations of a cycle, `y` the last.
struct Evaluation {
    Source from;
    Keep keep;
};

TRM_HD Evaluation evaluation(const Params& p, int step, int h, int l) {
    const bool of_y = l == p.l_cycles, after_y = l == 0, first = step == 0 && h == 0 && l == 0;
    float* out = after_y && h == 0 ? p.host_out + static_cast<int64_t>(step - 1) * p.rows * p.plan.hidden : nullptr;
    return {{first ? p.y : p.state, first,
             of_y      ? p.y
             : after_y ? p.ze
                       : p.ye},
            {first     ? nullptr
             : after_y ? p.y
                       : p.z,
             after_y ? p.ye : p.ze, out}};
}

// What sublayer s = 1, 2, ... of an evaluation starts from.
TRM_HD Source source_of(const Params& p, int s) { return {s % 2 ? p.middle : p.state, false, nullptr}; }

}  // namespace trm::cuda

#endif
