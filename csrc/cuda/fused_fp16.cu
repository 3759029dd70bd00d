#include "cuda/kernels.cuh"

namespace trm::cuda {

const Kernels* fp16_kernels(int hidden, int head) { return instance<Fp16>(hidden, head); }

}  // namespace trm::cuda
