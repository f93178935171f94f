// Rows in the order that groups them by expert.
#include "ptx.cuh"

// x [T, chunks] -> out [R, chunks], a chunk being 16 bytes; row i, a CTA's, is row gather[i] of x.
extern "C" __global__ void __launch_bounds__(192)
    moe_gather(const uint4* x, const int* gather, uint4* out, int chunks) {
  haast::let_next_kernel_start();
  haast::wait_for_previous_kernel();
  const uint4* from = x + static_cast<long>(gather[blockIdx.x]) * chunks;
  uint4* to = out + static_cast<long>(blockIdx.x) * chunks;
#pragma unroll 2
  for (int i = threadIdx.x; i < chunks; i += blockDim.x) to[i] = from[i];
}
