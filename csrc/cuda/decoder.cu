#include <cmath>

#include "cuda/decoder.h"
#include "cuda/launch.h"

namespace trm::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;

// A warp per product, and after them one per halt logit, which is summed up in float64 as on the processor.
__global__ void __launch_bounds__(kThreads) multiply_kernel(const __grid_constant__ Products p) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int number = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;  // see kMostValues
    const int ran = p.ran ? *p.ran : p.steps, of_step = p.rows * p.n;
    if (number == 0 && lane == 0 && p.steps_run) *p.steps_run = ran;
    const int halts = p.halt_logits ? p.steps : 0;
    if (number >= p.steps * of_step + halts) return;
    if (number >= p.steps * of_step) {
        const int step = number - p.steps * of_step;
        if (step >= ran) return;
        const float* in = p.halt_in + static_cast<size_t>(step) * p.halt_stride;
        double sum = 0;
        for (int i = lane; i < p.k; i += 32) sum += static_cast<double>(in[i]) * static_cast<double>(p.halt_weight[i]);
        for (int by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(~0u, sum, by);
        if (lane == 0) p.halt_logits[step] = static_cast<float>(sum + static_cast<double>(*p.halt_bias));
        return;
    }
    const int step = number / of_step, row = number % of_step / p.n, column = number % p.n;
    if (step >= ran) return;
    const float* in =
        p.in + static_cast<size_t>(step) * p.in_stride + static_cast<size_t>(row) * static_cast<size_t>(p.k);
    const float* w = p.w + static_cast<size_t>(column) * static_cast<size_t>(p.k);
    float sum = 0;
    for (int i = lane; i < p.k; i += 32) sum += in[i] * w[i];
    for (int by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(~0u, sum, by);
    if (lane != 0) return;
    if (p.scale) sum *= p.scale[column];
    if (p.base) sum += p.base[row * p.base_stride + column];
    p.out[number] = sum;
}

__device__ float confidence(float halt_logit) { return 1.0f / (1.0f + expf(-halt_logit)); }

// One block. A non-finite value goes before limits, and limits before an early halt.
__global__ void __launch_bounds__(kThreads) conclude_kernel(const __grid_constant__ Conclusion c) {
    const int count = c.rows * c.dof, thread = static_cast<int>(threadIdx.x);
    const int ran = c.ran ? *c.ran : c.steps;
    bool bad_input = *c.nonfinite != 0;
    bool last_is_bad = false;
    for (int d = thread; c.last_action && d < c.dof; d += kThreads) {
        c.kept_action[d] = c.last_action[d];  // y, which is written before this is used, may be the same memory
        last_is_bad = last_is_bad || !isfinite(c.kept_action[d]);
    }
    last_is_bad = __syncthreads_or(last_is_bad) != 0;
    const auto draft = [&](int i) { return c.draft && isfinite(c.draft[i]) ? c.draft[i] : c.mean[i % c.dof]; };
    for (int i = thread; c.draft && i < count; i += kThreads) bad_input = bad_input || !isfinite(c.draft[i]);
    bad_input = __syncthreads_or(bad_input || last_is_bad) != 0;

    Status status = bad_input ? Status::kNonfinite : Status::kOk;
    int done = 0;
    for (int k = 0; k < ran && status == Status::kOk; ++k) {
        const float* answer = c.answers + static_cast<size_t>(k) * static_cast<size_t>(count);
        bool bad = !isfinite(c.halt_logits[k]);
        for (int i = thread; i < count; i += kThreads) bad = bad || !isfinite(answer[i]);
        if (__syncthreads_or(bad)) {
            status = Status::kNonfinite;
        } else {
            done = k + 1;
            const bool stops = c.halt >= 0 && confidence(c.halt_logits[k]) >= c.halt;
            if (done < c.steps && (stops || done == ran)) status = Status::kHalted;
        }
    }
    const bool of_draft = status == Status::kNonfinite || done == 0;
    const float* answer = c.answers + static_cast<size_t>(done > 0 ? done - 1 : 0) * static_cast<size_t>(count);
    for (int i = thread; i < count; i += kThreads) c.y[i] = of_draft ? draft(i) : answer[i];
    __syncthreads();
    bool outside = false;
    const float* last_action = c.last_action && !last_is_bad ? c.kept_action : nullptr;
    for (int d = thread; d < c.dof; d += kThreads)
        outside = project_dimension(c.y, c.rows, c.dof, d, c.limits, last_action) || outside;
    outside = __syncthreads_or(outside) != 0;
    if (thread != 0) return;
    if (outside && status != Status::kNonfinite) status = Status::kOutsideLimits;
    *c.outcome = {status, done, done > 0 ? confidence(c.halt_logits[done - 1]) : NAN};
    *c.nonfinite = 0;
}

}  // namespace

void multiply(const Products& products, cudaStream_t stream) {
    const int halts = products.halt_logits ? products.steps : 0;
    const int warps = products.steps * products.rows * products.n + halts;
    if (warps == 0) return;
    launch(multiply_kernel, {static_cast<unsigned>((warps + kWarps - 1) / kWarps), kThreads}, stream, products);
}

void conclude(const Conclusion& conclusion, cudaStream_t stream) {
    launch(conclude_kernel, {1, kThreads}, stream, conclusion);
}

}  // namespace trm::cuda
