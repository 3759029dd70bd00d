#include "api/validate.h"

#include <cinttypes>
#include <cmath>
#include <cstdio>

#include "api/message.h"

namespace trm::api {
namespace {

static_assert(TRM_MAX_STEPS == kMaxSteps && TRM_MAX_ASYNC_STEPS == DeviceSession::kMaxAhead,
              "the header's numbers and those of core/ are one");

constexpr int64_t kAny = INT64_MIN;  // a dimension that the spec leaves free; no caller's mistake looks like it

struct Shape {
    int ndim;
    int64_t sizes[2];
};
Shape vector_of(int64_t size) { return {1, {size, 0}}; }
Shape matrix_of(int64_t rows, int64_t columns) { return {2, {rows, columns}}; }

// "[16, any]", for messages.
struct ShapeText {
    explicit ShapeText(const Shape& shape) {
        char sizes[2][24] = {"", ""};
        for (int i = 0; i < 2 && i < shape.ndim; ++i) {
            std::snprintf(sizes[i], sizeof sizes[i], shape.sizes[i] == kAny ? "any" : "%" PRId64, shape.sizes[i]);
        }
        if (shape.ndim == 1 || shape.ndim == 2) {
            std::snprintf(text, sizeof text, "[%s%s%s]", sizes[0], shape.ndim == 2 ? ", " : "", sizes[1]);
        } else {
            std::snprintf(text, sizeof text, "%d dimensions", shape.ndim);
        }
    }
    char text[64];
};

const char* dtype_name(int32_t dtype) {
    static const char* const kNames[] = {"none", "float32", "int32", "bool"};
    return dtype >= 0 && dtype <= 3 ? kNames[dtype] : "an unknown dtype";
}

const char* answer_name(Answer answer) {
    static const char* const kNames[] = {"actions", "slots", "tokens"};
    return kNames[static_cast<int>(answer)];
}

bool absent(const trm_tensor& tensor) { return tensor.dtype == TRM_ABSENT; }

trm_status check_aligned(const char* name, const void* data, size_t alignment) {
    if (reinterpret_cast<uintptr_t>(data) % alignment == 0) return TRM_OK;
    return fail(TRM_INVALID_ARGUMENT, "%s: expected data aligned to %zu bytes", name, alignment);
}

trm_status check(const char* name, const trm_tensor& tensor, trm_dtype dtype, const Shape& want) {
    if (absent(tensor)) {
        return fail(TRM_INVALID_ARGUMENT, "%s: expected %s %s, got None", name, ShapeText(want).text,
                    dtype_name(dtype));
    }
    if (tensor.dtype != static_cast<int32_t>(dtype)) {
        return fail(TRM_INVALID_ARGUMENT, "%s: expected dtype %s, got %s", name, dtype_name(dtype),
                    dtype_name(tensor.dtype));
    }
    const Shape given{tensor.ndim, {tensor.shape[0], tensor.shape[1]}};
    bool fits = given.ndim == want.ndim;
    bool empty = false;
    for (int i = 0; fits && i < want.ndim; ++i) {
        fits = given.sizes[i] >= 0 && (want.sizes[i] == kAny || want.sizes[i] == given.sizes[i]);
        empty = empty || given.sizes[i] == 0;
    }
    if (!fits) {
        return fail(TRM_INVALID_ARGUMENT, "%s: expected shape %s, got %s", name, ShapeText(want).text,
                    ShapeText(given).text);
    }
    if (tensor.data == nullptr && !empty) return fail(TRM_INVALID_ARGUMENT, "%s: data is null", name);
    return check_aligned(name, tensor.data, dtype == TRM_BOOL ? 1 : 4);
}

trm_status check_finite(const char* name, const float* values, size_t count) {
    return all_finite(values, count) ? TRM_OK : not_finite(name);
}

trm_status check_at_most(const char* name, const char* field, int64_t most, int64_t rows) {
    if (rows <= most) return TRM_OK;
    return fail(TRM_INVALID_ARGUMENT, "%s: expected at most %s = %" PRId64 " rows, got %" PRId64, name, field, most,
                rows);
}

trm_status check_absent(const char* name, const trm_tensor& tensor, const Spec& spec) {
    if (absent(tensor)) return TRM_OK;
    return fail(TRM_INVALID_ARGUMENT, "%s: this %s head takes none; leave it out", name, answer_name(spec.answer));
}

trm_status check_context(const Spec& spec, const trm_tensor& x, Call* call) {
    if (!absent(x)) {
        if (trm_status s = check("x", x, TRM_F32, matrix_of(kAny, spec.context_size))) return s;
        if (trm_status s = check_at_most("x", "max_context", spec.max_context, x.shape[0])) return s;
        call->x = static_cast<const float*>(x.data);
        call->context_rows = static_cast<int>(x.shape[0]);
    }
    if (spec.mixer == Mixer::kMlpT && call->context_rows != spec.max_context) {
        return fail(TRM_INVALID_ARGUMENT, "x: mlp_t weights fix the context at %d rows (L = %d), got %d (L = %d)",
                    spec.max_context, spec.max_rows(), call->context_rows,
                    spec.max_rows() - spec.max_context + call->context_rows);
    }
    return TRM_OK;
}

trm_status check_last_action(const Spec& spec, const trm_tensor& last_action, Call* call) {
    if (absent(last_action)) return TRM_OK;
    if (spec.answer != Answer::kActions) {
        return fail(TRM_INVALID_ARGUMENT, "last_action: has no meaning for answer=%s; leave it out",
                    answer_name(spec.answer));
    }
    if (trm_status s = check("last_action", last_action, TRM_F32, vector_of(spec.dof))) return s;
    call->last_action = static_cast<const float*>(last_action.data);
    return TRM_OK;
}

trm_status check_features(const Spec& spec, const trm_tensor& features, Call* call) {
    if (spec.feature_size == 0) return check_absent("features", features, spec);
    if (absent(features)) {
        return fail(TRM_INVALID_ARGUMENT, "features: this head needs [%d, %d] float32, got None", spec.answer_rows,
                    spec.feature_size);
    }
    if (trm_status s = check("features", features, TRM_F32, matrix_of(spec.answer_rows, spec.feature_size))) return s;
    call->features = static_cast<const float*>(features.data);
    return TRM_OK;
}

trm_status check_actions(const Spec& spec, const trm_inputs& in, Call* call) {
    call->answer_rows = spec.answer_rows;
    if (trm_status s = check_context(spec, in.x, call)) return s;
    if (trm_status s = check_features(spec, in.features, call)) return s;
    if (absent(in.y0)) {
        if (spec.draft == Draft::kOptional) return TRM_OK;
        return fail(TRM_INVALID_ARGUMENT,
                    "y0: this head was trained with a draft and needs one (spec draft = required), got None");
    }
    if (trm_status s = check("y0", in.y0, TRM_F32, matrix_of(spec.answer_rows, spec.dof))) return s;
    call->y0 = static_cast<const float*>(in.y0.data);
    return TRM_OK;
}

trm_status check_choices(const Call& call) {
    for (int s = 0; s < call.answer_rows; ++s) {
        const int32_t choice = call.choices[s];
        const bool allowed = choice >= 0 && choice < call.num_candidates &&
                             call.mask[static_cast<size_t>(s) * static_cast<size_t>(call.num_candidates) +
                                       static_cast<size_t>(choice)] != 0;
        if (choice != -1 && !allowed) {
            return fail(TRM_INVALID_ARGUMENT,
                        "y0: slot %d: candidate %d is outside its mask; expected -1 or an allowed one", s, choice);
        }
    }
    return TRM_OK;
}

trm_status check_slots(const Spec& spec, const trm_inputs& in, Call* call) {
    if (trm_status s = check_context(spec, in.x, call)) return s;
    if (trm_status s = check("slots", in.slots, TRM_F32, matrix_of(kAny, spec.slot_size))) return s;
    if (trm_status s = check_at_most("slots", "answer_rows", spec.answer_rows, in.slots.shape[0])) return s;
    if (trm_status s = check("candidates", in.candidates, TRM_F32, matrix_of(kAny, spec.candidate_size))) return s;
    if (trm_status s = check_at_most("candidates", "max_candidates", spec.max_candidates, in.candidates.shape[0]))
        return s;
    const int64_t S = in.slots.shape[0], M = in.candidates.shape[0];
    if (trm_status s = check("mask", in.mask, TRM_BOOL, matrix_of(S, M))) return s;
    call->answer_rows = static_cast<int>(S);
    call->num_candidates = static_cast<int>(M);
    call->slots = static_cast<const float*>(in.slots.data);
    call->candidates = static_cast<const float*>(in.candidates.data);
    call->mask = static_cast<const uint8_t*>(in.mask.data);
    if (absent(in.y0)) return TRM_OK;
    if (trm_status s = check("y0", in.y0, TRM_I32, vector_of(S))) return s;
    call->choices = static_cast<const int32_t*>(in.y0.data);
    return check_choices(*call);
}

trm_status check_tokens(const Spec& spec, const trm_inputs& in, Call* call) {
    if (trm_status s = check("x", in.x, TRM_I32, vector_of(spec.answer_rows))) return s;
    call->answer_rows = spec.answer_rows;
    call->tokens = static_cast<const int32_t*>(in.x.data);
    for (int i = 0; i < spec.answer_rows; ++i) {
        if (call->tokens[i] < 0 || call->tokens[i] >= spec.vocab_size) {
            return fail(TRM_INVALID_ARGUMENT, "x: expected tokens in 0..%d, got %d at position %d", spec.vocab_size - 1,
                        call->tokens[i], i);
        }
    }
    if (in.puzzle_id < 0 || in.puzzle_id >= spec.num_puzzles) {
        return fail(TRM_INVALID_ARGUMENT, "puzzle_id: expected 0..%d, got %d", spec.num_puzzles - 1, in.puzzle_id);
    }
    call->puzzle_id = in.puzzle_id;
    return TRM_OK;
}

trm_status check_unused(const Spec& spec, const trm_inputs& in) {
    const bool slots = spec.answer == Answer::kSlots;
    if (spec.answer == Answer::kTokens) {
        if (trm_status s = check_absent("y0", in.y0, spec)) return s;
    } else if (in.puzzle_id != 0) {
        return fail(TRM_INVALID_ARGUMENT, "puzzle_id: this %s head takes none; leave it out", answer_name(spec.answer));
    }
    if (spec.answer != Answer::kActions) {
        if (trm_status s = check_absent("features", in.features, spec)) return s;
    }
    if (!slots) {
        if (trm_status s = check_absent("slots", in.slots, spec)) return s;
        if (trm_status s = check_absent("candidates", in.candidates, spec)) return s;
        if (trm_status s = check_absent("mask", in.mask, spec)) return s;
    }
    return TRM_OK;
}

trm_status check_buffer(const char* name, const void* data, size_t bytes, size_t need, bool required) {
    if (data == nullptr) {
        return required && need ? fail(TRM_INVALID_ARGUMENT, "%s: expected a buffer of %zu bytes, got null", name, need)
                                : TRM_OK;
    }
    if (bytes >= need) return check_aligned(name, data, 4);
    return fail(TRM_INVALID_ARGUMENT, "%s: expected at least %zu bytes, got %zu", name, need, bytes);
}

}  // namespace

trm_status validate_inputs(const Spec& spec, const trm_inputs* inputs, Call* call) noexcept {
    if (inputs == nullptr || inputs->struct_size != sizeof(trm_inputs)) {
        return fail(TRM_INVALID_ARGUMENT, "inputs: expected a trm_inputs started with TRM_INPUTS_INIT");
    }
    if (trm_status s = check_unused(spec, *inputs)) return s;
    if (trm_status s = check_last_action(spec, inputs->last_action, call)) return s;
    switch (spec.answer) {
        case Answer::kActions:
            return check_actions(spec, *inputs, call);
        case Answer::kSlots:
            return check_slots(spec, *inputs, call);
        case Answer::kTokens:
            return check_tokens(spec, *inputs, call);
    }
    return TRM_INTERNAL;
}

trm_status not_finite(const char* name) noexcept {
    return fail(TRM_INVALID_ARGUMENT, "%s: expected finite values, found NaN or Inf", name);
}

trm_status validate_steps(const Spec& spec, int32_t steps, float halt) noexcept {
    const int least = spec.answer == Answer::kTokens ? 1 : 0;
    if (steps < least || steps > TRM_MAX_STEPS) {
        return fail(TRM_INVALID_ARGUMENT, "steps: expected %d..%d for %s, got %d", least, TRM_MAX_STEPS,
                    answer_name(spec.answer), steps);
    }
    if (halt != TRM_NEVER_HALT && !(halt >= 0.0f && halt <= 1.0f)) {
        return fail(TRM_INVALID_ARGUMENT, "halt: expected TRM_NEVER_HALT or a confidence in 0..1, got %g",
                    static_cast<double>(halt));
    }
    return TRM_OK;
}

trm_status validate_async(int32_t steps, const float* y) noexcept {
    if (steps > TRM_MAX_ASYNC_STEPS)
        return fail(TRM_INVALID_ARGUMENT, "steps: expected 0..%d in a call that does not wait, got %d",
                    TRM_MAX_ASYNC_STEPS, steps);
    return check_aligned("y", y, sizeof(float));
}

trm_status validate_refresh(const Session& session, const trm_tensor* x, const trm_tensor* features,
                            const trm_tensor* last_action, Call* call) noexcept {
    const Spec& spec = session.model().spec;
    if (x != nullptr && !absent(*x)) {
        if (spec.answer == Answer::kTokens) {
            return fail(TRM_INVALID_ARGUMENT, "x: the tokens of a running recursion cannot change; call begin again");
        }
        if (trm_status s = check_context(spec, *x, call)) return s;
        if (call->context_rows != session.context_rows()) {
            return fail(TRM_INVALID_ARGUMENT, "x: begin was given %d rows and a step must keep them, got %d",
                        session.context_rows(), call->context_rows);
        }
    }
    if (features != nullptr && !absent(*features)) {
        if (trm_status s = check_features(spec, *features, call)) return s;
    }
    if (last_action != nullptr) {
        if (trm_status s = check_last_action(spec, *last_action, call)) return s;
    }
    return TRM_OK;
}

trm_status validate_outputs(const Spec& spec, int answer_rows, int num_candidates, int32_t steps,
                            const trm_outputs* outputs) noexcept {
    if (outputs == nullptr || outputs->struct_size != sizeof(trm_outputs)) {
        return fail(TRM_INVALID_ARGUMENT, "outputs: expected a trm_outputs started with TRM_OUTPUTS_INIT");
    }
    const size_t rows = static_cast<size_t>(answer_rows), count = static_cast<size_t>(steps);
    const size_t answer = rows * static_cast<size_t>(spec.dof > 0 ? spec.dof : 1) * sizeof(float);
    const size_t logits =
        rows * static_cast<size_t>(spec.answer == Answer::kTokens ? spec.vocab_size : num_candidates) * sizeof(float);
    const trm_outputs& out = *outputs;
    if (trm_status s = check_buffer("y", out.y, out.y_bytes, answer, true)) return s;
    if (trm_status s =
            check_buffer("halt_logits", out.halt_logits, out.halt_logits_bytes, count * sizeof(float), false)) {
        return s;
    }
    if (trm_status s = check_buffer("trajectory", out.trajectory, out.trajectory_bytes, count * answer, false))
        return s;
    return check_buffer("logits", out.logits, out.logits_bytes, count * logits, false);
}

trm_status validate_limits(const float* actions, int64_t T, int64_t dof, const float* lower, const float* upper,
                           const float* velocity, const float* last_action) noexcept {
    const size_t width = static_cast<size_t>(dof);
    if (actions == nullptr) return fail(TRM_INVALID_ARGUMENT, "actions: data is null");
    const struct {
        const char* name;
        const float* data;
    } arrays[] = {
        {"actions", actions}, {"lower", lower}, {"upper", upper}, {"velocity", velocity}, {"last_action", last_action}};
    for (const auto& array : arrays) {
        if (trm_status s = check_aligned(array.name, array.data, alignof(float))) return s;
    }
    if (trm_status s = check_finite("actions", actions, static_cast<size_t>(T) * width)) return s;
    if (last_action != nullptr) {
        if (trm_status s = check_finite("last_action", last_action, width)) return s;
    }
    for (size_t d = 0; d < width; ++d) {
        const float least = lower ? lower[d] : -INFINITY, most = upper ? upper[d] : INFINITY;
        if (!(least <= most) || least == INFINITY || most == -INFINITY) {
            return fail(TRM_INVALID_ARGUMENT, "lower, upper: expected lower <= upper in dimension %zu, got %g and %g",
                        d, static_cast<double>(least), static_cast<double>(most));
        }
        if (velocity != nullptr && !(velocity[d] > 0)) {
            return fail(TRM_INVALID_ARGUMENT, "velocity: expected > 0 in dimension %zu, got %g", d,
                        static_cast<double>(velocity[d]));
        }
    }
    return TRM_OK;
}

}  // namespace trm::api
