// Limits of actions: bounds and velocity per tick, guaranteed by a projection rather than learned.
#ifndef TRM_EDGE_CORE_LIMITS_H
#define TRM_EDGE_CORE_LIMITS_H

namespace trm {

// Per dimension of an action; null means that there is no such limit.
struct Limits {
    const float* lower = nullptr;
    const float* upper = nullptr;
    const float* velocity = nullptr;
};

// Project actions [T, dof] in place; last_action [dof] may be null. Returns true where an action had to stay outside
// the bounds because the one before was farther outside than one velocity step. O(T * dof), idempotent.
bool project_limits(float* actions, int T, int dof, const Limits& limits, const float* last_action);

}  // namespace trm

#endif
