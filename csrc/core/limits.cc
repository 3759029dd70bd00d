#include "core/limits.h"

#include <cmath>
#include <limits>

namespace trm {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The float32 value farthest from `from` towards from + move that lies no farther than |move| in exact arithmetic.
float reach(float from, float move) {
    const float target = static_cast<float>(static_cast<double>(from) + static_cast<double>(move));
    const bool beyond = std::fabs(static_cast<double>(target) - static_cast<double>(from)) > std::fabs(move);
    return beyond ? std::nextafterf(target, from) : target;
}

}  // namespace

bool project_limits(float* actions, int T, int dof, const Limits& limits, const float* last_action) {
    bool outside = false;
    for (int d = 0; d < dof; ++d) {
        const float lower = limits.lower ? limits.lower[d] : -kInfinity;
        const float upper = limits.upper ? limits.upper[d] : kInfinity;
        const float velocity = limits.velocity ? limits.velocity[d] : kInfinity;
        float low = last_action ? reach(last_action[d], -velocity) : -kInfinity;
        float high = last_action ? reach(last_action[d], velocity) : kInfinity;
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
    }
    return outside;
}

}  // namespace trm
