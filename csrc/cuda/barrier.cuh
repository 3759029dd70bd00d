// Barriers of all CTAs of a cooperative launch.
#ifndef TRM_EDGE_CUDA_BARRIER_CUH
#define TRM_EDGE_CUDA_BARRIER_CUH

#include "cuda/ptx.cuh"

namespace trm::cuda {

// A row of barriers, number 0, 1, ...: what a CTA has written, or read for the last time, before it arrives at one, the
// others see after they have waited for it, through L2. A CTA may arrive at the next barrier while others have not
// arrived at this one, but not at the one after that: so two counters, for even and odd numbers, tell who is where.
class GridBarriers {
  public:
    static constexpr int kCounters = 3;  // the third counts those who have left for good; all are zero at first

    __device__ GridBarriers(unsigned* counters, int ctas) : counters_(counters), ctas_(static_cast<unsigned>(ctas)) {}

    // By one thread of a CTA.
    __device__ void arrive(int number) const { count_up(counters_ + number % 2); }

    // Until every CTA has arrived.
    __device__ void wait(int number) const {
        const unsigned expected = ctas_ * static_cast<unsigned>(number / 2 + 1);
        while (static_cast<int>(count_of(counters_ + number % 2) - expected) < 0) continue;
    }

    // By one thread of a CTA. The last one to leave makes the barriers ready for the next launch.
    __device__ void leave() const {
        __threadfence();  // no arrival of ours comes after the last one has cleared them
        if (atomicAdd(counters_ + 2, 1u) != ctas_ - 1) return;
        __threadfence();
        for (int i = 0; i < kCounters; ++i) counters_[i] = 0;
    }

  private:
    unsigned* counters_;
    unsigned ctas_;
};

}  // namespace trm::cuda

#endif
