// The runtime of the emulated GPU: memory, streams, events and graphs.
//
// One lock is held in every call, also while kernels run. Rules of captures are those of "Stream capture" in NVIDIA's
// programming guide, as far as csrc/cuda may break them.
#include <cstdint>
#include <cstdio>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "cuda_runtime_api.h"

namespace {

using emulated::setting;
using Work = std::function<void()>;
using Lock = std::lock_guard<std::recursive_mutex>;

constexpr int kDefaultShared = 48 * 1024, kMostShared = 227 * 1024;

std::recursive_mutex everything;
thread_local cudaError_t last_error = cudaSuccess;
thread_local cudaStreamCaptureMode own_mode = cudaStreamCaptureModeGlobal;
thread_local int own_captures = 0;  // that this thread has begun in a mode other than relaxed

cudaError_t said(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

}  // namespace

struct CUgraph_st {
    std::vector<Work> work;
};
struct CUgraphExec_st {
    std::vector<Work> work;
};

struct CUstream_st {
    std::deque<Work> queue;
    size_t put = 0, done = 0;  // pieces of work, ever
    CUgraph_st* captured = nullptr;
    bool invalidated = false;

    void add(Work work) {
        if (captured) {
            captured->work.push_back(std::move(work));
        } else {
            queue.push_back(std::move(work));
            ++put;
        }
    }
    void run_until(size_t end) {
        while (done < end) {
            const Work work = std::move(queue.front());
            queue.pop_front();
            work();
            ++done;
        }
    }
    void run() { run_until(put); }
};

struct CUevent_st {
    CUstream_st* stream = nullptr;  // null: not recorded
    size_t position = 0;
};

namespace {

struct Allocation {
    size_t bytes;
    cudaMemoryType type;
};

CUstream_st legacy;
std::set<CUstream_st*> streams{&legacy};
std::map<uintptr_t, Allocation> allocations;
std::map<const void*, int> allowed_shared;
bool failed = false;  // a kernel has, and the device with it

CUstream_st* of(cudaStream_t stream) { return stream == nullptr || stream == cudaStreamLegacy ? &legacy : stream; }

const Allocation* find(const void* data) {
    const uintptr_t at = reinterpret_cast<uintptr_t>(data);
    auto found = allocations.upper_bound(at);
    if (found == allocations.begin()) return nullptr;
    --found;
    return at < found->first + found->second.bytes ? &found->second : nullptr;
}

cudaError_t outcome() { return said(failed ? cudaErrorLaunchFailure : cudaSuccess); }

// Whether this thread may not wait for anything, nor free it, as it is capturing.
bool forbidden() { return own_captures > 0 && own_mode != cudaStreamCaptureModeRelaxed; }

cudaError_t allocate(void** data, size_t bytes, cudaMemoryType type) {
    const Lock lock(everything);
    if (forbidden()) return said(cudaErrorStreamCaptureUnsupported);
    *data = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    if (*data == nullptr) return said(cudaErrorMemoryAllocation);
    __builtin_memset(*data, 0xff, bytes);
    allocations[reinterpret_cast<uintptr_t>(*data)] = {bytes, type};
    return cudaSuccess;
}

// As the runtime does, once the device is done.
cudaError_t release(void* data) {
    const Lock lock(everything);
    if (data == nullptr) return cudaSuccess;
    if (forbidden()) return said(cudaErrorStreamCaptureUnsupported);
    if (allocations.count(reinterpret_cast<uintptr_t>(data)) == 0) return said(cudaErrorInvalidValue);
    for (CUstream_st* stream : streams) stream->run();
    allocations.erase(reinterpret_cast<uintptr_t>(data));
    std::free(data);
    return outcome();
}

cudaError_t wait(CUstream_st* stream, size_t position) {
    if (forbidden()) return said(cudaErrorStreamCaptureUnsupported);
    if (stream->captured) {
        stream->invalidated = true;
        return said(cudaErrorStreamCaptureUnsupported);
    }
    stream->run_until(position);
    return outcome();
}

}  // namespace

// ---- Errors and the device ----

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }

