// The emulated GPU itself: that it computes what a GPU does, and that what a GPU forbids fails.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <cuda_pipeline.h>
#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <set>
#include <vector>

#include "cuda/graph.h"
#include "cuda/ptx.cuh"
#include "cuda/streams.h"

namespace {

using emulated::Failure;
using emulated::Launch;
using emulated::run_grid;

Launch warps(unsigned count, unsigned blocks = 1, bool together = false, size_t shared_bytes = 0) {
    return {dim3(blocks), dim3(32 * count), shared_bytes, together};
}

constexpr unsigned kAll = ~0u;

}  // namespace

TEST_CASE("a thread knows its place") {
    std::set<unsigned> places;
    run_grid({dim3(3, 2), dim3(32, 2), 0, false}, [&] {
        places.insert(((blockIdx.y * gridDim.x + blockIdx.x) * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x);
    });
    CHECK(places.size() == 3 * 2 * 32 * 2);
    CHECK(*places.rbegin() == 3 * 2 * 32 * 2 - 1);
}

TEST_CASE("threads run in orders that differ") {
    std::set<std::vector<unsigned>> orders;
    for (int i = 0; i < 10; ++i) {
        std::vector<unsigned> order;
        run_grid(warps(8), [&] {
            if (threadIdx.x % 32 == 0) order.push_back(threadIdx.x / 32);
        });
        orders.insert(order);
    }
    CHECK(orders.size() > 5);
}

TEST_CASE("bfloat16 and float16 round to the nearest, ties to even") {
    const auto bf16 = [](float x) { return __bfloat162float(__float2bfloat16_rn(x)); };
    const auto fp16 = [](float x) { return __half2float(__float2half_rn(x)); };
    CHECK(bf16(1.0f + 0x1p-8f) == 1.0f);
    CHECK(bf16(1.0f + 0x1.8p-7f) == 1.0f + 0x1p-6f);
    CHECK(bf16(-3.0e38f) < -2.9e38f);
    CHECK(std::isnan(bf16(NAN)));
    CHECK(bf16(INFINITY) == INFINITY);
    CHECK(fp16(1.0f + 0x1p-11f) == 1.0f);
    CHECK(fp16(1.0f + 0x1.8p-10f) == 1.0f + 0x1p-9f);
    CHECK(fp16(1.0f - 0x1p-12f) == 1.0f);
    CHECK(fp16(1.0f - 0x1.8p-12f) == 1.0f - 0x1p-11f);
    CHECK(fp16(65519.0f) == 65504.0f);
    CHECK(fp16(-65520.0f) == -INFINITY);
    CHECK(fp16(0x1p-24f) == 0x1p-24f);
    CHECK(fp16(0x1p-25f) == 0.0f);
    CHECK(fp16(0x1.8p-24f) == 0x1p-23f);
    CHECK(std::isnan(fp16(NAN)));
    for (unsigned bits = 0; bits < 1u << 16; ++bits) {
        const __half value{static_cast<uint16_t>(bits)};
        if (!std::isnan(__half2float(value))) REQUIRE(__float2half_rn(__half2float(value)).bits == value.bits);
    }
}

TEST_CASE("a product of fragments is that of PTX's manual") {  // "Matrix Fragments for mma.m16n8k16", floating point
    double a[16][16], b[16][8], c[16][8];
    for (int i = 0; i < 16; ++i) {
        for (int k = 0; k < 16; ++k) a[i][k] = (3 * i + 5 * k) % 11 - 5;
        for (int j = 0; j < 8; ++j) b[i][j] = (7 * i + 2 * j) % 13 - 6;
        for (int j = 0; j < 8; ++j) c[i][j] = i - j;
    }
    const auto word = [](double low, double high) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(static_cast<float>(low), static_cast<float>(high));
        uint32_t bits;
        std::memcpy(&bits, &pair, sizeof bits);
        return bits;
    };
    int wrong = 0;
    run_grid(warps(1), [&] {
        const int group = static_cast<int>(threadIdx.x) / 4, in_group = static_cast<int>(threadIdx.x) % 4;
        uint32_t of_a[4], of_b[2];
        for (int i = 0; i < 4; ++i) {  // a0,a1; a2,a3; a4,a5; a6,a7
            const int row = i % 2 == 0 ? group : group + 8, column = 2 * in_group + (i < 2 ? 0 : 8);
            of_a[i] = word(a[row][column], a[row][column + 1]);
        }
        for (int i = 0; i < 2; ++i) {
            const int row = 2 * in_group + 8 * i;
            of_b[i] = word(b[row][group], b[row + 1][group]);
        }
        float sums[4];
        const auto row_of = [&](int i) { return i < 2 ? group : group + 8; };
        const auto column_of = [&](int i) { return 2 * in_group + i % 2; };
        for (int i = 0; i < 4; ++i) sums[i] = static_cast<float>(c[row_of(i)][column_of(i)]);
        trm::cuda::mma_bf16(sums, of_a[0], of_a[1], of_a[2], of_a[3], of_b[0], of_b[1]);
        for (int i = 0; i < 4; ++i) {
            double expected = c[row_of(i)][column_of(i)];
            for (int k = 0; k < 16; ++k) expected += a[row_of(i)][k] * b[k][column_of(i)];
            wrong += static_cast<double>(sums[i]) != expected;
        }
    });
    CHECK(wrong == 0);
}

