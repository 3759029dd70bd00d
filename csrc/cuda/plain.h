// The plain way to run the recursion: small, readable kernels in a graph, for every model, precision and device.
//
// It is what the fused ways are checked against, and what runs where they cannot.
#ifndef TRM_EDGE_CUDA_PLAIN_H
#define TRM_EDGE_CUDA_PLAIN_H

#include "core/quantization.h"
#include "cuda/runner.h"

namespace trm::cuda {

std::shared_ptr<const Weights> plain_weights(const Spec& spec, const NetShape& shape, const Quantization& quantization,
                                             const Tensors& weights);

std::unique_ptr<Runner> plain_runner(std::shared_ptr<const Weights> weights);

}  // namespace trm::cuda

#endif
