// The 8-bit format of a KV cache: e4m3 with NaN and without infinity, no scale.
#pragma once
#include <cuda_fp16.h>

#include "attention.cuh"

namespace haast {

constexpr int E4M3_ROW = HEAD_DIM;                  // bytes of a position's head
constexpr int E4M3_BYTES = PAGE_SIZE * E4M3_ROW;  // of one head's page

// Two of them as bf16, exactly; NaN stays NaN.
__device__ __forceinline__ uint32_t bf16_of_e4m3(uint32_t pair) {
  uint32_t halves;
  asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(halves) : "h"(static_cast<uint16_t>(pair)));
  const float2 both = __half22float2(*reinterpret_cast<const __half2*>(&halves));
  return pack_bf16(both.x, both.y);
}

// The nearest ones to two bf16, ties to even; what is beyond +-448 becomes that.
__device__ __forceinline__ uint32_t e4m3_of_bf16(uint32_t pair) {
  uint16_t both;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;"
      : "=h"(both)
      : "f"(__uint_as_float(pair & 0xFFFF0000)), "f"(__uint_as_float(pair << 16)));
  return both;
}

// Where 16 dimensions of a row begin in a page that was copied with the 64-byte swizzle.
__device__ __forceinline__ uint32_t e4m3_piece(int row, int piece) {
  return row * E4M3_ROW + ((piece ^ row / 2 % 4) << 4);
}

}  // namespace haast