TEST_CASE("lanes exchange, and threads wait for each other") {
    int wrong = 0;
    std::vector<unsigned> seen(256, 0);
    run_grid(warps(8), [&] {
        for (int mask = 1; mask < 32; mask *= 2)
            wrong += __shfl_xor_sync(kAll, threadIdx.x, mask) != (threadIdx.x ^ static_cast<unsigned>(mask));
        wrong += __any_sync(kAll, threadIdx.x == 40) != (threadIdx.x / 32 == 1);
        for (unsigned round = 1; round < 4; ++round) {
            seen[threadIdx.x] = round;
            __syncthreads();
            for (const unsigned other : seen) wrong += other != round;
            wrong += __syncthreads_or(threadIdx.x == round) != 1;
        }
        wrong += __syncthreads_or(0) != 0;
    });
    CHECK(wrong == 0);
}

TEST_CASE("a meeting that some never come to fails") {
    CHECK_THROWS_WITH_AS(run_grid(warps(2),
                                  [] {
                                      if (threadIdx.x < 32) __syncthreads();
                                  }),
                         doctest::Contains("of 64 threads 32 are at __syncthreads"), Failure);
    CHECK_THROWS_WITH_AS(run_grid(warps(1),
                                  [] {
                                      if (threadIdx.x != 7) __any_sync(kAll, true);
                                  }),
                         doctest::Contains("never come to __any_sync"), Failure);
    CHECK_THROWS_WITH_AS(run_grid(warps(1),
                                  [] {
                                      if (threadIdx.x != 7) __any_sync(kAll, true);
                                      if (threadIdx.x == 7) __shfl_xor_sync(kAll, 1, 1);
                                  }),
                         doctest::Contains("meet in"), Failure);
    int ran = 0;
    run_grid(warps(1), [&] { ++ran; });  // and the next grid runs
    CHECK(ran == 32);
}

TEST_CASE("blocks meet in a cooperative launch alone") {
    unsigned counter = 0;
    const auto meet = [&] {
        if (threadIdx.x == 0) trm::cuda::count_up(&counter);
        while (trm::cuda::count_of(&counter) < 3) continue;
    };
    run_grid(warps(1, 3, true), meet);
    CHECK(counter == 3);
    counter = 0;
    CHECK_THROWS_WITH_AS(run_grid(warps(1, 3, false), meet), "threads wait for what nobody writes", Failure);
}

