// From the structs of the C ABI to a call that core/ can trust.
#ifndef TRM_EDGE_API_VALIDATE_H
#define TRM_EDGE_API_VALIDATE_H

#include "core/session.h"
#include "trm_edge/trm_edge.h"

namespace trm::api {

// Each returns TRM_OK, or TRM_INVALID_ARGUMENT with a message that names the field, what it should be and what it is.
// Floats are not looked at: they may be a device's, and those that have to be finite are checked as core/ copies them.
trm_status validate_inputs(const Spec& spec, const trm_inputs* inputs, Call* call) noexcept;
// What it is to have found a NaN or Inf in the input of that name: TRM_INVALID_ARGUMENT.
trm_status not_finite(const char* name) noexcept;
trm_status validate_steps(const Spec& spec, int32_t steps, float halt) noexcept;
// What trm_refine_async asks beyond validate_inputs and validate_steps.
trm_status validate_async(int32_t steps, const float* y) noexcept;
trm_status validate_refresh(const Session& session, const trm_tensor* x, const trm_tensor* features,
                            const trm_tensor* last_action, Call* call) noexcept;
trm_status validate_outputs(const Spec& spec, int answer_rows, int num_candidates, int32_t steps,
                            const trm_outputs* outputs) noexcept;
trm_status validate_limits(const float* actions, int64_t T, int64_t dof, const float* lower, const float* upper,
                           const float* velocity, const float* last_action) noexcept;

}  // namespace trm::api

#endif
