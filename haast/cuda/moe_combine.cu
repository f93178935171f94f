// Adds a token's terms: choice by choice, and of each choice the parts of K.
#include "ptx.cuh"

namespace haast {
namespace {

constexpr int TERMS = 8;  // loaded before any is added

__device__ __forceinline__ void add(float4& sum, float4 v) {
  sum.x += v.x;
  sum.y += v.y;
  sum.z += v.z;
  sum.w += v.w;
}

}  // namespace
}  // namespace haast

// slots [parts, tokens * choices, hidden] fp32 -> out [tokens, hidden] bf16; hidden a multiple of 4.
extern "C" __global__ void __launch_bounds__(256)
    moe_combine(const float4* slots, uint2* out, int tokens, int choices, int hidden, int parts) {
  using namespace haast;
  let_next_kernel_start();
  const int quads = hidden / 4;
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  wait_for_previous_kernel();
  if (at >= tokens * quads) return;
  const int token = at / quads, column = at % quads, terms = choices * parts;
  const long part_stride = static_cast<long>(tokens) * choices * quads;
  const float4* first = slots + static_cast<long>(token) * choices * quads + column;
  float4 sum = make_float4(0, 0, 0, 0);
  for (int base = 0; base < terms; base += TERMS) {
    float4 v[TERMS];
#pragma unroll
    for (int i = 0; i < TERMS; ++i) {
      const int term = base + i;
      if (term < terms) v[i] = __ldcs(first + term / parts * quads + term % parts * part_stride);
    }
#pragma unroll
    for (int i = 0; i < TERMS; ++i)
      if (base + i < terms) add(sum, v[i]);
  }
  const __nv_bfloat162 low = __floats2bfloat162_rn(sum.x, sum.y);
  const __nv_bfloat162 high = __floats2bfloat162_rn(sum.z, sum.w);
  out[at] = make_uint2(*reinterpret_cast<const uint32_t*>(&low),
                       *reinterpret_cast<const uint32_t*>(&high));
}
