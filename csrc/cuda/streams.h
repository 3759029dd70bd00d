// Streams that the caller may be capturing into a graph.
#ifndef TRM_EDGE_CUDA_STREAMS_H
#define TRM_EDGE_CUDA_STREAMS_H

#include <cuda_runtime_api.h>

#include "cuda/check.h"

namespace trm::cuda {

inline bool is_captured(cudaStream_t stream) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    TRM_CUDA(cudaStreamIsCapturing(stream, &status));
    return status != cudaStreamCaptureStatusNone;
}

// Let what is put on `after` from now on wait for what is on `before` now.
inline void order(cudaEvent_t between, cudaStream_t before, cudaStream_t after) {
    if (is_captured(before) != is_captured(after))  // which would end the capture, or leave `after` in it
        throw Error(Status::kUnsupported,
                    "stream: one of two streams, of which one waits for the other, is being captured into a graph; let "
                    "the other one join the capture, or have what is on it done before");
    TRM_CUDA(cudaEventRecord(between, before));
    TRM_CUDA(cudaStreamWaitEvent(after, between, 0));
}

}  // namespace trm::cuda

#endif
