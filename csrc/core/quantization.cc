#include "core/quantization.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "core/bundle_parts.h"

namespace trm {
namespace {

// Name of a block's matrix, as its weight's without ".weight".
std::string matrix_name(const Spec& spec, int layer, int kind) {
    static const char* const attention[] = {"attention.qkv", "attention.out", "mlp.gate_up", "mlp.down"};
    static const char* const mixing[] = {"token_mixer.gate_up", "token_mixer.down", "mlp.gate_up", "mlp.down"};
    return "blocks." + std::to_string(layer) + "." + (spec.mixer == Mixer::kMlpT ? mixing : attention)[kind];
}

Precision precision_named(const std::string& key, const std::string& text) {
    if (text == "fp32") return Precision::kFp32;
    if (text == "bf16") return Precision::kBf16;
    if (text == "int8") return Precision::kInt8;
    fail("metadata " + key + ": expected int8, bf16 or fp32, got '" + shown(text) + "'");
}

int scaled_steps(const std::string& scheme, const std::string& text) {
    const int steps = plain_number(text);
    const bool fits = (scheme == "dynamic" && steps == 0) || (scheme == "static" && steps == 1) ||
                      (scheme == "static-per-step" && steps >= 1 && steps <= kMaxSteps);
    if (!fits) {
        fail(
            "metadata quantization.scheme and quantization.steps: expected dynamic with 0, static with 1, or "
            "static-per-step with 1.." +
            std::to_string(kMaxSteps) + ", got '" + shown(scheme) + "' with '" + shown(text) + "'");
    }
    return steps;
}

// Reads the scales of one matrix's input and takes their name out of `given`.
void read_input_scale(const std::string& name, std::map<std::string_view, const Tensor*>& given, int steps,
                      size_t stride, float* to) {
    const auto found = given.find(name);
    if (found == given.end()) fail_tensor(name, "missing; its matrix is int8");
    const Tensor& tensor = *found->second;
    if (tensor.entry->dtype != "F32" || tensor.entry->shape != std::vector<uint64_t>{static_cast<uint64_t>(steps)}) {
        fail_tensor(name, "expected F32 [" + std::to_string(steps) + "]");
    }
    for (int step = 0; step < steps; ++step) {
        float scale = 0;
        std::memcpy(&scale, tensor.data + static_cast<size_t>(step) * sizeof scale, sizeof scale);
        if (!(scale > 0 && std::isfinite(scale))) fail_tensor(name, "expected finite values > 0");
        to[static_cast<size_t>(step) * stride] = scale;
    }
    given.erase(found);
}

}  // namespace

Quantization read_quantization(const Spec& spec, Metadata metadata, const std::vector<Tensor>& tensors) {
    std::map<std::string_view, const Tensor*> given;
    for (const Tensor& tensor : tensors) {
        if (starts_with(tensor.name, kInputScale)) given[tensor.name] = &tensor;
    }
    const auto take = [&](const std::string& key) {
        const auto found = metadata.find(key);
        if (found == metadata.end()) fail("metadata lacks " + key + ", though the bundle is calibrated");
        std::string text = std::move(found->second);
        metadata.erase(found);
        return text;
    };
    const auto left = [&] { return metadata.lower_bound(std::string(kQuantization)); };
    const auto any_left = [&] { return left() != metadata.end() && starts_with(left()->first, kQuantization); };

    Quantization quantization;
    if (any_left()) {
        const std::string scheme = take("quantization.scheme");
        quantization.steps = scaled_steps(scheme, take("quantization.steps"));
        const size_t layers = static_cast<size_t>(spec.num_layers), stride = layers * kMatricesPerBlock;
        quantization.precision.resize(layers);
        quantization.input_scale.resize(static_cast<size_t>(quantization.steps) * stride);
        for (size_t i = 0; i < stride; ++i) {
            const size_t layer = i / kMatricesPerBlock, kind = i % kMatricesPerBlock;
            const std::string name = matrix_name(spec, static_cast<int>(layer), static_cast<int>(kind));
            const std::string key = "quantization.precision." + name;
            const Precision precision = precision_named(key, take(key));
            quantization.precision[layer].of[kind] = precision;
            if (precision == Precision::kInt8 && quantization.steps > 0) {
                read_input_scale(std::string(kInputScale) + name, given, quantization.steps, stride,
                                 quantization.input_scale.data() + i);
            }
        }
        if (any_left()) fail("metadata has an unknown key '" + shown(left()->first) + "'");
    }
    if (!given.empty()) fail_tensor(given.begin()->first, "unknown; the calibration has no place for it");
    return quantization;
}

}  // namespace trm
