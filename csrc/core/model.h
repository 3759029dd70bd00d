// An immutable model: the spec, and weights packed once for one instruction set. Shared by any number of sessions.
#ifndef TRM_EDGE_CORE_MODEL_H
#define TRM_EDGE_CORE_MODEL_H

#include <map>
#include <string>
#include <vector>

#include "core/bundle.h"
#include "core/device.h"
#include "core/kernels.h"
#include "core/limits.h"
#include "core/memory.h"
#include "core/spec.h"

namespace trm {

// A packed linear layer, out[n] = in[k] * w[n, k]^T.
struct Linear {
    int n = 0;
    int k = 0;
    Buffer<Word> packed;
};

// A linear layer behind the normalisation (v - mean) / std of its input.
struct Encoder {
    Linear linear;
    std::vector<float> mean;
    std::vector<float> std;
};

// What the matrices of the blocks are multiplied in, where the caller chooses; kAuto: as calibrated, else float32.
enum class PrecisionChoice { kAuto, kFp32, kBf16, kInt8, kFp16, kW8a16 };

struct Model {
    // `make_device`: what puts the blocks on a device; null: they run on the processor.
    Model(Bundle bundle, const Kernels& kernels, PrecisionChoice choice, MakeDevice make_device = nullptr);
    Model(const Model&) = delete;
    Model& operator=(const Model&) = delete;

    // "fp32", "fp16", "bf16", "w8a16" or "int8"; a calibrated mixture reads "int8".
    const char* precision_name() const;
    // Input scales of refinement step k = 0, 1, ... for NetCall; null where each row has its own.
    const float* input_scale(int step) const;

    Spec spec;
    std::map<std::string, std::string> metadata;
    const Kernels& kernels;
    Precision precision;  // the lowest in use
    Quantization quantization;
    bool as_calibrated;  // that of the bundle
    NetShape shape;      // points into `quantization`

    std::shared_ptr<const DeviceModel> device;  // runs the blocks where it is there; `net` is empty then
    Buffer<Word> net;                           // packed blocks
    Buffer<float> rope;                         // rotary tables of all positions
    std::vector<float> y_init, z_init;
    std::vector<float> registers;           // [R, D], or puzzle embedding [num_puzzles, puzzle_size] for tokens
    std::vector<float> position_embedding;  // [L_max, D] where learned, else empty
    std::vector<float> halt_weight;
    float halt_bias = 0;

    Encoder context;                    // x -> e (actions, slots)
    std::vector<float> time_embedding;  // actions: [T, D]
    Encoder features;                   // actions: features -> e
    Encoder draft;                      // actions: y0 -> y
    std::vector<float> lower, upper, velocity;
    Encoder slots;                       // slots: slots -> e
    Encoder key;                         // slots: candidates -> keys
    std::vector<float> key_none;         // slots
    Linear query;                        // slots: y -> q
    std::vector<float> token_embedding;  // tokens: [V, D]
    Linear decoder;                      // actions: y -> delta, tokens: y -> logits

    Limits limits() const { return {lower.data(), upper.data(), velocity.data()}; }
};

}  // namespace trm

#endif
