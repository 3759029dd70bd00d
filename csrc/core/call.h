// What one call brings, whoever runs it.
#ifndef TRM_EDGE_CORE_CALL_H
#define TRM_EDGE_CORE_CALL_H

#include <cstdint>

namespace trm {

// The inputs of one call, already validated. Pointers that the answer kind does not use are null.
struct Call {
    int answer_rows = 0;                 // T or S
    int context_rows = 0;                // P
    int num_candidates = 0;              // M
    int puzzle_id = 0;                   // tokens
    const float* x = nullptr;            // [P, Dx]
    const int32_t* tokens = nullptr;     // tokens: x [S]
    const float* y0 = nullptr;           // actions: [T, dof], null for the mean action
    const int32_t* choices = nullptr;    // slots: y0 [S], null for all -1
    const float* features = nullptr;     // actions: [T, Df]
    const float* slots = nullptr;        // slots: [S, Ds]
    const float* candidates = nullptr;   // slots: [M, Dc]
    const uint8_t* mask = nullptr;       // slots: [S, M]
    const float* last_action = nullptr;  // actions: [dof] or null
};

}  // namespace trm

#endif