const char* cudaGetErrorName(cudaError_t error) {
    switch (error) {
        case cudaSuccess:
            return "cudaSuccess";
        case cudaErrorInvalidValue:
            return "cudaErrorInvalidValue";
        case cudaErrorMemoryAllocation:
            return "cudaErrorMemoryAllocation";
        case cudaErrorInitializationError:
            return "cudaErrorInitializationError";
        case cudaErrorInvalidDeviceFunction:
            return "cudaErrorInvalidDeviceFunction";
        case cudaErrorInvalidDevice:
            return "cudaErrorInvalidDevice";
        case cudaErrorNoKernelImageForDevice:
            return "cudaErrorNoKernelImageForDevice";
        case cudaErrorInvalidPtx:
            return "cudaErrorInvalidPtx";
        case cudaErrorJitCompilerNotFound:
            return "cudaErrorJitCompilerNotFound";
        case cudaErrorUnsupportedPtxVersion:
            return "cudaErrorUnsupportedPtxVersion";
        case cudaErrorInvalidResourceHandle:
            return "cudaErrorInvalidResourceHandle";
        case cudaErrorLaunchFailure:
            return "cudaErrorLaunchFailure";
        case cudaErrorCooperativeLaunchTooLarge:
            return "cudaErrorCooperativeLaunchTooLarge";
        case cudaErrorStreamCaptureUnsupported:
            return "cudaErrorStreamCaptureUnsupported";
        case cudaErrorStreamCaptureInvalidated:
            return "cudaErrorStreamCaptureInvalidated";
        case cudaErrorStreamCaptureIsolation:
            return "cudaErrorStreamCaptureIsolation";
        case cudaErrorStreamCaptureImplicit:
            return "cudaErrorStreamCaptureImplicit";
    }
    return "unknown";
}

const char* cudaGetErrorString(cudaError_t) { return "of the emulated GPU"; }

cudaError_t cudaGetDeviceCount(int* count) {
    *count = 1;
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
    *version = 1;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) { return said(device == 0 ? cudaSuccess : cudaErrorInvalidDevice); }

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    switch (attribute) {
        case cudaDevAttrMultiProcessorCount:
            *value = setting("TRM_EMULATED_MULTIPROCESSORS", 5);
            break;
        case cudaDevAttrComputeCapabilityMajor:
        case cudaDevAttrComputeCapabilityMinor:
            *value = 9;  // sm_99, which there is none of
            break;
        case cudaDevAttrCooperativeLaunch:
            *value = 1;
            break;
        case cudaDevAttrL2CacheSize:
            *value = setting("TRM_EMULATED_L2_BYTES", 64 * 1024);
            break;
        case cudaDevAttrMaxSharedMemoryPerBlockOptin:
            *value = setting("TRM_EMULATED_SHARED_BYTES", kMostShared);
            break;
    }
    return cudaSuccess;
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void*) {
    if (setting("TRM_EMULATED_WITHOUT_CODE", 0)) return said(cudaErrorNoKernelImageForDevice);
    attributes->maxThreadsPerBlock = 1024;
    attributes->ptxVersion = setting("TRM_EMULATED_PTX_VERSION", 99);
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
    const Lock lock(everything);
    if (setting("TRM_EMULATED_WITHOUT_CODE", 0)) return said(cudaErrorNoKernelImageForDevice);
    if (value > kMostShared) return said(cudaErrorInvalidValue);
    allowed_shared[kernel] = value;
    return cudaSuccess;
}

// ---- Memory ----

cudaError_t cudaMalloc(void** data, size_t bytes) { return allocate(data, bytes, cudaMemoryTypeDevice); }
cudaError_t cudaFree(void* data) { return release(data); }
cudaError_t cudaHostAlloc(void** data, size_t bytes, unsigned) { return allocate(data, bytes, cudaMemoryTypeHost); }
cudaError_t cudaFreeHost(void* data) { return release(data); }

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* data) {
    const Lock lock(everything);
    const Allocation* found = find(data);
    *attributes = {found ? found->type : cudaMemoryTypeUnregistered, 0};
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
    const Lock lock(everything);
    if (find(from) == nullptr && of(stream)->captured == nullptr) {  // pageable: read before this returns
        const auto* begin = static_cast<const unsigned char*>(from);
        of(stream)->add([to, copy = std::vector<unsigned char>(begin, begin + bytes)] {
            if (!copy.empty()) __builtin_memcpy(to, copy.data(), copy.size());
        });
    } else {
        of(stream)->add([=] { __builtin_memcpy(to, from, bytes); });
    }
    return outcome();
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
    const Lock lock(everything);
    if (forbidden()) return said(cudaErrorStreamCaptureUnsupported);
    cudaMemcpyAsync(to, from, bytes, kind, cudaStreamLegacy);
    return wait(&legacy, legacy.put);
}

