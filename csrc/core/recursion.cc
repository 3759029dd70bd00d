// The recursion: what this engine is for (Tiny Recursive Model, arXiv 2510.04871).
#include "core/session.h"

namespace trm {

void Session::recur() {
    const Model& m = *model_;
    const size_t count = static_cast<size_t>(rows()) * static_cast<size_t>(m.spec.hidden_size);
    const auto net = [&](float* h) {
        m.kernels.net(m.shape, m.net.get(), m.rope.get(), position_, rows(), h, scratch_);
    };
    for (int h = 0; h < m.spec.h_cycles; ++h) {
        for (int l = 0; l < m.spec.l_cycles; ++l) {
            for (size_t i = 0; i < count; ++i) z_[i] += y_[i] + e_[i];
            net(z_);  // z = net(z + (y + e))
        }
        for (size_t i = 0; i < count; ++i) y_[i] += z_[i];
        net(y_);  // y = net(y + z)
    }
}

}  // namespace trm
