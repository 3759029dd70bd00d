// The recursion: what this engine is for (Tiny Recursive Model, arXiv 2510.04871).
#include <algorithm>

#include "core/session.h"

namespace trm {

void Session::recur() {
    const Spec& spec = model_->spec;
    const size_t count = static_cast<size_t>(rows()) * static_cast<size_t>(spec.hidden_size);
    for (int h = 0; h < spec.h_cycles; ++h) {
        for (int l = 0; l < spec.l_cycles; ++l) {
            for (size_t i = 0; i < count; ++i) z_[i] += y_[i] + e_[i];
            evaluate_net(z_);  // z = net(z + (y + e))
        }
        for (size_t i = 0; i < count; ++i) y_[i] += z_[i];
        evaluate_net(y_);  // y = net(y + z)
    }
}

// The same on a device, which runs as many steps at once as are expected; then they are handed out one by one.
void Session::recur_on_device() {
    if (steps_taken_ == steps_ahead_) {
        steps_ahead_ = device_->run(std::clamp(steps_to_come_, 1, DeviceSession::kMaxAhead), halt_);
        steps_taken_ = 0;
        steps_to_come_ -= steps_ahead_;
    }
    decoded_ = device_->step(steps_taken_++);
}

DeviceAnswer Session::refine_async(const Call& call, int steps, float halt, float* y, void* stream) {
    try {
        const DeviceAnswer answer = device_->refine_async(call, steps, halt, y, stream);
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

// states = net(states), by all threads of the session.
void Session::evaluate_net(float* states) {
    struct Work {
        const Model& model;
        NetCall call;
    };
    const Model& m = *model_;
    Work work{m,
              {m.net.get(), m.rope.get(), position_, rows(), m.input_scale(steps_run_), states, scratch_,
               team_.barrier(), 0, team_.threads()}};
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
