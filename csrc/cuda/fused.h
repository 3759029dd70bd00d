// The fused ways to run the recursion: one persistent kernel a run, or a graph with a kernel a phase.
#ifndef TRM_EDGE_CUDA_FUSED_H
#define TRM_EDGE_CUDA_FUSED_H

#include <string>

#include "cuda/plan.h"
#include "cuda/runner.h"

namespace trm::cuda {

// Empty where the kernels can run this model on this device, else why they cannot.
std::string why_not_fused(const Spec& spec, const NetShape& shape, const DeviceProperties& device);

std::shared_ptr<const Weights> fused_weights(const Spec& spec, const NetShape& shape, const Tensors& weights,
                                             const DeviceProperties& device);

// Whether all CTAs of the persistent kernel are on the device at once, as a cooperative launch wants them.
bool fits_at_once(const Weights& fused);

// `persistent`: all steps in one cooperative launch; else the graph of phases.
std::unique_ptr<Runner> fused_runner(std::shared_ptr<const Weights> weights, bool persistent,
                                     const HaltHead& halt_head);

}  // namespace trm::cuda

#endif
