// An immutable model: the spec, and weights packed once for one instruction set. Shared by any number of sessions.
#ifndef TRM_EDGE_CORE_MODEL_H
#define TRM_EDGE_CORE_MODEL_H

#include <map>
#include <string>
#include <vector>

#include "core/bundle.h"
#include "core/kernels.h"
#include "core/limits.h"
#include "core/memory.h"
#include "core/spec.h"

namespace trm {

// A packed linear layer, out[n] = in[k] * w[n, k]^T.
struct Linear {
    int n = 0;
    int k = 0;
    Buffer<float> packed;
};

// A linear layer behind the normalisation (v - mean) / std of its input.
struct Encoder {
    Linear linear;
    std::vector<float> mean;
    std::vector<float> std;
};

struct Model {
    Model(Bundle bundle, const Kernels& kernels);

    Spec spec;
    std::map<std::string, std::string> metadata;
    const Kernels& kernels;
    NetShape shape;

    Buffer<float> net;   // packed blocks
    Buffer<float> rope;  // rotary tables of all positions
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
