// The tensors of encoders and decoders on the device: all of a bundle but those of its blocks, float32.
#ifndef TRM_EDGE_CUDA_TENSORS_H
#define TRM_EDGE_CUDA_TENSORS_H

#include <map>
#include <string>
#include <vector>

#include "core/device.h"
#include "core/status.h"
#include "cuda/resources.h"

namespace trm::cuda {

class DeviceTensors {
  public:
    DeviceTensors(const Spec& spec, const Tensors& weights) {
        std::vector<float> host;
        std::map<std::string, size_t> offsets;
        for (const auto& [name, values] : weights) {
            if (name.rfind("blocks.", 0) == 0) continue;
            host.resize((host.size() + 3) / 4 * 4);  // every tensor begins at 16 bytes
            offsets[name] = host.size();
            if (name == "puzzle_embedding") {
                append_padded(spec, values, &host);
            } else {
                host.insert(host.end(), values.begin(), values.end());
            }
        }
        memory_ = DeviceBuffer<float>(host);
        for (const auto& [name, offset] : offsets) at_[name] = memory_.get() + offset;
    }

    // Null where the model has no tensor of that name.
    const float* operator[](const std::string& name) const {
        const auto found = at_.find(name);
        return found == at_.end() ? nullptr : found->second;
    }

  private:
    static constexpr size_t kMostPadded = size_t{1} << 28;

    // A puzzle's embedding fills whole rows of registers, the rest is zero.
    static void append_padded(const Spec& spec, const std::vector<float>& values, std::vector<float>* host) {
        const size_t size = static_cast<size_t>(spec.puzzle_size);
        const size_t padded = static_cast<size_t>(spec.registers) * static_cast<size_t>(spec.hidden_size);
        if (padded * static_cast<size_t>(spec.num_puzzles) > kMostPadded)
            throw Error(Status::kUnsupported, "backend cuda: puzzle embeddings of " + std::to_string(spec.num_puzzles) +
                                                  " puzzles over " + std::to_string(spec.registers) +
                                                  " registers are too large; run it with backend fused");
        for (size_t i = 0; size > 0 && i < values.size(); i += size) {
            host->insert(host->end(), values.begin() + static_cast<std::ptrdiff_t>(i),
                         values.begin() + static_cast<std::ptrdiff_t>(i + size));
            host->insert(host->end(), padded - size, 0.0f);
        }
    }

    DeviceBuffer<float> memory_;
    std::map<std::string, const float*> at_;
};

}  // namespace trm::cuda

#endif
