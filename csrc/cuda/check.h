// A failing call of the CUDA runtime becomes an Error that names it.
#ifndef TRM_EDGE_CUDA_CHECK_H
#define TRM_EDGE_CUDA_CHECK_H

#include <cuda_runtime_api.h>

#include <string>

#include "core/status.h"

namespace trm::cuda {

inline void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // it is told here, and not to the next call
    const Status status = error == cudaErrorMemoryAllocation ? Status::kOutOfMemory : Status::kDeviceError;
    throw Error(status,
                std::string("cuda: ") + what + ": " + cudaGetErrorName(error) + ", " + cudaGetErrorString(error));
}

}  // namespace trm::cuda

#define TRM_CUDA(call) ::trm::cuda::check(call, #call)

#endif
