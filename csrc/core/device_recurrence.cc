// The recursion on a device, which runs as many steps at once as are expected; they are handed out one by one.
#include <algorithm>
#include <utility>

#include "core/memory.h"
#include "core/model.h"
#include "core/recurrence.h"

namespace trm {
namespace {

class DeviceRecurrence : public Recurrence {
  public:
    DeviceRecurrence(const Spec& spec, std::unique_ptr<DeviceSession> device)
        : spec_(spec), device_(std::move(device)) {}

    void begin(const Call& call, const Finite&) override {
        const int width = spec_.answer == Answer::kActions  ? spec_.dof
                          : spec_.answer == Answer::kTokens ? spec_.vocab_size
                                                            : call.num_candidates;
        count_ = area(call.answer_rows, width);
        to_come_ = ahead_ = taken_ = 0;
        halt_ = -1;
        device_->begin(call);
    }

    void refresh(const float* x, const float* features) override {
        if (x || features) device_->refresh(x, features);
    }

    void expect(int steps, float halt) override {
        to_come_ = steps;
        halt_ = halt;
    }

    float step(int, float* values) override {
        if (taken_ == ahead_) {
            ahead_ = device_->run(std::clamp(to_come_, 1, DeviceSession::kMaxAhead), halt_);
            taken_ = 0;
            to_come_ -= ahead_;
        }
        const DeviceStep found = device_->step(taken_++);
        std::copy_n(found.values, count_, values);
        return found.halt_logit;
    }

    DeviceSession* device() override { return device_.get(); }

  private:
    const Spec& spec_;
    std::unique_ptr<DeviceSession> device_;
    size_t count_ = 0;                         // values of a step
    int to_come_ = 0, ahead_ = 0, taken_ = 0;  // steps: expected, of the last run, and those used of it
    float halt_ = -1;
};

}  // namespace

std::unique_ptr<Recurrence> make_device_recurrence(const Model& model) {
    return std::make_unique<DeviceRecurrence>(model.spec, model.device->make_session());
}

}  // namespace trm
