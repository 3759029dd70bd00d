// Puts kernels on streams; a launch that fails becomes an Error.
#ifndef TRM_EDGE_CUDA_LAUNCH_H
#define TRM_EDGE_CUDA_LAUNCH_H

#include <cuda_runtime.h>

#include <tuple>

#include "cuda/check.h"

namespace trm::cuda {

// How many CTAs of how many threads, and the bytes of shared memory that each CTA gets beside its own.
struct Grid {
    dim3 ctas;
    int threads;
    size_t shared_bytes = 0;
};

// `together`: all CTAs are on the device at once, and may wait for each other.
template <bool kTogether = false, typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), const Grid& grid, cudaStream_t stream, const Arguments&... arguments) {
    std::tuple<Parameters...> values(arguments...);
    const dim3 threads(static_cast<unsigned>(grid.threads));
    std::apply(
        [&](auto&... value) {
            void* at[] = {&value...};
            if constexpr (kTogether) {
                TRM_CUDA(cudaLaunchCooperativeKernel(kernel, grid.ctas, threads, at, grid.shared_bytes, stream));
            } else {
                TRM_CUDA(cudaLaunchKernel(kernel, grid.ctas, threads, at, grid.shared_bytes, stream));
            }
        },
        values);
}

}  // namespace trm::cuda

#endif