TEST_CASE("what a block has stored, others see late, but a place goes on") {
    int overtaken = 0, back = 0, of_own = 0;
    for (int i = 0; i < 50; ++i) {
        alignas(16) uint32_t first[4] = {}, second[4] = {};
        run_grid(warps(1, 2, true), [&] {
            if (threadIdx.x != 0) return;
            if (blockIdx.x == 0) {
                for (uint32_t n = 1; n <= 3; ++n) {
                    trm::cuda::write_now(first, n);
                    trm::cuda::write_now(second, n);
                    of_own += trm::cuda::read_now_4(second) == n;
                }
                return;
            }
            for (uint32_t before = 0; before < 3;) {
                emulated::pause();
                const uint32_t later = trm::cuda::read_now_4(second), sooner = trm::cuda::read_now_4(first);
                overtaken += sooner < later;
                back += later < before;
                before = later;
            }
        });
        CHECK(first[0] == 3);
    }
    CHECK(of_own == 150);
    CHECK(back == 0);
    CHECK(overtaken > 0);
}

TEST_CASE("a count releases what its thread has stored, and what others had before they met it") {
    int unmet = 0, wrong = 0;
    for (int i = 0; i < 50; ++i) {
        alignas(16) uint32_t met[64] = {}, after[64] = {}, own = 0;
        unsigned counter = 0;
        run_grid(warps(2, 2, true), [&] {
            if (blockIdx.x == 0) {
                trm::cuda::write_now(&met[threadIdx.x], 1u);
                __syncthreads();
                trm::cuda::write_now(&after[threadIdx.x], 1u);
                if (threadIdx.x != 0) return;
                trm::cuda::write_now(&own, 1u);
                trm::cuda::count_up(&counter);
            } else if (threadIdx.x == 0) {
                while (trm::cuda::count_of(&counter) == 0) continue;
                for (int j = 0; j < 64; ++j) {
                    wrong += trm::cuda::read_now_4(&met[j]) != 1;
                    unmet += trm::cuda::read_now_4(&after[j]) != 1;
                }
                wrong += trm::cuda::read_now_4(&own) != 1;
            }
        });
        for (const uint32_t value : after) CHECK(value == 1);
    }
    CHECK(wrong == 0);
    CHECK(unmet > 0);
}

TEST_CASE("shared memory belongs to a block, and begins as NaN") {
    int numbers = 0, wrong = 0;
    run_grid(warps(1, 4, true, 32 * sizeof(float)), [&] {
        float* own = trm::cuda::dynamic_shared<float>();
        numbers += !std::isnan(own[threadIdx.x]);
        __syncthreads();
        own[threadIdx.x] = static_cast<float>(blockIdx.x);
        __syncthreads();
        wrong += own[31 - threadIdx.x] != static_cast<float>(blockIdx.x);
    });
    CHECK(numbers == 0);
    CHECK(wrong == 0);
}

TEST_CASE("asynchronous copies are there once they are waited for") {
    const float from = 3;
    int early = 0, wrong = 0;
    run_grid(warps(1), [&] {
        float to = 1;
        __pipeline_memcpy_async(&to, &from, sizeof to);
        __pipeline_commit();
        early += to != 1;
        __pipeline_wait_prior(0);
        wrong += to != 3;
    });
    CHECK(early == 0);
    CHECK(wrong == 0);
    CHECK_THROWS_WITH_AS(run_grid(warps(1),
                                  [&] {
                                      float to;
                                      __pipeline_memcpy_async(&to, &from, sizeof to);
                                  }),
                         doctest::Contains("asynchronous copies"), Failure);
}

namespace {

struct Device {
    int* data = nullptr;
    cudaStream_t one = nullptr, two = nullptr;
    cudaEvent_t event = nullptr;

