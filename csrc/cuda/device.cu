#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <utility>

#include "cuda/check.h"
#include "cuda/device.h"
#include "cuda/fused.h"
#include "cuda/plain.h"
#include "cuda/runner.h"

namespace trm::cuda {
namespace {

constexpr int kDevice = 0;

// Our device for as long as a call lasts; the caller may be using another one.
class OnDevice {
  public:
    OnDevice() {
        TRM_CUDA(cudaGetDevice(&before_));
        if (before_ != kDevice) TRM_CUDA(cudaSetDevice(kDevice));
    }
    ~OnDevice() {
        if (before_ != kDevice) cudaSetDevice(before_);
    }
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;

  private:
    int before_ = kDevice;
};

DeviceProperties properties() {
    DeviceProperties p{};
    const auto ask = [](cudaDeviceAttr attribute) {
        int value = 0;
        TRM_CUDA(cudaDeviceGetAttribute(&value, attribute, kDevice));
        return value;
    };
    p.major = ask(cudaDevAttrComputeCapabilityMajor);
    p.minor = ask(cudaDevAttrComputeCapabilityMinor);
    p.multiprocessors = ask(cudaDevAttrMultiProcessorCount);
    p.shared_memory = ask(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    p.cooperative = ask(cudaDevAttrCooperativeLaunch) != 0;
    return p;
}

enum class Way { kFused, kPhases, kPlain };
constexpr const char* kWays[] = {"fused", "phases", "plain"};

// Memory that the device reads and writes where it is.
class Pinned {
  public:
    explicit Pinned(size_t count) { TRM_CUDA(cudaHostAlloc(&data_, count * sizeof(float), cudaHostAllocPortable)); }
    ~Pinned() { cudaFreeHost(data_); }
    Pinned(const Pinned&) = delete;
    Pinned& operator=(const Pinned&) = delete;
    float* get() const { return static_cast<float*>(data_); }

  private:
    void* data_ = nullptr;
};

class Stream {
  public:
    Stream() { TRM_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking)); }
    ~Stream() { cudaStreamDestroy(stream_); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    cudaStream_t get() const { return stream_; }

  private:
    cudaStream_t stream_ = nullptr;
};

class CudaSession : public DeviceSession {
  public:
    CudaSession(const Spec& spec, std::unique_ptr<Runner> runner)
        : spec_(spec),
          size_(static_cast<size_t>(spec.max_rows()) * static_cast<size_t>(spec.hidden_size)),
          rows_(3 * size_),
          out_(kMaxAhead * size_),
          runner_(std::move(runner)) {}

    ~CudaSession() override { cudaStreamSynchronize(stream_.get()); }

    float* e() override { return rows_.get(); }
    float* y() override { return rows_.get() + size_; }
    float* z() override { return rows_.get() + 2 * size_; }

    void begin(int answer_rows, int context_rows) override {
        answer_rows_ = answer_rows;
        context_rows_ = context_rows;
        begin_ = refresh_ = true;
    }

    void refresh() override { refresh_ = true; }

    void run(int steps) override {
        const OnDevice on_device;
        const Run run{e(), y(), z(), out_.get(), answer_rows_, context_rows_, steps, begin_, refresh_};
        runner_->enqueue(run, stream_.get());
        TRM_CUDA(cudaStreamSynchronize(stream_.get()));
        begin_ = refresh_ = false;
    }

    const float* y_after(int i) const override {
        const int rows = spec_.registers + answer_rows_ + context_rows_;
        return out_.get() + static_cast<size_t>(i) * static_cast<size_t>(rows) * static_cast<size_t>(spec_.hidden_size);
    }

  private:
    Spec spec_;
    size_t size_;
    Pinned rows_, out_;
    Stream stream_;
    std::unique_ptr<Runner> runner_;
    int answer_rows_ = 0, context_rows_ = 0;
    bool begin_ = true, refresh_ = true;
};

class CudaModel : public DeviceModel {
  public:
    CudaModel(const Spec& spec, const NetShape& shape, const Quantization& quantization, const Tensors& weights)
        : spec_(spec) {
        const OnDevice on_device;
        const DeviceProperties device = properties();
        way_ = choose(why_not_fused(spec, shape, device), device);
        weights_ = way_ == Way::kPlain ? plain_weights(spec, shape, quantization, weights)
                                       : fused_weights(spec, shape, weights, device);
        name_ = "sm_" + std::to_string(device.major * 10 + device.minor) + " " + kWays[static_cast<int>(way_)];
    }

    std::unique_ptr<DeviceSession> make_session() const override {
        const OnDevice on_device;
        auto session = std::make_unique<CudaSession>(
            spec_, way_ == Way::kPlain ? plain_runner(weights_) : fused_runner(weights_, way_ == Way::kFused));
        TRM_CUDA(cudaDeviceSynchronize());  // copies and clears go through another stream than the session's
        return session;
    }

    const char* name() const override { return name_.c_str(); }

  private:
    static Way choose(const std::string& why_not, const DeviceProperties& device) {
        const char* asked = std::getenv("TRM_EDGE_CUDA");
        if (asked == nullptr || *asked == 0) {
            if (!why_not.empty()) return Way::kPlain;
            return device.cooperative ? Way::kFused : Way::kPhases;
        }
        for (const Way way : {Way::kFused, Way::kPhases, Way::kPlain}) {
            if (std::string_view(asked) != kWays[static_cast<int>(way)]) continue;
            if (way != Way::kPlain && !why_not.empty())
                throw Error(Status::kUnsupported,
                            "TRM_EDGE_CUDA: '" + shown(asked) + "' cannot run this model: " + why_not);
            return way;
        }
        throw Error(Status::kUnsupported, "TRM_EDGE_CUDA: expected fused, phases or plain, got '" + shown(asked) + "'");
    }

    Spec spec_;
    Way way_;
    std::shared_ptr<const Weights> weights_;
    std::string name_;
};

}  // namespace

std::string why_no_gpu() {
    int count = 0, driver = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count > 0) return "";
    cudaGetLastError();  // asked and answered
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "there is no NVIDIA driver here";
    return error == cudaSuccess ? "there is no GPU here" : cudaGetErrorString(error);
}

std::shared_ptr<const DeviceModel> make_device(const Spec& spec, const NetShape& shape,
                                               const Quantization& quantization, const Tensors& weights) {
    return std::make_shared<const CudaModel>(spec, shape, quantization, weights);
}

}  // namespace trm::cuda
