// The instances of the fused kernels. Each element has a source of its own (fused_bf16.cu, ...), as they take long to
// compile.
#ifndef TRM_EDGE_CUDA_INSTANCES_H
#define TRM_EDGE_CUDA_INSTANCES_H

#include "cuda/params.cuh"

namespace trm::cuda {

struct Kernels {
    int hidden, head;  // the sizes that these are for
    int fragment;      // bytes of weights that a lane takes of a chunk of k
    void (*persistent)(Params);
    void (*start)(Params);
    void (*wide)(Params, Moment);
    void (*narrow)(Params, Moment);
    void (*finish)(Params);
};

// Those of a size; null where there are none.
const Kernels* bf16_kernels(int hidden, int head);
const Kernels* fp16_kernels(int hidden, int head);
const Kernels* w8a16_kernels(int hidden, int head);

}  // namespace trm::cuda

#endif
