// From the arrays of a call to the rows [registers ; answer ; context] of e and y.
#include <algorithm>

#include "core/session.h"

namespace trm {
namespace {

void add_to(float* values, const float* others, size_t count) {
    for (size_t i = 0; i < count; ++i) values[i] += others[i];
}

}  // namespace

bool all_finite(const float* values, size_t count) {
    uint32_t found = 0;  // set where an exponent is all ones; integer work, so that the loop vectorises
    for (size_t i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, values + i, sizeof bits);
        found |= static_cast<uint32_t>((bits & 0x7f800000u) == 0x7f800000u);
    }
    return found == 0;
}

const char* Session::begin(const Call& call) {
    const Model& m = *model_;
    const Spec& spec = m.spec;
    if (const char* name = keep(call)) return name;
    begun_ = true;
    in_flight_ = -1;
    steps_run_ = 0;
    answer_rows_ = call.answer_rows;
    context_rows_ = call.context_rows;
    num_candidates_ = call.num_candidates;
    x_finite_ = all_finite(call.x, area(context_rows_, spec.context_size));
    features_finite_ = all_finite(call.features, area(answer_rows_, spec.feature_size));
    slots_finite_ = all_finite(call.slots, area(answer_rows_, spec.slot_size)) &&
                    all_finite(call.candidates, area(num_candidates_, spec.candidate_size));

    steps_to_come_ = steps_ahead_ = steps_taken_ = 0;
    halt_ = -1;
    if (device_) {
        Call own = call;
        if (own.tokens) own.tokens = choices_;
        if (spec.answer == Answer::kSlots) own.choices = choices_;
        if (own.y0) own.y0 = draft_;
        if (own.last_action) own.last_action = last_action_;
        device_->begin(own);
        return nullptr;
    }
    set_positions();
    for (int r = 0; r < rows(); ++r) {
        std::copy_n(m.y_init.data(), spec.hidden_size, y_ + area(r, spec.hidden_size));
        std::copy_n(m.z_init.data(), spec.hidden_size, z_ + area(r, spec.hidden_size));
    }
    encode_registers(call.puzzle_id);
    encode_draft();
    if (spec.answer == Answer::kActions && features_finite_) encode_features(call.features);
    if (spec.answer == Answer::kSlots && slots_finite_) encode_slots(call);
    if (x_finite_) encode_context(call.x);
    return nullptr;
}

bool Session::refresh(const float* x, const float* features) {
    const Spec& spec = model_->spec;
    const bool x_finite = x ? all_finite(x, area(context_rows_, spec.context_size)) : x_finite_;
    const bool features_finite =
        features ? all_finite(features, area(answer_rows_, spec.feature_size)) : features_finite_;
    if (!(x_finite && features_finite && slots_finite_)) return false;
    if (device_) {
        if (x || features) device_->refresh(x, features);
    } else {
        if (x) encode_context(x);
        if (features) encode_features(features);
    }
    x_finite_ = features_finite_ = true;
    return true;
}

// Register r stands at r, answer row s at R + s, context row p at R + S_max + p, so that no part moves another.
void Session::set_positions() {
    const Spec& spec = model_->spec;
    const int answer_end = spec.registers + answer_rows_;
    for (int r = 0; r < rows(); ++r) {
        position_[r] = r < answer_end ? r : r - answer_rows_ + spec.answer_rows;
    }
}

void Session::add_learned_positions(float* rows, int first_position, int count) {
    const Model& m = *model_;
    if (m.position_embedding.empty()) return;
    const int D = m.spec.hidden_size;
    add_to(rows, m.position_embedding.data() + area(first_position, D), area(count, D));
}

void Session::encode_registers(int puzzle_id) {
    const Model& m = *model_;
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
void Session::encode(const Encoder& encoder, const float* values, int count, float* out) {
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

// Keep what answers are made from. Another thread may change the caller's arrays meanwhile: floats are checked in the
// copies, so that no race passes a limit, and indices, which were checked before, are clamped, so that one gives a
// wrong answer and not a wild read.
const char* Session::keep(const Call& call) {
    const Model& m = *model_;
    const Spec& spec = m.spec;
    for (int s = 0; s < call.answer_rows; ++s) {
        if (spec.answer == Answer::kTokens) {
            choices_[s] = std::clamp(call.tokens[s], 0, spec.vocab_size - 1);
        } else if (spec.answer == Answer::kSlots) {
            choices_[s] = call.choices ? std::clamp(call.choices[s], -1, call.num_candidates - 1) : -1;
            for (size_t i = area(s, call.num_candidates); i < area(s + 1, call.num_candidates); ++i)
                mask_[i] = call.mask[i] != 0;
        } else {  // without a draft the mean action stands for it, and is encoded as 0
            const float* action = call.y0 ? call.y0 + area(s, spec.dof) : m.draft.mean.data();
            std::copy_n(action, spec.dof, draft_ + area(s, spec.dof));
        }
    }
    if (!all_finite(draft_, area(call.answer_rows, spec.dof))) return "y0";
    has_last_action_ = false;
    return keep_last_action(call.last_action) ? nullptr : "last_action";
}

bool Session::keep_last_action(const float* last_action) {
    if (!last_action) return true;
    const size_t dof = static_cast<size_t>(model_->spec.dof);
    std::copy_n(last_action, dof, fresh_action_);
    if (!all_finite(fresh_action_, dof)) return false;
    std::copy_n(fresh_action_, dof, last_action_);
    return has_last_action_ = true;
}

// Encodings of the draft: tokens are the answer rows of e, actions are added to those of y. Slots: see encode_slots.
void Session::encode_draft() {
    const Model& m = *model_;
    const int D = m.spec.hidden_size;
    float* rows = answer_rows_of(e_);  // for actions, free until encode_features
    if (m.spec.answer == Answer::kTokens) {
        for (int s = 0; s < answer_rows_; ++s)
            std::copy_n(m.token_embedding.data() + area(choices_[s], D), D, rows + area(s, D));
        add_learned_positions(rows, m.spec.registers, answer_rows_);
    } else if (m.spec.answer == Answer::kActions) {
        encode(m.draft, draft_, answer_rows_, rows);
        add_to(answer_rows_of(y_), rows, area(answer_rows_, D));
    }
}

// Keys of the candidates, the answer rows of e from the slots, and the drafts' keys in the answer rows of y.
void Session::encode_slots(const Call& call) {
    const Model& m = *model_;
    const int D = m.spec.hidden_size;
    encode(m.key, call.candidates, num_candidates_, keys_);
    if (num_candidates_) m.kernels.pack_linear(keys_, num_candidates_, D, packed_keys_);
    for (int s = 0; s < answer_rows_; ++s) {
        const float* key = choices_[s] < 0 ? m.key_none.data() : keys_ + area(choices_[s], D);
        add_to(answer_rows_of(y_) + area(s, D), key, static_cast<size_t>(D));
    }
    encode(m.slots, call.slots, answer_rows_, answer_rows_of(e_));
    add_learned_positions(answer_rows_of(e_), m.spec.registers, answer_rows_);
}

// The answer rows of e: a learned row per time step, plus what the features say about the draft there.
void Session::encode_features(const float* features) {
    const Model& m = *model_;
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

void Session::encode_context(const float* x) {
    const Spec& spec = model_->spec;
    encode(model_->context, x, context_rows_, context_rows_of(e_));
    add_learned_positions(context_rows_of(e_), spec.registers + spec.answer_rows, context_rows_);
}

}  // namespace trm
