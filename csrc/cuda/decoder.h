// From y after every step to answers, logits and halt logits, as core/decode.cc has it; and what a call comes to.
#ifndef TRM_EDGE_CUDA_DECODER_H
#define TRM_EDGE_CUDA_DECODER_H

#include "core/limits.h"
#include "cuda/runner.h"

namespace trm::cuda {

// out [steps, rows, n] = base + scale * (in w^T), and the halt logits of row 0 of every step.
struct Products {
    int steps = 0;
    const int* ran = nullptr;  // how many of them there are; null: all

    const float* in = nullptr;  // step s begins at in + s * in_stride
    size_t in_stride = 0;
    int rows = 0, n = 0, k = 0;
    const float* w = nullptr;      // [n, k]
    const float* base = nullptr;   // [n] or [rows, n]; null: 0
    int base_stride = 0;           // 0 or n
    const float* scale = nullptr;  // [n]; null: 1
    float* out = nullptr;

    const float* halt_in = nullptr;  // [k] of step s at halt_in + s * halt_stride
    size_t halt_stride = 0;
    const float *halt_weight = nullptr, *halt_bias = nullptr;
    float* halt_logits = nullptr;  // [steps]
    int* steps_run = nullptr;      // becomes what `ran` says
};

void multiply(const Products& products, cudaStream_t stream);

// What a call for actions comes to, by the rules of api/refine.cc.
struct Conclusion {
    int steps = 0, rows = 0, dof = 0;
    float halt = -1;
    const int* ran = nullptr;            // how many steps there were; null: all
    const float* answers = nullptr;      // [steps, rows, dof]
    const float* halt_logits = nullptr;  // [steps]
    const float* draft = nullptr;        // [rows, dof]; null: the mean action
    const float* mean = nullptr;         // [dof]
    const float* last_action = nullptr;  // [dof] or null; may be part of y
    float* kept_action = nullptr;        // [dof], for a copy of it
    Limits limits;
    unsigned* nonfinite = nullptr;     // whether an input was; made ready for the next call
    float* y = nullptr;                // [rows, dof]
    DeviceOutcome* outcome = nullptr;  // where the host reads it
};

void conclude(const Conclusion& conclusion, cudaStream_t stream);

}  // namespace trm::cuda

#endif
