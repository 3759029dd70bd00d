// 64-bit Arm with the dot product of bytes.
#define TRM_ISA_NAME "neondot"
#define TRM_ISA_TABLE kernels_neondot
#define TRM_VECTOR_FLOATS 4
#define TRM_TILE_ROWS 8  // 16 accumulators of 32 registers
#define TRM_TILE_ROWS_SPLIT 6
#define TRM_VECTOR_CONSTRAINT "w"
#include "cpu/kernels.inc"
