// One session on the GPU: encoders, the recursion in one of its ways, decoders.
#ifndef TRM_EDGE_CUDA_SESSION_H
#define TRM_EDGE_CUDA_SESSION_H

#include <memory>

#include "cuda/runner.h"
#include "cuda/tensors.h"

namespace trm::cuda {

enum class Way { kFused, kPhases, kPlain };

// What a model's sessions share.
struct Shared {
    Spec spec;
    Way way;
    DeviceTensors tensors;
    std::shared_ptr<const Weights> weights;
};

// Throws Error with UNSUPPORTED where what the steps of one run decode to is too large to be kept.
void check_values(const Spec& spec);

std::unique_ptr<DeviceSession> make_session(std::shared_ptr<const Shared> shared);

}  // namespace trm::cuda

#endif
