// What a session asks of whatever runs its recursion: the processor or a device.
#ifndef TRM_EDGE_CORE_RECURRENCE_H
#define TRM_EDGE_CORE_RECURRENCE_H

#include <memory>

#include "core/call.h"
#include "core/device.h"
#include "core/team.h"

namespace trm {

struct Model;

struct SessionOptions {
    int threads = 1;
    int64_t park_after_us = Team::kNeverPark;
    bool pin = false;
};

// Which inputs of a call hold neither NaN nor Inf. No step comes before fresh ones have taken the place of others.
struct Finite {
    bool x = true, features = true, slots = true;
    bool all() const { return x && features && slots; }
};

// One recursion at a time, from the arrays of a call to what its steps decode to.
class Recurrence {
  public:
    virtual ~Recurrence() = default;

    // Encode a call: the rows injected at every latent update, and the first y and z. Its draft and its indices are the
    // session's own copies, finite and in range; `choices` are there for all slots.
    virtual void begin(const Call& call, const Finite& finite) = 0;
    // Encode fresh context or features, where not null; y and z are kept.
    virtual void refresh(const float* x, const float* features) = 0;
    // See Session::expect.
    virtual void expect(int steps, float halt) = 0;
    // Run step k = 0, 1, ... and write what it decodes to: for actions what is added to the draft [T, dof], for tokens
    // logits [S, V], for slots q . key [S, M]. Returns the halt logit.
    virtual float step(int k, float* values) = 0;
    // The device that it runs on; null: the processor.
    virtual DeviceSession* device() { return nullptr; }
};

// Throw std::bad_alloc, and std::system_error where the system grants no more threads.
std::unique_ptr<Recurrence> make_host_recurrence(const Model& model, const SessionOptions& options);
std::unique_ptr<Recurrence> make_device_recurrence(const Model& model);

}  // namespace trm

#endif
