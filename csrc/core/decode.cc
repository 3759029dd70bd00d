// From the answer rows of y to an answer, its logits, and the halt logit.
#include <algorithm>
#include <cmath>
#include <limits>

#include "core/session.h"

namespace trm {
namespace {

// Index of the largest value, the lowest where several are equal.
int argmax(const float* values, int count) {
    int best = 0;
    for (int i = 1; i < count; ++i) {
        if (values[i] > values[best]) best = i;
    }
    return best;
}

}  // namespace

// False where the answer or the halt logit is not finite.
bool Session::decode() {
    const float halt_logit = device_ ? decoded_.halt_logit : own_halt_logit();
    if (!std::isfinite(halt_logit) || !decode_answer()) return false;
    halt_logit_ = halt_logit;  // a step that does not count leaves the one before it standing
    return true;
}

// Row 0 of y decides; it is a register.
float Session::own_halt_logit() const {
    const Model& m = *model_;
    double halt = m.halt_bias;
    for (int i = 0; i < m.spec.hidden_size; ++i) {
        halt += static_cast<double>(y_[i]) * static_cast<double>(m.halt_weight[static_cast<size_t>(i)]);
    }
    return static_cast<float>(halt);
}

bool Session::decode_answer() {
    switch (model_->spec.answer) {
        case Answer::kActions:
            return decode_actions();
        case Answer::kTokens:
            return decode_tokens();
        case Answer::kSlots:
            return decode_slots();
    }
    return false;
}

// actions = y0 + std * W y
bool Session::decode_actions() {
    const Model& m = *model_;
    const size_t dof = static_cast<size_t>(m.spec.dof);
    const size_t count = static_cast<size_t>(answer_rows_) * dof;
    if (device_) {
        for (size_t i = 0; i < count; ++i) actions_[i] = draft_[i] + decoded_.values[i];
    } else {
        linear(m.decoder, answer_rows_of(y_), answer_rows_, actions_);
        for (size_t i = 0; i < count; ++i) actions_[i] = draft_[i] + m.draft.std[i % dof] * actions_[i];
    }
    return all_finite(actions_, count);
}

bool Session::decode_tokens() {
    const Model& m = *model_;
    const size_t V = static_cast<size_t>(m.spec.vocab_size), S = static_cast<size_t>(answer_rows_);
    if (device_) {
        std::copy_n(decoded_.values, S * V, logits_);
    } else {
        linear(m.decoder, answer_rows_of(y_), answer_rows_, logits_);
    }
    for (size_t s = 0; s < S; ++s) chosen_[s] = argmax(logits_ + s * V, m.spec.vocab_size);
    return all_finite(logits_, S * V);
}

// logits = q(y) . key(candidates) / sqrt(D), -inf outside the mask
bool Session::decode_slots() {
    const Model& m = *model_;
    const size_t D = static_cast<size_t>(m.spec.hidden_size), M = static_cast<size_t>(num_candidates_);
    if (device_) {
        std::copy_n(decoded_.values, static_cast<size_t>(answer_rows_) * M, logits_);
    } else {
        linear(m.query, answer_rows_of(y_), answer_rows_, queries_);
        if (M)
            m.kernels.linear(packed_keys_, num_candidates_, m.spec.hidden_size, queries_, D, answer_rows_, logits_, M);
    }
    const float scale = 1.0f / std::sqrt(static_cast<float>(D));
    for (size_t s = 0; s < static_cast<size_t>(answer_rows_); ++s) {
        int best = -1;
        for (size_t i = 0; i < M; ++i) {
            float& logit = logits_[s * M + i];
            logit = mask_[s * M + i] ? logit * scale : -std::numeric_limits<float>::infinity();
            if (!mask_[s * M + i]) continue;
            if (!std::isfinite(logit)) return false;
            if (best < 0 || logit > logits_[s * M + static_cast<size_t>(best)]) best = static_cast<int>(i);
        }
        chosen_[s] = best;
    }
    return true;
}

}  // namespace trm
