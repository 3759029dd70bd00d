#include "core/session.h"

#include <algorithm>
#include <utility>

namespace trm {

Session::Session(std::shared_ptr<const Model> model, const SessionOptions& options)
    : model_(std::move(model)),
      device_(model_->device ? model_->device->make_session() : nullptr),
      team_(options.threads, options.park_after_us, options.pin) {
    memory_ = make_buffer<std::byte>(lay_out(nullptr).used());
    lay_out(memory_.get());
}

// Takes all memory that calls will ever use, sized for the spec's maxima.
Arena Session::lay_out(std::byte* base) {
    const Model& m = *model_;
    const Spec& spec = m.spec;
    const int D = spec.hidden_size, L = spec.max_rows(), S = spec.answer_rows, M = spec.max_candidates;
    const size_t staged = std::max({area(spec.max_context, spec.context_size), area(S, spec.feature_size),
                                    area(S, spec.dof), area(S, spec.slot_size), area(M, spec.candidate_size)});
    Arena arena(base);
    const auto own = [&](size_t count) { return device_ ? nullptr : arena.take<float>(count); };
    e_ = own(area(L, D));
    y_ = own(area(L, D));
    z_ = own(area(L, D));
    scratch_ = own(m.kernels.scratch_floats(m.shape, L, team_.threads()));
    staged_ = own(staged);
    draft_ = arena.take<float>(area(S, spec.dof));
    actions_ = arena.take<float>(area(S, spec.dof));
    last_action_ = arena.take<float>(static_cast<size_t>(spec.dof));
    fresh_action_ = arena.take<float>(static_cast<size_t>(spec.dof));
    keys_ = own(area(M, D));
    packed_keys_ = arena.take<Word>(M && !device_ ? m.kernels.linear_words(M, D) : 0);
    queries_ = own(M ? area(S, D) : 0);
    logits_ = arena.take<float>(area(S, std::max(M, spec.vocab_size)));
    choices_ = arena.take<int32_t>(static_cast<size_t>(S));
    chosen_ = arena.take<int32_t>(static_cast<size_t>(S));
    position_ = arena.take<int32_t>(static_cast<size_t>(L));
    mask_ = arena.take<uint8_t>(area(S, M));
    return arena;
}

// out[count, n] = in[count, k] * w^T, both dense.
void Session::linear(const Linear& layer, const float* in, int count, float* out) const {
    model_->kernels.linear(layer.packed.get(), layer.n, layer.k, in, static_cast<size_t>(layer.k), count, out,
                           static_cast<size_t>(layer.n));
}

bool Session::step(const float* x, const float* features) {
    if (!refresh(x, features)) return false;
    if (device_) {
        recur_on_device();
    } else {
        recur();
    }
    if (!decode()) return false;
    ++steps_run_;
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

float* Session::answer_rows_of(float* states) const {
    return states + static_cast<size_t>(model_->spec.registers) * static_cast<size_t>(model_->spec.hidden_size);
}

float* Session::context_rows_of(float* states) const {
    return answer_rows_of(states) + static_cast<size_t>(answer_rows_) * static_cast<size_t>(model_->spec.hidden_size);
}

}  // namespace trm