    Device() {
        cudaMalloc(reinterpret_cast<void**>(&data), sizeof(int));
        cudaStreamCreateWithFlags(&one, cudaStreamNonBlocking);
        cudaStreamCreateWithFlags(&two, cudaStreamNonBlocking);
        cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    }
    ~Device() {
        cudaEventDestroy(event);
        cudaStreamDestroy(two);
        cudaStreamDestroy(one);
        cudaFree(data);
        cudaGetLastError();
    }
};

void increment(int* at) {
    if (threadIdx.x == 0) ++*at;
}

cudaError_t launch_increment(int* at, cudaStream_t stream) {
    void* arguments[] = {&at};
    return cudaLaunchKernel(increment, dim3(1), dim3(32), arguments, 0, stream);
}

}  // namespace

TEST_CASE("work on a stream is done when it is waited for") {
    Device device;
    CHECK(*device.data == -1);  // what memory holds at first
    cudaMemset(device.data, 0, sizeof(int));
    CHECK(*device.data == -1);
    cudaStreamSynchronize(cudaStreamLegacy);
    CHECK(*device.data == 0);
    launch_increment(device.data, device.one);
    CHECK(*device.data == 0);
    CHECK(cudaStreamSynchronize(device.two) == cudaSuccess);
    CHECK(*device.data == 0);
    CHECK(cudaStreamSynchronize(device.one) == cudaSuccess);
    CHECK(*device.data == 1);
}

TEST_CASE("an event makes one stream wait for another") {
    Device device;
    cudaMemsetAsync(device.data, 0, sizeof(int), device.one);
    cudaEventRecord(device.event, device.one);
    launch_increment(device.data, device.one);  // behind the event
    cudaStreamWaitEvent(device.two, device.event, 0);
    cudaStreamSynchronize(device.two);
    CHECK(*device.data == 0);
    cudaStreamSynchronize(device.one);
    CHECK(*device.data == 1);
}

TEST_CASE("memory says whose it is, and the host's is read before a copy returns unless it is pinned") {
    Device device;
    int of_host = 5;
    int* pinned = nullptr;
    cudaHostAlloc(reinterpret_cast<void**>(&pinned), sizeof(int), cudaHostAllocPortable);
    *pinned = 5;
    const auto type_of = [](const void* data) {
        cudaPointerAttributes found{};
        cudaPointerGetAttributes(&found, data);
        return found.type;
    };
    CHECK(type_of(device.data) == cudaMemoryTypeDevice);
    CHECK(type_of(pinned) == cudaMemoryTypeHost);
    CHECK(type_of(&of_host) == cudaMemoryTypeUnregistered);
    cudaMemcpyAsync(device.data, &of_host, sizeof(int), cudaMemcpyDefault, device.one);
    of_host = 6;
    cudaStreamSynchronize(device.one);
    CHECK(*device.data == 5);
    cudaMemcpyAsync(device.data, pinned, sizeof(int), cudaMemcpyDefault, device.one);
    *pinned = 7;
    cudaStreamSynchronize(device.one);
    CHECK(*device.data == 7);
    cudaFreeHost(pinned);
}

