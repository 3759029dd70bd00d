// The recursion: what this engine is for (Tiny Recursive Model, arXiv 2510.04871).
#include "core/host_recurrence.h"

namespace trm {

void HostRecurrence::recur(int k) {
    const Spec& spec = model_.spec;
    const size_t count = static_cast<size_t>(rows()) * static_cast<size_t>(spec.hidden_size);
    for (int h = 0; h < spec.h_cycles; ++h) {
        for (int l = 0; l < spec.l_cycles; ++l) {
            for (size_t i = 0; i < count; ++i) z_[i] += y_[i] + e_[i];
            evaluate_net(z_, k);  // z = net(z + (y + e))
        }
        for (size_t i = 0; i < count; ++i) y_[i] += z_[i];
        evaluate_net(y_, k);  // y = net(y + z)
    }
}

// states = net(states), by all threads of the session.
void HostRecurrence::evaluate_net(float* states, int k) {
    struct Work {
        const Model& model;
        NetCall call;
    };
    const Model& m = model_;
    Work work{m,
              {m.net.get(), m.rope.get(), position_, rows(), m.input_scale(k), states, scratch_, team_.barrier(), 0,
               team_.threads()}};
    team_.run(
        [](void* context, int thread) {
            const Work& shared = *static_cast<const Work*>(context);
            NetCall own = shared.call;
            own.thread = thread;
            shared.model.kernels.net(shared.model.shape, own);
        },
        &work);
}

}  // namespace trm
