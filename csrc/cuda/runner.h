// A way to run the recursion on the GPU: all that session.cu needs to know of one.
#ifndef TRM_EDGE_CUDA_RUNNER_H
#define TRM_EDGE_CUDA_RUNNER_H

#include <cuda_runtime_api.h>

#include <memory>

#include "core/device.h"

namespace trm::cuda {

struct DeviceProperties {
    int major, minor;
    int multiprocessors;
    int shared_memory;  // bytes that one block may ask for
    int l2_cache;       // bytes
    bool cooperative;
};

// One run: where the rows are on the device, and what is to be done.
struct Run {
    const float *e, *y, *z;  // [rows, D]
    float* out;              // [steps, rows, D]: y after each step
    int answer_rows, context_rows;
    int steps;
    bool begin;    // start from y and z; else go on
    bool refresh;  // e is new (also at the begin)
    float halt;    // the persistent kernel stops after the first step with this confidence; negative: never
    int* ran;      // where it says how many steps there were
};

// The halt head, for a way that stops early: weights [D] and bias [1].
struct HaltHead {
    const float *weight, *bias;
};

// Weights of one way on the device, shared by sessions.
class Weights {
  public:
    virtual ~Weights() = default;
};

class Runner {
  public:
    virtual ~Runner() = default;
    virtual void enqueue(const Run& run, cudaStream_t stream) = 0;
    // Whether it looks at `halt` and writes `ran`; else all steps are run.
    virtual bool stops_early() const { return false; }
};

}  // namespace trm::cuda

#endif
