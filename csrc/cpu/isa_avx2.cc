// AVX2 and FMA.
#define TRM_ISA_NAME "avx2"
#define TRM_ISA_TABLE kernels_avx2
#define TRM_VECTOR_FLOATS 8
#define TRM_TILE_ROWS 6  // 12 accumulators of 16 registers
#define TRM_TILE_ROWS_SPLIT 4
#define TRM_VECTOR_CONSTRAINT "x"
#include "cpu/kernels.inc"
