// A barrier of all CTAs of a cooperative launch.
#ifndef TRM_EDGE_CUDA_BARRIER_CUH
#define TRM_EDGE_CUDA_BARRIER_CUH

#include <cuda_runtime.h>

namespace trm::cuda {

// All CTAs arrive, then all go on. What was written before is seen after, through L2. `arrivals`: two counters, zero at
// first; one counts arrivals, the other those who have left for good.
class GridBarrier {
  public:
    __device__ GridBarrier(unsigned* arrivals, int ctas) : arrivals_(arrivals), ctas_(static_cast<unsigned>(ctas)) {}

    __device__ void wait() {
        __syncthreads();
        expected_ += ctas_;
        if (threadIdx.x == 0) {
            asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(arrivals_) : "memory");
            unsigned seen;
            do {
                asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(arrivals_) : "memory");
            } while (static_cast<int>(seen - expected_) < 0);
        }
        __syncthreads();
    }

    // The last one to leave makes the barrier ready for the next launch.
    __device__ void leave() {
        if (threadIdx.x != 0) return;
        if (atomicAdd(arrivals_ + 1, 1u) != ctas_ - 1) return;
        arrivals_[0] = 0;
        arrivals_[1] = 0;
    }

  private:
    unsigned* arrivals_;
    unsigned ctas_, expected_ = 0;
};

}  // namespace trm::cuda

#endif
