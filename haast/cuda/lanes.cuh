// Sums over a warp.
#pragma once

namespace haast {

template <class V>
__device__ __forceinline__ V sum_of_lanes(V v) {
#pragma unroll
  for (int step = 16; step; step /= 2) v += __shfl_xor_sync(~0u, v, step);
  return v;
}

}  // namespace haast
