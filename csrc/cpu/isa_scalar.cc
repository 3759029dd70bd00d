// The baseline of the architecture, compiled without flags: runs everywhere.
#define TRM_ISA_NAME "scalar"
#define TRM_ISA_TABLE kernels_scalar
#define TRM_VECTOR_FLOATS 4
#define TRM_TILE_ROWS 4  // 8 accumulators; SSE2 has 16 registers and no FMA, so products need some too
#include "cpu/kernels.inc"
