// Integers in the order of floats.
#pragma once
#include <cstdint>

namespace haast {

constexpr uint32_t KEY_OF_MINUS_INF = 0x007FFFFF;

// Larger floats have larger keys, NaN the largest; 0 is below every number, and -0 equals 0.
__device__ __forceinline__ uint32_t key_of(float v) {
  if (v != v) return ~0u;
  const uint32_t bits = __float_as_uint(v == 0.0f ? 0.0f : v);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

__device__ __forceinline__ float value_of(uint32_t key) {
  return __uint_as_float(key & 0x80000000u ? key & 0x7FFFFFFFu : ~key);
}

}  // namespace haast
