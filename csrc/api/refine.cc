// The calls of a control loop: refine, begin, step, project_limits.
#include <time.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "api/handles.h"
#include "api/message.h"
#include "api/validate.h"

namespace trm::api {
namespace {

double now_us() {
    timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);  // through the vDSO: no system call
    return static_cast<double>(t.tv_sec) * 1e6 + static_cast<double>(t.tv_nsec) * 1e-3;
}

// Marks a session as in use, without a lock; taken() is false where another call has it.
class Hold {
  public:
    explicit Hold(trm_session* session)
        : session_(session), taken_(!session->busy.test_and_set(std::memory_order_acquire)) {}
    ~Hold() {
        if (taken_) session_->busy.clear(std::memory_order_release);
    }
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    bool taken() const { return taken_; }

  private:
    trm_session* session_;
    bool taken_;
};

// Hold a session for a call that starts anew. What was begun before ends even where that call is then refused: a step
// would go on with an older draft and report success.
class FreshHold : public Hold {
  public:
    explicit FreshHold(trm_session* session) : Hold(session) {
        if (taken()) session->core.end();
    }
};

// Run the body of such a call; nothing is under way where it failed.
template <typename Body>
trm_status start_anew(Session& session, Body&& body) {
    const trm_status status = guarded(body);
    if (status < 0) session.end();
    return status;
}

trm_status busy() { return fail(TRM_BUSY, "session: in use by another call; give each thread a session of its own"); }

float confidence(float halt_logit) { return 1.0f / (1.0f + std::exp(-halt_logit)); }

// Copy what the last step said into row `k` of the per-step outputs.
void record_step(const Session& session, size_t k, trm_outputs* out) {
    const auto row = [k](void* base, size_t bytes) { return static_cast<char*>(base) + k * bytes; };
    if (out->halt_logits) out->halt_logits[k] = session.halt_logit();
    if (out->trajectory) {
        std::memcpy(row(out->trajectory, session.answer_bytes()), session.step_answer(), session.answer_bytes());
    }
    if (out->logits) {
        std::memcpy(row(out->logits, session.logits_bytes()), session.step_logits(), session.logits_bytes());
    }
}

// Write the answer, which is the draft where no step ran or a value was not finite; that goes before limits, and limits
// before an early halt.
trm_status finish(const Session& session, trm_status status, bool stepped, double start, trm_outputs* out) {
    const bool outside = session.write_answer(out->y, status == TRM_NONFINITE || !stepped);
    out->steps_run = session.steps_run();
    out->confidence = stepped ? confidence(session.halt_logit()) : std::numeric_limits<float>::quiet_NaN();
    out->duration_us = now_us() - start;
    return outside && status != TRM_NONFINITE ? TRM_OUTSIDE_LIMITS : status;
}

trm_status refine(Session& session, const Call& call, int32_t steps, float halt, double start, trm_outputs* out) {
    if (const char* name = session.begin(call)) return not_finite(name);
    session.expect(steps, halt);
    trm_status status = TRM_OK;
    if (call.answer_rows == 0) steps = 0;
    if (!session.inputs_finite()) {
        status = TRM_NONFINITE;
        steps = 0;
    }
    for (int32_t k = 0; k < steps && status == TRM_OK; ++k) {
        if (!session.step()) {
            status = TRM_NONFINITE;
            break;
        }
        record_step(session, static_cast<size_t>(k), out);
        if (halt >= 0 && k + 1 < steps && confidence(session.halt_logit()) >= halt) status = TRM_HALTED;
    }
    session.end();
    return finish(session, status, session.steps_run() > 0, start, out);
}

}  // namespace
}  // namespace trm::api

using namespace trm::api;

