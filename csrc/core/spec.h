// The model's definition: names, sizes and tensor shapes. The C++ twin of trm_edge/spec.py, with the same rules.
//
// Symbols: D hidden size, H heads, I SwiGLU inner size, R registers, S answer rows (T for actions), P context rows,
// L = R + S + P.
#ifndef TRM_EDGE_CORE_SPEC_H
#define TRM_EDGE_CORE_SPEC_H

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace trm {

constexpr int kMaxSteps = 1024;  // of one call, and with scales of their own; TRM_MAX_STEPS in the public header

enum class Answer { kActions, kSlots, kTokens };
enum class Mixer { kAttention, kMlpT };
enum class Positions { kRope, kLearned, kNone };
enum class Draft { kRequired, kOptional };

// Sizes and choices that define one model. Fields that a kind or mixer does not use are 0. Every size is at most 2^20.
struct Spec {
    Answer answer = Answer::kActions;
    int hidden_size = 0;  // D
    int inner_size = 0;   // I
    int l_cycles = 0;     // latent updates per answer update
    int h_cycles = 0;     // repeats per refinement step
    int registers = 0;    // R
    int answer_rows = 0;  // S: exact for actions and tokens, the maximum for slots
    int num_layers = 0;
    Mixer mixer = Mixer::kAttention;
    int num_heads = 0;         // H, attention only
    int token_inner_size = 0;  // inner width of the token-mixing SwiGLU, mlp_t only
    Positions positions = Positions::kNone;
    double rope_theta = 0;
    double norm_eps = 0;
    int max_context = 0;   // P: the maximum with attention, exact with mlp_t
    int context_size = 0;  // Dx
    int dof = 0;           // actions: width of one action
    int feature_size = 0;  // actions: Df, 0 for a head without features
    Draft draft = Draft::kRequired;
    int slot_size = 0;       // slots: Ds
    int candidate_size = 0;  // slots: Dc
    int max_candidates = 0;  // slots: M
    int vocab_size = 0;      // tokens: V
    int num_puzzles = 0;     // tokens: rows of the puzzle embedding
    int puzzle_size = 0;     // tokens: width of the puzzle embedding, zero-padded to R * D

    // L at the largest answer and context.
    int max_rows() const { return registers + answer_rows + max_context; }
};

struct TensorShape {
    std::string name;
    std::vector<int64_t> dims;
};

// Reads the `spec.<field>` strings of a bundle: every field must be there, none else may be, and the result is valid.
// Other keys are not looked at. Throws Error with INVALID_BUNDLE and a message that names the field.
Spec parse_spec(const std::map<std::string, std::string>& metadata);

// Name and shape of every float32 tensor of the model, in file order. `spec` must be valid.
std::vector<TensorShape> tensor_shapes(const Spec& spec);

}  // namespace trm

#endif  // TRM_EDGE_CORE_SPEC_H
