// Asynchronous copies into shared memory: made when they are waited for, and not before.
#ifndef TRM_EDGE_TESTS_EMULATED_GPU_CUDA_PIPELINE_H
#define TRM_EDGE_TESTS_EMULATED_GPU_CUDA_PIPELINE_H

#include "../grid.h"

inline void __pipeline_memcpy_async(void* to, const void* from, size_t bytes) { emulated::copy_later(to, from, bytes); }
inline void __pipeline_commit() {}
inline void __pipeline_wait_prior(int) { emulated::wait_for_copies(); }

#endif
