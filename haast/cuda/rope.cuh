// The rotation of two halves of a head, as the reference rounds it.
#pragma once
#include "attention.cuh"

namespace haast {

__device__ __forceinline__ float low_of(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float high_of(uint32_t pair) {
  return __uint_as_float(pair & 0xFFFF0000);
}
__device__ __forceinline__ float rounded(float x) { return __bfloat162float(__float2bfloat16(x)); }

// Products and their sum are rounded one by one, as in the reference.
__device__ __forceinline__ void rotate(float a, float b, float cos, float sin, float& x, float& y) {
  cos = rounded(cos), sin = rounded(sin);
  x = __fsub_rn(__fmul_rn(a, cos), __fmul_rn(b, sin));
  y = __fadd_rn(__fmul_rn(b, cos), __fmul_rn(a, sin));
}

// Two pairs of dimensions, packed.
__device__ __forceinline__ void rotate_two(uint32_t& first, uint32_t& second, float2 cos,
                                           float2 sin) {
  float x0, x1, y0, y1;
  rotate(low_of(first), low_of(second), cos.x, sin.x, x0, y0);
  rotate(high_of(first), high_of(second), cos.y, sin.y, x1, y1);
  first = pack_bf16(x0, x1);
  second = pack_bf16(y0, y1);
}

// Eight dimensions of the first half and those that they pair with; cos and sin of the first.
__device__ __forceinline__ void rotate_eight(uint4& first, uint4& second, const float4 (&cos)[2],
                                             const float4 (&sin)[2]) {
  rotate_two(first.x, second.x, make_float2(cos[0].x, cos[0].y), make_float2(sin[0].x, sin[0].y));
  rotate_two(first.y, second.y, make_float2(cos[0].z, cos[0].w), make_float2(sin[0].z, sin[0].w));
  rotate_two(first.z, second.z, make_float2(cos[1].x, cos[1].y), make_float2(sin[1].x, sin[1].y));
  rotate_two(first.w, second.w, make_float2(cos[1].z, cos[1].w), make_float2(sin[1].z, sin[1].w));
}

}  // namespace haast
