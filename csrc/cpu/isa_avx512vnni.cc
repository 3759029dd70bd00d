// AVX-512 with VNNI: byte products.
#define TRM_ISA_NAME "avx512vnni"
#define TRM_ISA_TABLE kernels_avx512vnni
#define TRM_VECTOR_FLOATS 16
#define TRM_TILE_ROWS 8  // 16 accumulators of 32 registers
#define TRM_TILE_ROWS_SPLIT 8
#define TRM_VECTOR_CONSTRAINT "v"
#include "cpu/kernels.inc"
