#include "core/limits.h"

namespace trm {

bool project_limits(float* actions, int T, int dof, const Limits& limits, const float* last_action) {
    bool outside = false;
    for (int d = 0; d < dof; ++d) outside |= project_dimension(actions, T, dof, d, limits, last_action);
    return outside;
}

}  // namespace trm
