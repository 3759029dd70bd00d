// What no fused kernel on this GPU can go below: the latency of a grid barrier, or of a value that every CTA hands to
// every other one, and reading the same bytes by every CTA.
//
//     nvcc -std=c++17 -O3 -arch=native -Icsrc benchmarks/gpu_floor.cu -o gpu_floor && ./gpu_floor
//
// Prints one JSON object: barrier_us and handoff_us by number of CTAs, and read_gb_s, what all CTAs together read from
// L2.
#include <cstdio>
#include <cstdlib>

#include "cuda/barrier.cuh"
#include "cuda/handoff.cuh"

namespace {

constexpr int kThreads = 256, kBarriers = 2000;

void check(cudaError_t error) {
    if (error == cudaSuccess) return;
    std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
    std::exit(1);
}

__global__ void __launch_bounds__(kThreads, 1) meet(unsigned* counters, unsigned*, int, int count) {
    const trm::cuda::GridBarriers barriers(counters, static_cast<int>(gridDim.x));
    for (int i = 0; i < count; ++i) {
        __syncthreads();
        if (threadIdx.x == 0) {
            barriers.arrive(i);
            barriers.wait(i);
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) barriers.leave();
}

// Every CTA writes a word, first + 1 and so on, and waits until those of all others are as large. Words are 128 bytes
// apart.
__global__ void __launch_bounds__(kThreads, 1) hand_over(unsigned*, unsigned* words, int first, int count) {
    for (int i = 1; i <= count; ++i) {
        if (threadIdx.x == 0) trm::cuda::hand_over(words + 32 * blockIdx.x, static_cast<unsigned>(first + i));
        if (threadIdx.x < gridDim.x)
            while (static_cast<int>(trm::cuda::read_now_4(words + 32 * threadIdx.x)) < first + i) continue;
        __syncthreads();
    }
}

__global__ void __launch_bounds__(kThreads, 1) read(const uint4* from, int count, int repeats, uint4* sink) {
    uint4 sum = make_uint4(0, 0, 0, 0);
    for (int r = 0; r < repeats; ++r) {
#pragma unroll 8
        for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
            const uint4 v = __ldcg(from + i);
            sum = make_uint4(sum.x ^ v.x, sum.y ^ v.y, sum.z ^ v.z, sum.w ^ v.w);
        }
    }
    if (sum.x == 0x12345678u) *sink = sum;
}

template <typename Launch>
float milliseconds(Launch&& launch) {
    cudaEvent_t start, end;
    check(cudaEventCreate(&start));
    check(cudaEventCreate(&end));
    float best = 1e30f;
    for (int i = 0; i < 10; ++i) {
        check(cudaEventRecord(start));
        launch();
        check(cudaEventRecord(end));
        check(cudaEventSynchronize(end));
        float ms;
        check(cudaEventElapsedTime(&ms, start, end));
        if (ms < best) best = ms;
    }
    return best;
}

}  // namespace

int main() {
    int multiprocessors;
    check(cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0));
    unsigned *counters, *words;
    uint4* data;
    constexpr int kBytes = 128 * 1024;
    constexpr size_t kCounters = trm::cuda::GridBarriers::kCounters;
    check(cudaMalloc(&counters, kCounters * sizeof(unsigned)));
    check(cudaMemset(counters, 0, kCounters * sizeof(unsigned)));
    check(cudaMalloc(&words, kThreads * 128));
    check(cudaMemset(words, 0, kThreads * 128));
    check(cudaMalloc(&data, kBytes));
    check(cudaMemset(data, 1, kBytes));
    int first = 0;
    const auto by_ctas = [&](const char* name, void (*kernel)(unsigned*, unsigned*, int, int)) {
        std::printf("\"%s\": {", name);
        for (int ctas : {1, 16, 64, 96, 128, multiprocessors}) {
            if (ctas > multiprocessors || ctas > kThreads) continue;
            int count = kBarriers;
            void* arguments[] = {&counters, &words, &first, &count};
            const float ms = milliseconds([&] {
                check(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(kernel), ctas, kThreads, arguments, 0,
                                                  nullptr));
                first += kBarriers;
            });
            std::printf("%s\"%d\": %.3f", ctas == 1 ? "" : ", ", ctas, ms * 1000 / kBarriers);
        }
        std::printf("}, ");
    };
    std::printf("{");
    by_ctas("barrier_us", meet);
    by_ctas("handoff_us", hand_over);
    const int repeats = 100;
    const float ms = milliseconds([&] { read<<<multiprocessors, kThreads>>>(data, kBytes / 16, repeats, data); });
    check(cudaGetLastError());
    std::printf("\"read_gb_s\": %.0f}\n", 1e-6 * kBytes * repeats * multiprocessors / ms);
    return 0;
}
