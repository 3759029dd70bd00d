// AVX-512 with VNNI and BF16: byte and bfloat16 products.
#define TRM_ISA_NAME "avx512bf16"
#define TRM_ISA_TABLE kernels_avx512bf16
#define TRM_VECTOR_FLOATS 16
#define TRM_TILE_ROWS 8  // 16 accumulators of 32 registers
#define TRM_TILE_ROWS_SPLIT 8
#define TRM_VECTOR_CONSTRAINT "v"
#include "cpu/kernels.inc"
