// Limits of actions: bounds and velocity per tick, guaranteed by a projection rather than learned.
#ifndef TRM_EDGE_CORE_LIMITS_H
#define TRM_EDGE_CORE_LIMITS_H

#include <cmath>

#include "core/host_device.h"

namespace trm {

// Per dimension of an action; null means that there is no such limit.
struct Limits {
    const float* lower = nullptr;
    const float* upper = nullptr;
    const float* velocity = nullptr;
};

// The float32 value farthest from `from` towards from + move that lies no farther than |move| in exact arithmetic.
TRM_HD float reach(float from, float move) {
    if (move == HUGE_VALF || move == -HUGE_VALF) return move;
    const double a = static_cast<double>(from), b = static_cast<double>(move), sum = a + b;
    const float target = static_cast<float>(sum);
    // from + move is sum + rest exactly (TwoSum). target - sum is exact too, and 0 or larger than rest, so that the
    // sign of `past` is right.
    const double of_move = sum - a, rest = (a - (sum - of_move)) + (b - of_move);
    const double past = (static_cast<double>(target) - sum) - rest;
    return (move > 0 ? past > 0 : past < 0) ? nextafterf(target, from) : target;
}

// Project dimension d of actions [T, dof] in place; last_action [dof] may be null. Returns true where an action had to
// stay outside the bounds because the one before was farther outside than one velocity step. O(T), idempotent.
TRM_HD bool project_dimension(float* actions, int T, int dof, int d, const Limits& limits, const float* last_action) {
    bool outside = false;
    const float lower = limits.lower ? limits.lower[d] : -HUGE_VALF;
    const float upper = limits.upper ? limits.upper[d] : HUGE_VALF;
    const float velocity = limits.velocity ? limits.velocity[d] : HUGE_VALF;
    float low = last_action ? reach(last_action[d], -velocity) : -HUGE_VALF;
    float high = last_action ? reach(last_action[d], velocity) : HUGE_VALF;
    for (int t = 0; t < T; ++t) {
        float& action = actions[t * dof + d];
        if (low > upper || high < lower) {  // the bounds are out of reach: approach them as fast as allowed
            action = low > upper ? low : high;
            outside = true;
        } else {
            const float least = low > lower ? low : lower;
            const float most = high < upper ? high : upper;
            action = action < least ? least : (action > most ? most : action);
        }
        low = reach(action, -velocity);
        high = reach(action, velocity);
    }
    return outside;
}

// The same for all dimensions.
bool project_limits(float* actions, int T, int dof, const Limits& limits, const float* last_action);

}  // namespace trm

#endif
