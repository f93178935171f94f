// Rows in the order that groups them by expert.
#include "ptx.cuh"

// x [T, chunks] -> out [rows, chunks], a chunk being 16 bytes; row i is row gather[i] of x.
extern "C" __global__ void __launch_bounds__(256)
    moe_gather(const uint4* x, const int* gather, uint4* out, int rows, int chunks) {
  haast::let_next_kernel_start();
  haast::wait_for_previous_kernel();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int row = blockIdx.x * 8 + warp;  // a warp each
  if (row >= rows) return;
  const uint4* from = x + static_cast<long>(gather[row]) * chunks;
  uint4* to = out + static_cast<long>(row) * chunks;
  #pragma unroll 4
  for (int i = lane; i < chunks; i += 32) to[i] = from[i];
}