cudaError_t cudaMemset(void* data, int value, size_t bytes) {  // which returns before it is done
    if (forbidden()) return said(cudaErrorStreamCaptureUnsupported);
    return cudaMemsetAsync(data, value, bytes, cudaStreamLegacy);
}

cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream) {
    const Lock lock(everything);
    of(stream)->add([=] { __builtin_memset(data, value, bytes); });
    return outcome();
}

// ---- Streams and events ----

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    const Lock lock(everything);
    *stream = new CUstream_st;
    streams.insert(*stream);
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    const Lock lock(everything);
    if (streams.erase(stream) == 0) return said(cudaErrorInvalidResourceHandle);
    stream->run();
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    const Lock lock(everything);
    return wait(of(stream), of(stream)->put);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
    const Lock lock(everything);
    if (event->stream == nullptr) return cudaSuccess;
    if (of(stream)->captured) return said(cudaErrorStreamCaptureIsolation);  // recorded outside of the capture
    of(stream)->add([before = event->stream, position = event->position] {
        if (streams.count(before)) before->run_until(position);  // else it is long over
    });
    return outcome();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    *event = new CUevent_st;
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    const Lock lock(everything);
    if (of(stream)->captured) return said(cudaErrorStreamCaptureUnsupported);  // csrc/cuda has no use for that
    *event = {of(stream), of(stream)->put};
    return outcome();
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    const Lock lock(everything);
    if (event->stream == nullptr || streams.count(event->stream) == 0) return outcome();
    return wait(event->stream, event->position);
}

// ---- Captures and graphs ----

cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
    *mode = std::exchange(own_mode, *mode);
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
    const Lock lock(everything);
    *status = of(stream)->captured ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
    const Lock lock(everything);
    if (of(stream) == &legacy || of(stream)->captured) return said(cudaErrorStreamCaptureUnsupported);
    stream->captured = new CUgraph_st;
    stream->invalidated = false;
    own_captures += mode != cudaStreamCaptureModeRelaxed;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    const Lock lock(everything);
    *graph = std::exchange(stream->captured, nullptr);
    if (own_captures > 0) --own_captures;
    if (!stream->invalidated) return cudaSuccess;
    delete std::exchange(*graph, nullptr);
    return said(cudaErrorStreamCaptureInvalidated);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
    *executable = new CUgraphExec_st{graph->work};
    return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
    *count = graph->work.size();
    return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
    const Lock lock(everything);
    for (const Work& work : executable->work) of(stream)->add(work);
    return outcome();
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
    delete executable;
    return cudaSuccess;
}

// ---- Kernels ----

cudaError_t emulated::launch(const void* kernel, const Launch& launch, std::function<void()> bound,
                             cudaStream_t stream) {
    const Lock lock(everything);
    const auto allowed = allowed_shared.find(kernel);
    const int most = allowed == allowed_shared.end() ? kDefaultShared : allowed->second;
    if (launch.shared_bytes > static_cast<size_t>(most)) return said(cudaErrorInvalidValue);
    int multiprocessors = 0;
    cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, 0);
    if (launch.together && launch.blocks.x > static_cast<unsigned>(multiprocessors))
        return said(cudaErrorCooperativeLaunchTooLarge);
    if (launch.together && setting("TRM_EMULATED_IDLE", 0)) return outcome();
    of(stream)->add([launch, bound = std::move(bound)] {
        if (failed) return;
        try {
            run_grid(launch, bound);
        } catch (const Failure& failure) {
            std::fprintf(stderr, "emulated GPU: %s\n", failure.what());
            failed = true;
        }
    });
    return outcome();
}
