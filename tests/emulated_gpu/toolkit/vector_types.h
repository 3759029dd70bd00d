// CUDA's small vectors, for a processor.
#ifndef TRM_EDGE_TESTS_EMULATED_GPU_VECTOR_TYPES_H
#define TRM_EDGE_TESTS_EMULATED_GPU_VECTOR_TYPES_H

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#endif
