// What core/ asks of a device that runs the recursion in place of the processor. A device implements it outside core/.
#ifndef TRM_EDGE_CORE_DEVICE_H
#define TRM_EDGE_CORE_DEVICE_H

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/call.h"
#include "core/kernels.h"
#include "core/quantization.h"
#include "core/spec.h"
#include "core/status.h"

namespace trm {

// What a step decodes to. Valid until the next run.
struct DeviceStep {
    const float* values;  // actions: what is added to the draft [T, dof]; tokens: logits [S, V]; slots: q . key [S, M]
    float halt_logit;
};

// Where the answer of a call without waiting is, in the device's memory; or is to be copied to.
struct DeviceAnswer {
    float* y;            // [T, dof], inside the limits
    float* halt_logits;  // [steps]
    float* trajectory;   // [steps, T, dof], before projection
};

// How such a call went.
struct DeviceOutcome {
    Status status;
    int steps_run;
    float confidence;  // NaN where no step ran
};

// One session on a device, from the arrays of a call to what its steps decode to. Functions throw Error with
// DEVICE_ERROR where the device fails.
class DeviceSession {
  public:
    static constexpr int kMaxAhead = 16;  // steps of one run

    virtual ~DeviceSession() = default;

    // Encode a call. Its arrays are the host's, and copied.
    virtual void begin(const Call& call) = 0;
    // Encode fresh context or features, where not null; y and z are kept.
    virtual void refresh(const float* x, const float* features) = 0;
    // Run 1..kMaxAhead further steps and wait for them; fewer where a way that can stop early finds one whose
    // confidence reaches `halt` (negative: never). Returns how many.
    virtual int run(int steps, float halt) = 0;
    // Of step i = 0, 1, ... of the last run.
    virtual DeviceStep step(int i) const = 0;

    // All of a call for actions with up to kMaxAhead steps, without waiting, on the caller's stream (null: our own).
    // Arrays may be the device's or the host's; the latter are copied before this returns. `y`: of the device, or null.
    // What is not finite in y0 or last_action counts as such in any input: the answer is the draft, with the mean
    // action for what is not finite there.
    virtual DeviceAnswer refine_async(const Call& call, int steps, float halt, float* y, void* stream) = 0;
    // Wait for the last of them, copy its answer to the host, where not null, and say how it went.
    virtual DeviceOutcome wait(const DeviceAnswer& to) = 0;
    // Our own stream.
    virtual void* stream() = 0;
    // Let what follows on stream `after` wait for all that is on stream `before` now.
    virtual void order(void* before, void* after) = 0;
};

// The weights of one model on a device, shared by its sessions.
class DeviceModel {
  public:
    virtual ~DeviceModel() = default;
    virtual std::unique_ptr<DeviceSession> make_session() const = 0;
    // The device and the way it runs, e.g. "sm_90 fused".
    virtual const char* name() const = 0;
};

using Tensors = std::map<std::string, std::vector<float>>;

// Puts a model on a device; throws Error with UNSUPPORTED or DEVICE_ERROR.
using MakeDevice = std::shared_ptr<const DeviceModel> (*)(const Spec& spec, const NetShape& shape,
                                                          const Quantization& quantization, const Tensors& weights);

}  // namespace trm

#endif
