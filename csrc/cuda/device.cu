#include <algorithm>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <utility>

#include "cuda/check.h"
#include "cuda/device.h"
#include "cuda/fused.h"
#include "cuda/plain.h"
#include "cuda/resources.h"
#include "cuda/session.h"

namespace trm::cuda {
namespace {

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
    p.l2_cache = ask(cudaDevAttrL2CacheSize);
    p.cooperative = ask(cudaDevAttrCooperativeLaunch) != 0;
    return p;
}

constexpr const char* kWays[] = {"fused", "phases", "plain"};

class CudaModel : public DeviceModel {
  public:
    CudaModel(const Spec& spec, const NetShape& shape, const Quantization& quantization, const Tensors& weights) {
        check_values(spec);
        const OnDevice on_device;
        const DeviceProperties device = properties();
        const std::optional<Way> asked = asked_way();
        const std::string why_not = why_not_fused(spec, shape, device);
        if (asked && asked != Way::kPlain && !why_not.empty()) refuse(*asked, why_not);
        Way way = asked ? *asked : why_not.empty() ? Way::kFused : Way::kPlain;
        auto blocks = way == Way::kPlain ? plain_weights(spec, shape, quantization, weights)
                                         : fused_weights(spec, shape, weights, device);
        if (way == Way::kFused && !(device.cooperative && fits_at_once(*blocks))) {
            if (asked) refuse(way, "its kernel does not fit this device all at once; 'phases' does not have to");
            way = Way::kPhases;
        }
        shared_ = std::make_shared<const Shared>(Shared{spec, way, DeviceTensors(spec, weights), std::move(blocks)});
        name_ = "sm_" + std::to_string(device.major * 10 + device.minor) + " " + kWays[static_cast<int>(way)];
    }

    ~CudaModel() override { leaving_.emplace(); }

    std::unique_ptr<DeviceSession> make_session() const override {
        const OnDevice on_device;
        return cuda::make_session(shared_);
    }

    const char* name() const override { return name_.c_str(); }

  private:
    // By the environment; nothing where that names none.
    static std::optional<Way> asked_way() {
        const char* asked = std::getenv("TRM_EDGE_CUDA_WAY");
        if (asked == nullptr || *asked == 0) return {};
        for (const Way way : {Way::kFused, Way::kPhases, Way::kPlain})
            if (std::string_view(asked) == kWays[static_cast<int>(way)]) return way;
        throw Error(Status::kUnsupported,
                    "TRM_EDGE_CUDA_WAY: expected fused, phases or plain, got '" + shown(asked) + "'");
    }

    [[noreturn]] static void refuse(Way asked, const std::string& why) {
        throw Error(Status::kUnsupported, std::string("TRM_EDGE_CUDA_WAY: '") + kWays[static_cast<int>(asked)] +
                                              "' cannot run this model: " + why);
    }

    std::optional<BesideCaptures> leaving_;  // comes first, and so goes last
    std::shared_ptr<const Shared> shared_;
    std::string name_;
};

}  // namespace

std::string why_no_gpu() {
    int count = 0, driver = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error == cudaSuccess && count > 0) return "";
    cudaGetLastError();  // asked and answered
    if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0) return "there is no NVIDIA driver here";
    return error == cudaSuccess ? "there is no GPU here" : told(error);
}

std::shared_ptr<const DeviceModel> make_device(const Spec& spec, const NetShape& shape,
                                               const Quantization& quantization, const Tensors& weights) {
    return std::make_shared<const CudaModel>(spec, shape, quantization, weights);
}

}  // namespace trm::cuda