extern "C" {

trm_status trm_refine(trm_session* session, const trm_inputs* inputs, int32_t steps, float halt, trm_outputs* outputs) {
    const double start = now_us();
    if (session == nullptr) return fail(TRM_INVALID_ARGUMENT, "session: expected a session, got null");
    const FreshHold hold(session);
    if (!hold.taken()) return busy();
    const trm::Spec& spec = session->core.model().spec;
    trm::Call call;
    if (trm_status s = validate_inputs(spec, inputs, &call)) return s;
    if (trm_status s = validate_steps(spec, steps, halt)) return s;
    if (trm_status s = validate_outputs(spec, call.answer_rows, call.num_candidates, steps, outputs)) return s;
    return start_anew(session->core, [&] { return refine(session->core, call, steps, halt, start, outputs); });
}

trm_status trm_begin(trm_session* session, const trm_inputs* inputs) {
    if (session == nullptr) return fail(TRM_INVALID_ARGUMENT, "session: expected a session, got null");
    const FreshHold hold(session);
    if (!hold.taken()) return busy();
    trm::Call call;
    if (trm_status s = validate_inputs(session->core.model().spec, inputs, &call)) return s;
    return start_anew(session->core, [&] {
        const char* name = session->core.begin(call);
        return name ? not_finite(name) : TRM_OK;
    });
}

trm_status trm_end(trm_session* session) {
    if (session == nullptr) return fail(TRM_INVALID_ARGUMENT, "session: expected a session, got null");
    return FreshHold(session).taken() ? TRM_OK : busy();
}

trm_status trm_step(trm_session* session, const trm_tensor* x, const trm_tensor* features,
                    const trm_tensor* last_action, trm_outputs* outputs) {
    const double start = now_us();
    if (session == nullptr) return fail(TRM_INVALID_ARGUMENT, "session: expected a session, got null");
    const Hold hold(session);
    if (!hold.taken()) return busy();
    trm::Session& core = session->core;
    if (!core.begun()) return fail(TRM_NOT_BEGUN, "step: no recursion is under way; begin one first");
    trm::Call fresh;
    if (trm_status s = validate_refresh(core, x, features, last_action, &fresh)) return s;
    if (trm_status s = validate_outputs(core.model().spec, core.answer_rows(), core.num_candidates(), 1, outputs))
        return s;
    if (!core.keep_last_action(fresh.last_action)) return not_finite("last_action");
    if (core.answer_rows() == 0) return finish(core, TRM_OK, false, start, outputs);
    return guarded([&] {
        const bool stepped = core.step(fresh.x, fresh.features);
        if (stepped) record_step(core, 0, outputs);
        return finish(core, stepped ? TRM_OK : TRM_NONFINITE, stepped, start, outputs);
    });
}

trm_status trm_refine_async(trm_session* session, const trm_inputs* inputs, int32_t steps, float halt, float* y,
                            void* stream, trm_device_answer* answer) {
    if (session == nullptr) return fail(TRM_INVALID_ARGUMENT, "session: expected a session, got null");
    const FreshHold hold(session);
    if (!hold.taken()) return busy();
    if (answer == nullptr) return fail(TRM_INVALID_ARGUMENT, "answer: expected a trm_device_answer, got null");
    if (answer->struct_size != sizeof(trm_device_answer))
        return fail(TRM_INVALID_ARGUMENT, "answer: expected a trm_device_answer started with TRM_DEVICE_ANSWER_INIT");
    const trm::Spec& spec = session->core.model().spec;
    if (session->core.device() == nullptr || spec.answer != trm::Answer::kActions)
        return fail(TRM_UNSUPPORTED, "trm_refine_async: for action heads of backend cuda; call trm_refine");
    trm::Call call;
    if (trm_status s = validate_inputs(spec, inputs, &call)) return s;
    if (trm_status s = validate_steps(spec, steps, halt)) return s;
    if (trm_status s = validate_async(steps, y)) return s;
    return guarded([&] {
        const trm::DeviceAnswer found = session->core.refine_async(call, steps, halt, y, stream);
        *answer = {sizeof *answer, found.y, found.halt_logits, found.trajectory};
        return TRM_OK;
    });
}

trm_status trm_wait(trm_session* session, trm_outputs* outputs) {
    const double start = now_us();
    if (session == nullptr) return fail(TRM_INVALID_ARGUMENT, "session: expected a session, got null");
    const Hold hold(session);
    if (!hold.taken()) return busy();
    const int steps = session->core.steps_in_flight();
    if (steps < 0) return fail(TRM_NOT_BEGUN, "trm_wait: no call is under way; call trm_refine_async first");
    const trm::Spec& spec = session->core.model().spec;
    if (trm_status s = validate_outputs(spec, spec.answer_rows, 0, steps, outputs)) return s;
    return guarded([&] {
        const trm::DeviceOutcome outcome = session->core.device()->wait(
            {static_cast<float*>(outputs->y), outputs->halt_logits, static_cast<float*>(outputs->trajectory)});
        if (outcome.status == trm::Status::kNotBegun)
            return fail(TRM_NOT_BEGUN, "trm_wait: the graph that the call was captured into has not been launched yet");
        outputs->steps_run = outcome.steps_run;
        outputs->confidence = outcome.confidence;
        outputs->duration_us = now_us() - start;
        return static_cast<trm_status>(outcome.status);
    });
}

void* trm_session_stream(trm_session* session) {
    return session && session->core.device() ? session->core.device()->stream() : nullptr;
}

trm_status trm_order_streams(trm_session* session, void* before, void* after) {
    if (session == nullptr) return fail(TRM_INVALID_ARGUMENT, "session: expected a session, got null");
    if (session->core.device() == nullptr)
        return fail(TRM_UNSUPPORTED, "trm_order_streams: for sessions of backend cuda");
    return guarded([&] {
        session->core.device()->order(before, after);
        return TRM_OK;
    });
}

trm_status trm_project_limits(float* actions, int64_t T, int64_t dof, const float* lower, const float* upper,
                              const float* velocity, const float* last_action) {
    constexpr int64_t kMost = 1 << 20, kMostValues = int64_t{1} << 31;
    if (T < 0 || dof < 0 || T > kMost || dof > kMost) {
        return fail(TRM_INVALID_ARGUMENT, "actions: expected a shape in 0..%d, got [%lld, %lld]",
                    static_cast<int>(kMost), static_cast<long long>(T), static_cast<long long>(dof));
    }
    if (T * dof > kMostValues) {
        return fail(TRM_INVALID_ARGUMENT, "actions: expected T * dof of at most %lld, got %lld * %lld",
                    static_cast<long long>(kMostValues), static_cast<long long>(T), static_cast<long long>(dof));
    }
    if (T * dof == 0) return TRM_OK;
    if (trm_status s = validate_limits(actions, T, dof, lower, upper, velocity, last_action)) return s;
    const trm::Limits limits{lower, upper, velocity};
    const bool outside = trm::project_limits(actions, static_cast<int>(T), static_cast<int>(dof), limits, last_action);
    return outside ? TRM_OUTSIDE_LIMITS : TRM_OK;
}

}  // extern "C"
