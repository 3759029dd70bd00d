// What a session holds of the CUDA runtime, freed when it goes.
#ifndef TRM_EDGE_CUDA_RESOURCES_H
#define TRM_EDGE_CUDA_RESOURCES_H

#include <cuda_runtime_api.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "cuda/check.h"

namespace trm::cuda {

constexpr int kDevice = 0;

// As long as this lives, a capture that any thread is making does not forbid its thread to wait for something or to
// free it, nor does the capture end by that: the two have nothing to do with each other. To wait for the device still
// does.
class BesideCaptures {
  public:
    BesideCaptures() noexcept : exchanged_(cudaThreadExchangeStreamCaptureMode(&mode_) == cudaSuccess) {}
    ~BesideCaptures() {
        if (exchanged_) ignore(cudaThreadExchangeStreamCaptureMode(&mode_));
    }
    BesideCaptures(const BesideCaptures&) = delete;
    BesideCaptures& operator=(const BesideCaptures&) = delete;

  private:
    cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;  // and then what it was before
    bool exchanged_;
};

// Our device for as long as a call lasts; the caller may be using another one.
class OnDevice {
  public:
    OnDevice() {
        TRM_CUDA(cudaGetDevice(&before_));
        if (before_ != kDevice) TRM_CUDA(cudaSetDevice(kDevice));
        beside_captures_.emplace();
    }
    ~OnDevice() {
        beside_captures_.reset();
        if (before_ != kDevice) ignore(cudaSetDevice(before_));
    }
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;

  private:
    int before_ = kDevice;
    std::optional<BesideCaptures> beside_captures_;
};

class Stream {
  public:
    Stream() { TRM_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
    ~Stream() { ignore(cudaStreamDestroy(stream_)); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    cudaStream_t get() const { return stream_; }

  private:
    cudaStream_t stream_ = nullptr;
};

// Memory on the device, zeroed. It is cleared and written on a stream of its own, and both are over when the call is:
// while anybody captures a stream that waits for the default one, the default one is none to use.
template <typename T>
class DeviceBuffer {
  public:
    DeviceBuffer() = default;
    explicit DeviceBuffer(size_t count) : DeviceBuffer() {  // so that it is freed where it cannot be cleared
        if (count == 0) return;
        TRM_CUDA(cudaMalloc(reinterpret_cast<void**>(&data_), count * sizeof(T)));
        const Stream stream;
        TRM_CUDA(cudaMemsetAsync(data_, 0, count * sizeof(T), stream.get()));
        TRM_CUDA(cudaStreamSynchronize(stream.get()));
    }
    explicit DeviceBuffer(const std::vector<T>& values) : DeviceBuffer(values.size()) { write(values); }
    ~DeviceBuffer() { ignore(cudaFree(data_)); }
    DeviceBuffer(DeviceBuffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
    DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
        std::swap(data_, other.data_);
        return *this;
    }
    DeviceBuffer(const DeviceBuffer&) = delete;
    T* get() const { return data_; }

    // From the front; no more values than there is room for.
    void write(const std::vector<T>& values) {
        if (values.empty()) return;
        const Stream stream;
        TRM_CUDA(
            cudaMemcpyAsync(data_, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice, stream.get()));
        TRM_CUDA(cudaStreamSynchronize(stream.get()));
    }

  private:
    T* data_ = nullptr;
};

// Memory of the host that the device reads and writes where it is.
template <typename T>
class Pinned {
  public:
    explicit Pinned(size_t count) {
        TRM_CUDA(cudaHostAlloc(&data_, std::max<size_t>(count, 1) * sizeof(T), cudaHostAllocPortable));
    }
    ~Pinned() { ignore(cudaFreeHost(data_)); }
    Pinned(const Pinned&) = delete;
    Pinned& operator=(const Pinned&) = delete;
    T* get() const { return static_cast<T*>(data_); }

  private:
    void* data_ = nullptr;
};

class Event {
  public:
    Event() { TRM_CUDA(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming)); }
    ~Event() { ignore(cudaEventDestroy(event_)); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    cudaEvent_t get() const { return event_; }

  private:
    cudaEvent_t event_ = nullptr;
};

}  // namespace trm::cuda

#endif
