#include "cuda/kernels.cuh"

namespace trm::cuda {

const Kernels* bf16_kernels(int hidden, int head) { return instance<Bf16>(hidden, head); }

}  // namespace trm::cuda