TEST_CASE("a graph is what was captured, and a capture forbids to wait") {
    Device device;
    cudaMemset(device.data, 0, sizeof(int));
    cudaStreamSynchronize(cudaStreamLegacy);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    REQUIRE(cudaStreamBeginCapture(device.one, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    launch_increment(device.data, device.one);
    cudaEventRecord(device.event, device.two);
    CHECK(cudaStreamWaitEvent(device.one, device.event, 0) == cudaErrorStreamCaptureIsolation);
    CHECK(cudaEventSynchronize(device.event) == cudaErrorStreamCaptureUnsupported);
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    cudaThreadExchangeStreamCaptureMode(&mode);
    CHECK(cudaEventSynchronize(device.event) == cudaSuccess);
    cudaThreadExchangeStreamCaptureMode(&mode);
    REQUIRE(cudaStreamEndCapture(device.one, &graph) == cudaSuccess);
    CHECK(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
    cudaGraphDestroy(graph);
    for (int i = 0; i < 3; ++i) cudaGraphLaunch(executable, device.two);
    cudaStreamSynchronize(device.two);
    CHECK(*device.data == 3);
    cudaGraphExecDestroy(executable);

    cudaStreamBeginCapture(device.one, cudaStreamCaptureModeRelaxed);
    CHECK(cudaStreamSynchronize(device.one) == cudaErrorStreamCaptureUnsupported);
    CHECK(cudaStreamEndCapture(device.one, &graph) == cudaErrorStreamCaptureInvalidated);
}

TEST_CASE("graphs are kept until they are too many, or have too many nodes") {
    Device device;
    const auto captures = [&](int graphs, int nodes) {  // of so many graphs, each launched twice
        trm::cuda::GraphCache cache;
        int captured = 0;
        for (int i = 0; i < 2 * graphs; ++i)
            cache.launch({i % graphs}, device.one, [&](cudaStream_t on) {
                ++captured;
                for (int k = 0; k < nodes; ++k) cudaMemsetAsync(device.data, 0, sizeof(int), on);
            });
        cudaStreamSynchronize(device.one);
        return captured;
    };
    CHECK(captures(64, 1) == 64);
    CHECK(captures(65, 1) > 65);
    CHECK(captures(4, 1 << 12) == 4);
    CHECK(captures(5, 1 << 12) > 5);
    CHECK(captures(1, 1 << 15) == 1);
}

TEST_CASE("a stream in a capture and one that is not are not ordered, and the capture goes on") {
    Device device;
    cudaGraph_t graph = nullptr;
    REQUIRE(cudaStreamBeginCapture(device.one, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    launch_increment(device.data, device.one);
    for (const bool captured_first : {true, false}) {
        const cudaStream_t before = captured_first ? device.one : device.two;
        const cudaStream_t after = captured_first ? device.two : device.one;
        CHECK_THROWS_WITH_AS(trm::cuda::order(device.event, before, after),
                             doctest::Contains("is being captured into a graph"), trm::Error);
    }
    CHECK(cudaStreamEndCapture(device.one, &graph) == cudaSuccess);
    cudaGraphDestroy(graph);
    CHECK(cudaGetLastError() == cudaSuccess);

    cudaMemsetAsync(device.data, 0, sizeof(int), device.one);
    trm::cuda::order(device.event, device.one, device.two);
    launch_increment(device.data, device.two);
    cudaStreamSynchronize(device.two);
    CHECK(*device.data == 1);
}

TEST_CASE("an error of what the build lacks for a GPU says what to build") {
    for (const cudaError_t error :
         {cudaErrorNoKernelImageForDevice, cudaErrorInvalidDeviceFunction, cudaErrorInvalidPtx,
          cudaErrorJitCompilerNotFound, cudaErrorUnsupportedPtxVersion}) {
        CHECK(trm::cuda::status_of(error) == trm::Status::kUnsupported);
        CHECK_THROWS_WITH_AS(trm::cuda::check(error, "call"), doctest::Contains("TRM_EDGE_CUDA_TARGETS"), trm::Error);
    }
    CHECK(trm::cuda::status_of(cudaErrorLaunchFailure) == trm::Status::kDeviceError);
}

TEST_CASE("a launch that asks for too much is refused") {
    Device device;
    void* arguments[] = {&device.data};
    CHECK(cudaLaunchKernel(increment, dim3(1), dim3(32), arguments, 49 * 1024, device.one) == cudaErrorInvalidValue);
    CHECK(cudaLaunchCooperativeKernel(increment, dim3(1000), dim3(32), arguments, 0, device.one) ==
          cudaErrorCooperativeLaunchTooLarge);
    CHECK(cudaGetLastError() == cudaErrorCooperativeLaunchTooLarge);
    CHECK(cudaGetLastError() == cudaSuccess);
}
