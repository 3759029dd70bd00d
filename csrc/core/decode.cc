// From the answer rows of y to what a step says of the answer, and whether it is right.
#include "core/host_recurrence.h"

namespace trm {

void HostRecurrence::decode(float* values) {
    const Model& m = model_;
    const float* rows = answer_rows_of(y_);
    if (m.spec.answer == Answer::kSlots) {
        linear(m.query, rows, answer_rows_, queries_);
        if (num_candidates_)
            m.kernels.linear(packed_keys_, num_candidates_, m.spec.hidden_size, queries_,
                             static_cast<size_t>(m.spec.hidden_size), answer_rows_, values,
                             static_cast<size_t>(num_candidates_));
        return;
    }
    linear(m.decoder, rows, answer_rows_, values);
    if (m.spec.answer == Answer::kActions) {
        const size_t dof = static_cast<size_t>(m.spec.dof), count = area(answer_rows_, m.spec.dof);
        for (size_t i = 0; i < count; ++i) values[i] *= m.draft.std[i % dof];
    }
}

// Row 0 of y decides; it is a register.
float HostRecurrence::halt_logit() const {
    double halt = model_.halt_bias;
    for (int i = 0; i < model_.spec.hidden_size; ++i) {
        halt += static_cast<double>(y_[i]) * static_cast<double>(model_.halt_weight[static_cast<size_t>(i)]);
    }
    return static_cast<float>(halt);
}

}  // namespace trm
