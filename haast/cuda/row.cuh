// A CTA that holds a row of bf16, eight elements a thread.
#pragma once
#include "lanes.cuh"
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

// In every thread the sum over all of the CTA, in an order that the size alone decides.
__device__ __forceinline__ float sum_of_threads(float v) {
  __shared__ float warps[MAX_WARPS];
  v = sum_of_lanes(v);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (lane == 0) warps[warp] = v;
  __syncthreads();
  return sum_of_lanes(lane < static_cast<int>(blockDim.x) / 32 ? warps[lane] : 0.0f);
}

// Eight elements of a row over its root mean square, times their weights; all threads of the CTA
// take part, those beyond the row with zeros. A row is `chunks` of 16 bytes.
__device__ __forceinline__ uint4 normalised(float (&v)[8], uint4 weights, float eps, int chunks) {
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < 8; ++i) squares += v[i] * v[i];
  const float mean = sum_of_threads(squares) / static_cast<float>(chunks * 8);
  const float scale = rsqrtf(mean + eps);
  float w[8];
  unpack(weights, w);
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = v[i] * scale * w[i];
  return pack(v);
}

}  // namespace
}  // namespace haast
