// The CUDA device as core/ knows devices.
#ifndef TRM_EDGE_CUDA_DEVICE_H
#define TRM_EDGE_CUDA_DEVICE_H

#include <string>

#include "core/device.h"

namespace trm::cuda {

// Empty where there is a GPU to run on; else why there is none.
std::string why_no_gpu();

// Puts a model's blocks on the first GPU, where why_no_gpu() has nothing to say. The environment variable
// TRM_EDGE_CUDA_WAY picks the way to run it: "fused" (one persistent kernel a call), "phases" (a graph with a kernel a
// phase) or "plain"; without it, the first that can.
std::shared_ptr<const DeviceModel> make_device(const Spec& spec, const NetShape& shape,
                                               const Quantization& quantization, const Tensors& weights);

}  // namespace trm::cuda

#endif
