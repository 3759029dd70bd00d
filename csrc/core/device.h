// What core/ asks of a device that runs the recursion in place of the processor. A device implements it outside core/.
#ifndef TRM_EDGE_CORE_DEVICE_H
#define TRM_EDGE_CORE_DEVICE_H

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/kernels.h"
#include "core/quantization.h"
#include "core/spec.h"

namespace trm {

// The recursion of one session. Functions throw Error with DEVICE_ERROR where the device fails.
class DeviceSession {
  public:
    static constexpr int kMaxAhead = 16;  // steps of one run

    virtual ~DeviceSession() = default;

    // Where the host writes e and the first y and z, [max_rows, D] each.
    virtual float* e() = 0;
    virtual float* y() = 0;
    virtual float* z() = 0;

    // What the next run starts from: e, y and z as written, with so many rows of each part.
    virtual void begin(int answer_rows, int context_rows) = 0;
    // e has been written anew; y and z are kept.
    virtual void refresh() = 0;
    // Run 1..kMaxAhead further steps, and wait for them.
    virtual void run(int steps) = 0;
    // y [rows, D] after step i = 0, 1, ... of the last run. Valid until the next run.
    virtual const float* y_after(int i) const = 0;
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

// Puts the blocks' weights on a device; throws Error with UNSUPPORTED or DEVICE_ERROR.
using MakeDevice = std::shared_ptr<const DeviceModel> (*)(const Spec& spec, const NetShape& shape,
                                                          const Quantization& quantization, const Tensors& weights);

}  // namespace trm

#endif
