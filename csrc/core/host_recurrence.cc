#include "core/host_recurrence.h"

#include <algorithm>

namespace trm {

std::unique_ptr<Recurrence> make_host_recurrence(const Model& model, const SessionOptions& options) {
    return std::make_unique<HostRecurrence>(model, options);
}

HostRecurrence::HostRecurrence(const Model& model, const SessionOptions& options)
    : model_(model), team_(options.threads, options.park_after_us, options.pin) {
    memory_ = make_buffer<std::byte>(lay_out(nullptr).used());
    lay_out(memory_.get());
}

// Takes all memory that calls will ever use, sized for the spec's maxima.
Arena HostRecurrence::lay_out(std::byte* base) {
    const Spec& spec = model_.spec;
    const int D = spec.hidden_size, L = spec.max_rows(), S = spec.answer_rows, M = spec.max_candidates;
    const size_t staged = std::max({area(spec.max_context, spec.context_size), area(S, spec.feature_size),
                                    area(S, spec.dof), area(S, spec.slot_size), area(M, spec.candidate_size)});
    Arena arena(base);
    e_ = arena.take<float>(area(L, D));
    y_ = arena.take<float>(area(L, D));
    z_ = arena.take<float>(area(L, D));
    scratch_ = arena.take<float>(model_.kernels.scratch_floats(model_.shape, L, team_.threads()));
    staged_ = arena.take<float>(staged);
    keys_ = arena.take<float>(area(M, D));
    packed_keys_ = arena.take<Word>(M ? model_.kernels.linear_words(M, D) : 0);
    queries_ = arena.take<float>(M ? area(S, D) : 0);
    position_ = arena.take<int32_t>(static_cast<size_t>(L));
    return arena;
}

float* HostRecurrence::answer_rows_of(float* states) const {
    return states + area(model_.spec.registers, model_.spec.hidden_size);
}

float* HostRecurrence::context_rows_of(float* states) const {
    return answer_rows_of(states) + area(answer_rows_, model_.spec.hidden_size);
}

// out[count, n] = in[count, k] * w^T, both dense.
void HostRecurrence::linear(const Linear& layer, const float* in, int count, float* out) const {
    model_.kernels.linear(layer.packed.get(), layer.n, layer.k, in, static_cast<size_t>(layer.k), count, out,
                          static_cast<size_t>(layer.n));
}

float HostRecurrence::step(int k, float* values) {
    recur(k);
    decode(values);
    return halt_logit();
}

}  // namespace trm
