// Code that a GPU compiles as well.
#ifndef TRM_EDGE_CORE_HOST_DEVICE_H
#define TRM_EDGE_CORE_HOST_DEVICE_H

#ifdef __CUDACC__
#define TRM_HD __host__ __device__ inline
#else
#define TRM_HD inline
#endif

#endif
