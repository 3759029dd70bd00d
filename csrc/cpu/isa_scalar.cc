// The baseline of the architecture, compiled without flags: runs everywhere.
#define TRM_ISA_NAME "scalar"
#define TRM_ISA_TABLE kernels_scalar
#define TRM_VECTOR_FLOATS 4
#define TRM_TILE_ROWS 4  // 8 accumulators; SSE2 has 16 registers and no FMA, so products need some too
#define TRM_TILE_ROWS_SPLIT 2
#if defined(__aarch64__)
#define TRM_VECTOR_CONSTRAINT "w"
#elif defined(__x86_64__)
#define TRM_VECTOR_CONSTRAINT "x"
#else
#define TRM_VECTOR_CONSTRAINT "m"
#endif
#define TRM_PLAIN
#include "cpu/kernels.inc"
