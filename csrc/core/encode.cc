// From the arrays of a call to the rows [registers ; answer ; context] of e and y.
#include <algorithm>

#include "core/host_recurrence.h"

namespace trm {
namespace {

void add_to(float* values, const float* others, size_t count) {
    for (size_t i = 0; i < count; ++i) values[i] += others[i];
}

}  // namespace

void HostRecurrence::begin(const Call& call, const Finite& finite) {
    const Spec& spec = model_.spec;
    answer_rows_ = call.answer_rows;
    context_rows_ = call.context_rows;
    num_candidates_ = call.num_candidates;
    set_positions();
    for (int r = 0; r < rows(); ++r) {
        std::copy_n(model_.y_init.data(), spec.hidden_size, y_ + area(r, spec.hidden_size));
        std::copy_n(model_.z_init.data(), spec.hidden_size, z_ + area(r, spec.hidden_size));
    }
    encode_registers(call.puzzle_id);
    encode_draft(call);
    if (spec.answer == Answer::kActions && finite.features) encode_features(call.features);
    if (spec.answer == Answer::kSlots && finite.slots) encode_slots(call);
    if (finite.x) encode_context(call.x);
}

void HostRecurrence::refresh(const float* x, const float* features) {
    if (x) encode_context(x);
    if (features) encode_features(features);
}

// Register r stands at r, answer row s at R + s, context row p at R + S_max + p, so that no part moves another.
void HostRecurrence::set_positions() {
    const Spec& spec = model_.spec;
    const int answer_end = spec.registers + answer_rows_;
    for (int r = 0; r < rows(); ++r) {
        position_[r] = r < answer_end ? r : r - answer_rows_ + spec.answer_rows;
    }
}

void HostRecurrence::add_learned_positions(float* rows, int first_position, int count) {
    const Model& m = model_;
    if (m.position_embedding.empty()) return;
    const int D = m.spec.hidden_size;
    add_to(rows, m.position_embedding.data() + area(first_position, D), area(count, D));
}

void HostRecurrence::encode_registers(int puzzle_id) {
    const Model& m = model_;
    const size_t all = area(m.spec.registers, m.spec.hidden_size);
    if (m.spec.answer == Answer::kTokens) {  // the puzzle's embedding, zero-padded to whole rows
        const size_t size = static_cast<size_t>(m.spec.puzzle_size);
        std::copy_n(m.registers.data() + static_cast<size_t>(puzzle_id) * size, size, e_);
        std::fill(e_ + size, e_ + all, 0.0f);
    } else {
        std::copy_n(m.registers.data(), all, e_);
    }
    add_learned_positions(e_, 0, m.spec.registers);
}

// Normalise `count` rows of an input and map them to D: out [count, D].
void HostRecurrence::encode(const Encoder& encoder, const float* values, int count, float* out) {
    if (count == 0) return;
    const int k = encoder.linear.k;
    for (int r = 0; r < count; ++r) {
        for (int i = 0; i < k; ++i) {
            const size_t at = area(r, k) + static_cast<size_t>(i);
            staged_[at] = (values[at] - encoder.mean[static_cast<size_t>(i)]) / encoder.std[static_cast<size_t>(i)];
        }
    }
    linear(encoder.linear, staged_, count, out);
}

// Encodings of the draft: tokens are the answer rows of e, actions are added to those of y. Slots: see encode_slots.
void HostRecurrence::encode_draft(const Call& call) {
    const Model& m = model_;
    const int D = m.spec.hidden_size;
    float* rows = answer_rows_of(e_);  // for actions, free until encode_features
    if (m.spec.answer == Answer::kTokens) {
        for (int s = 0; s < answer_rows_; ++s)
            std::copy_n(m.token_embedding.data() + area(call.tokens[s], D), D, rows + area(s, D));
        add_learned_positions(rows, m.spec.registers, answer_rows_);
    } else if (m.spec.answer == Answer::kActions && call.y0) {  // without one the mean action, which is encoded as 0
        encode(m.draft, call.y0, answer_rows_, rows);
        add_to(answer_rows_of(y_), rows, area(answer_rows_, D));
    }
}

// Keys of the candidates, the answer rows of e from the slots, and the drafts' keys in the answer rows of y.
void HostRecurrence::encode_slots(const Call& call) {
    const Model& m = model_;
    const int D = m.spec.hidden_size;
    encode(m.key, call.candidates, num_candidates_, keys_);
    if (num_candidates_) m.kernels.pack_linear(keys_, num_candidates_, D, packed_keys_);
    for (int s = 0; s < answer_rows_; ++s) {
        const float* key = call.choices[s] < 0 ? m.key_none.data() : keys_ + area(call.choices[s], D);
        add_to(answer_rows_of(y_) + area(s, D), key, static_cast<size_t>(D));
    }
    encode(m.slots, call.slots, answer_rows_, answer_rows_of(e_));
    add_learned_positions(answer_rows_of(e_), m.spec.registers, answer_rows_);
}

// The answer rows of e: a learned row per time step, plus what the features say about the draft there.
void HostRecurrence::encode_features(const float* features) {
    const Model& m = model_;
    float* rows = answer_rows_of(e_);
    const size_t count = area(answer_rows_, m.spec.hidden_size);
    if (m.spec.feature_size) {
        encode(m.features, features, answer_rows_, rows);
        add_to(rows, m.time_embedding.data(), count);
    } else {
        std::copy_n(m.time_embedding.data(), count, rows);
    }
    add_learned_positions(rows, m.spec.registers, answer_rows_);
}

void HostRecurrence::encode_context(const float* x) {
    const Spec& spec = model_.spec;
    encode(model_.context, x, context_rows_, context_rows_of(e_));
    add_learned_positions(context_rows_of(e_), spec.registers + spec.answer_rows, context_rows_);
}

}  // namespace trm
