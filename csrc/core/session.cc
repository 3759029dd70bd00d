#include "core/session.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

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

bool all_finite(const float* values, size_t count) {
    uint32_t found = 0;  // set where an exponent is all ones; integer work, so that the loop vectorises
    for (size_t i = 0; i < count; ++i) {
        uint32_t bits;
        std::memcpy(&bits, values + i, sizeof bits);
        found |= static_cast<uint32_t>((bits & 0x7f800000u) == 0x7f800000u);
    }
    return found == 0;
}

Session::Session(std::shared_ptr<const Model> model, const SessionOptions& options)
    : model_(std::move(model)),
      recurrence_(model_->device ? make_device_recurrence(*model_) : make_host_recurrence(*model_, options)) {
    memory_ = make_buffer<std::byte>(lay_out(nullptr).used());
    lay_out(memory_.get());
}

// Takes all memory that calls will ever use, sized for the spec's maxima.
Arena Session::lay_out(std::byte* base) {
    const Spec& spec = model_->spec;
    const int S = spec.answer_rows, M = spec.max_candidates;
    Arena arena(base);
    draft_ = arena.take<float>(area(S, spec.dof));
    actions_ = arena.take<float>(area(S, spec.dof));
    last_action_ = arena.take<float>(static_cast<size_t>(spec.dof));
    fresh_action_ = arena.take<float>(static_cast<size_t>(spec.dof));
    logits_ = arena.take<float>(area(S, std::max(M, spec.vocab_size)));
    choices_ = arena.take<int32_t>(static_cast<size_t>(S));
    chosen_ = arena.take<int32_t>(static_cast<size_t>(S));
    mask_ = arena.take<uint8_t>(area(S, M));
    return arena;
}

// ---- The inputs -----------------------------------------------------------------------------------------------------

const char* Session::begin(const Call& call) {
    const Spec& spec = model_->spec;
    if (const char* name = keep(call)) return name;
    begun_ = true;
    in_flight_ = -1;
    steps_run_ = 0;
    answer_rows_ = call.answer_rows;
    context_rows_ = call.context_rows;
    num_candidates_ = call.num_candidates;
    finite_.x = all_finite(call.x, area(context_rows_, spec.context_size));
    finite_.features = all_finite(call.features, area(answer_rows_, spec.feature_size));
    finite_.slots = all_finite(call.slots, area(answer_rows_, spec.slot_size)) &&
                    all_finite(call.candidates, area(num_candidates_, spec.candidate_size));
    Call own = call;
    if (own.tokens) own.tokens = choices_;
    if (spec.answer == Answer::kSlots) own.choices = choices_;
    if (own.y0) own.y0 = draft_;
    if (own.last_action) own.last_action = last_action_;
    recurrence_->begin(own, finite_);
    return nullptr;
}

bool Session::refresh(const float* x, const float* features) {
    const Spec& spec = model_->spec;
    Finite fresh = finite_;
    if (x) fresh.x = all_finite(x, area(context_rows_, spec.context_size));
    if (features) fresh.features = all_finite(features, area(answer_rows_, spec.feature_size));
    if (!fresh.all()) return false;
    recurrence_->refresh(x, features);
    finite_ = fresh;
    return true;
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

// ---- Steps and their answers ----------------------------------------------------------------------------------------

bool Session::step(const float* x, const float* features) {
    if (!refresh(x, features)) return false;
    const bool actions = model_->spec.answer == Answer::kActions;
    const float halt_logit = recurrence_->step(steps_run_, actions ? actions_ : logits_);
    if (!std::isfinite(halt_logit) || !(actions ? add_draft() : choose())) return false;
    halt_logit_ = halt_logit;  // a step that does not count leaves the one before it standing
    ++steps_run_;
    return true;
}

bool Session::add_draft() {
    const size_t count = area(answer_rows_, model_->spec.dof);
    for (size_t i = 0; i < count; ++i) actions_[i] += draft_[i];
    return all_finite(actions_, count);
}

bool Session::choose() { return model_->spec.answer == Answer::kTokens ? choose_tokens() : choose_slots(); }

bool Session::choose_tokens() {
    const int V = model_->spec.vocab_size;
    for (int s = 0; s < answer_rows_; ++s) chosen_[s] = argmax(logits_ + area(s, V), V);
    return all_finite(logits_, area(answer_rows_, V));
}

// logits = q(y) . key(candidates) / sqrt(D), -inf outside the mask
bool Session::choose_slots() {
    const size_t M = static_cast<size_t>(num_candidates_);
    const float scale = 1.0f / std::sqrt(static_cast<float>(model_->spec.hidden_size));
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

bool Session::write_answer(void* y, bool draft) const {
    const Model& m = *model_;
    if (answer_rows_ == 0) return false;  // y may be null
    if (m.spec.answer != Answer::kActions) {
        std::memcpy(y, draft ? choices_ : chosen_, answer_bytes());
        return false;
    }
    std::memcpy(y, draft ? draft_ : actions_, answer_bytes());
    return project_limits(static_cast<float*>(y), answer_rows_, m.spec.dof, m.limits(),
                          has_last_action_ ? last_action_ : nullptr);
}

const void* Session::step_answer() const {
    return model_->spec.answer == Answer::kActions ? static_cast<const void*>(actions_) : chosen_;
}

size_t Session::answer_bytes() const {
    const size_t columns = static_cast<size_t>(std::max(model_->spec.dof, 1));
    return static_cast<size_t>(answer_rows_) * columns * sizeof(float);
}

size_t Session::logits_bytes() const {
    const int width = model_->spec.answer == Answer::kTokens ? model_->spec.vocab_size : num_candidates_;
    return static_cast<size_t>(answer_rows_) * static_cast<size_t>(width) * sizeof(float);
}

// ---- Calls without waiting ------------------------------------------------------------------------------------------

DeviceAnswer Session::refine_async(const Call& call, int steps, float halt, float* y, void* stream) {
    try {
        const DeviceAnswer answer = device()->refine_async(call, steps, halt, y, stream);
        begun_ = false;
        in_flight_ = steps;
        return answer;
    } catch (const Error& error) {  // where the arguments were wrong, what was under way still is
        if (error.status() != Status::kInvalidArgument && error.status() != Status::kUnsupported) abandon();
        throw;
    } catch (...) {
        abandon();
        throw;
    }
}

// Nothing is under way any more.
void Session::abandon() {
    begun_ = false;
    in_flight_ = -1;
}

}  // namespace trm
