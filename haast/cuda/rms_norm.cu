// Root-mean-square normalisation of bf16 rows, with or without a sum before it. A CTA a row, eight
// elements a thread.
#include "row.cuh"

namespace haast {
namespace {

// A row is `chunks` of 16 bytes.
template <bool HAS_DELTA>
__device__ __forceinline__ void normalise(const uint4* x, const uint4* delta, const uint4* weight,
                                          uint4* sum, uint4* out, float eps, int chunks) {
  const int chunk = threadIdx.x;
  const bool is_inside = chunk < chunks;
  const long at = static_cast<long>(blockIdx.x) * chunks + chunk;
  uint4 scales = make_uint4(0, 0, 0, 0), mine = scales, other = scales;
  if (is_inside) scales = weight[chunk];  // before the wait: no kernel writes weights
  let_next_kernel_start();
  wait_for_previous_kernel();
  if (is_inside) mine = x[at];
  if (HAS_DELTA && is_inside) other = delta[at];
  float v[8];
  unpack(mine, v);
  if (HAS_DELTA) {
    float d[8];
    unpack(other, d);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] += d[i];
    mine = pack(v);
    if (is_inside) sum[at] = mine;
    unpack(mine, v);
  }
  const uint4 normed = normalised(v, scales, eps, chunks);
  if (is_inside) out[at] = normed;
}

}  // namespace
}  // namespace haast

extern "C" __global__ void __launch_bounds__(haast::MAX_THREADS)
    rms_norm_bf16(const uint4* x, const uint4* weight, uint4* out, float eps, int chunks) {
  haast::normalise<false>(x, nullptr, weight, nullptr, out, eps, chunks);
}

extern "C" __global__ void __launch_bounds__(haast::MAX_THREADS)
    add_rms_norm_bf16(const uint4* x, const uint4* delta, const uint4* weight, uint4* sum,
                      uint4* out, float eps, int chunks) {
  haast::normalise<true>(x, delta, weight, sum, out, eps, chunks);
}
