#include "cuda/kernels.cuh"

namespace trm::cuda {

const Kernels* w8a16_kernels(int hidden, int head) { return instance<W8a16>(hidden, head); }

}  // namespace trm::cuda
