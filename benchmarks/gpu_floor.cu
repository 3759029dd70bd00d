// What no fused kernel on this GPU can go below: the latency of a grid barrier, and reading the same bytes by every
// CTA.
//
//     nvcc -std=c++17 -O3 -arch=native -Icsrc benchmarks/gpu_floor.cu -o gpu_floor && ./gpu_floor
//
// Prints one JSON object: barrier_us by number of CTAs, and read_gb_s, what all CTAs together read from L2.
#include <cstdio>
#include <cstdlib>

#include "cuda/barrier.cuh"

namespace {

constexpr int kThreads = 256, kBarriers = 2000;

void check(cudaError_t error) {
    if (error == cudaSuccess) return;
    std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
    std::exit(1);
}

__global__ void __launch_bounds__(kThreads, 1) meet(unsigned* arrivals, int count) {
    trm::cuda::GridBarrier barrier(arrivals, static_cast<int>(gridDim.x));
    for (int i = 0; i < count; ++i) barrier.wait();
    barrier.leave();
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
    unsigned* arrivals;
    uint4* data;
    constexpr int kBytes = 128 * 1024;
    check(cudaMalloc(&arrivals, 2 * sizeof(unsigned)));
    check(cudaMemset(arrivals, 0, 2 * sizeof(unsigned)));
    check(cudaMalloc(&data, kBytes));
    check(cudaMemset(data, 1, kBytes));
    std::printf("{\"barrier_us\": {");
    for (int ctas : {1, 16, 64, 96, 128, multiprocessors}) {
        if (ctas > multiprocessors) continue;
        int count = kBarriers;
        void* arguments[] = {&arrivals, &count};
        const float ms = milliseconds([&] {
            check(cudaLaunchCooperativeKernel(reinterpret_cast<const void*>(meet), ctas, kThreads, arguments, 0,
                                              nullptr));
        });
        std::printf("%s\"%d\": %.3f", ctas == 1 ? "" : ", ", ctas, ms * 1000 / kBarriers);
    }
    const int repeats = 100;
    const float ms = milliseconds([&] { read<<<multiprocessors, kThreads>>>(data, kBytes / 16, repeats, data); });
    check(cudaGetLastError());
    std::printf("}, \"read_gb_s\": %.0f}\n", 1e-6 * kBytes * repeats * multiprocessors / ms);
    return 0;
}
