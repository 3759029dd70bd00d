// A failing call of the CUDA runtime becomes an Error that names it.
#ifndef TRM_EDGE_CUDA_CHECK_H
#define TRM_EDGE_CUDA_CHECK_H

#include <cuda_runtime_api.h>

#include <string>

#include "core/status.h"

namespace trm::cuda {

inline Status status_of(cudaError_t error) {
    switch (error) {
        case cudaErrorMemoryAllocation:
            return Status::kOutOfMemory;
        case cudaErrorNoKernelImageForDevice:
        case cudaErrorInvalidDeviceFunction:
        case cudaErrorInvalidPtx:
        case cudaErrorJitCompilerNotFound:
        case cudaErrorUnsupportedPtxVersion:
        case cudaErrorStreamCaptureImplicit:
            return Status::kUnsupported;
        default:
            return Status::kDeviceError;
    }
}

// What CUDA says of an error, and what to do about it where that is known.
inline std::string told(cudaError_t error) {
    const std::string said = cudaGetErrorString(error);
    switch (error) {
        case cudaErrorNoKernelImageForDevice:
        case cudaErrorInvalidDeviceFunction:
            return said +
                   "; this build has no code for this GPU: build it with TRM_EDGE_CUDA_TARGETS set to the GPU's "
                   "compute capability";
        case cudaErrorInvalidPtx:
        case cudaErrorJitCompilerNotFound:
        case cudaErrorUnsupportedPtxVersion:
            return said +
                   "; this build has no code of this GPU's own, and the driver cannot compile what it has: update the "
                   "driver, or build with TRM_EDGE_CUDA_TARGETS set to the GPU's compute capability";
        case cudaErrorStreamCaptureImplicit:
            return said +
                   "; a stream that waits for the default one is being captured into a graph, and until that is over "
                   "the default stream is none to use";
        case cudaErrorInitializationError:
            return said + "; where this process was forked from one that has used CUDA, start it by spawn instead";
        case cudaErrorInvalidResourceHandle:
            return said +
                   "; the stream, and the context of the calling thread, have to be those of the first GPU's "
                   "primary context (pycuda: import pycuda.autoprimaryctx, not autoinit)";
        default:
            return said;
    }
}

inline void check(cudaError_t error, const char* what) {
    if (error == cudaSuccess) return;
    cudaGetLastError();  // it is told here, and not to the next call
    throw Error(status_of(error), std::string("cuda: ") + what + ": " + cudaGetErrorName(error) + ", " + told(error));
}

// For destructors, which have nobody to tell: nor is it told to whoever asks the runtime for its last error next.
inline void ignore(cudaError_t error) noexcept {
    if (error != cudaSuccess) cudaGetLastError();
}

}  // namespace trm::cuda

#define TRM_CUDA(call) ::trm::cuda::check(call, #call)

#endif
