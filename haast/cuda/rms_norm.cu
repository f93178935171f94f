// Root-mean-square normalisation of bf16 rows, with or without a sum before it. A CTA a row, eight
// elements a thread.
#include "ptx.cuh"

namespace haast {
namespace {

constexpr int MAX_THREADS = 1024;
constexpr int MAX_WARPS = MAX_THREADS / 32;

__device__ __forceinline__ void unpack(uint4 v, float (&x)[8]) {
  const uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = __uint_as_float(pairs[i] << 16);
    x[2 * i + 1] = __uint_as_float(pairs[i] & 0xFFFF0000u);
  }
}

__device__ __forceinline__ uint4 pack(const float (&x)[8]) {
  uint32_t pairs[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
    pairs[i] = *reinterpret_cast<const uint32_t*>(&pair);
  }
  return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

__device__ __forceinline__ float sum_of_lanes(float v) {
#pragma unroll
  for (int step = 16; step; step /= 2) v += __shfl_xor_sync(~0u, v, step);
  return v;
}

// In every thread the sum over all of the CTA, in an order that the size alone decides.
__device__ __forceinline__ float sum_of_threads(float v) {
  __shared__ float warps[MAX_WARPS];
  v = sum_of_lanes(v);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (lane == 0) warps[warp] = v;
  __syncthreads();
  return sum_of_lanes(lane < static_cast<int>(blockDim.x) / 32 ? warps[lane] : 0.0f);
}

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
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < 8; ++i) squares += v[i] * v[i];
  const float mean = sum_of_threads(squares) / static_cast<float>(chunks * 8);
  const float scale = rsqrtf(mean + eps);
  float w[8];
  unpack(scales, w);
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = v[i] * scale * w[i];
  if (is_inside) out[at] = pack(v);
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
