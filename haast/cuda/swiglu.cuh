#pragma once
#include "ptx.cuh"

namespace haast {

__device__ __forceinline__ float reciprocal_approx(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// NaN stays NaN.
__device__ __forceinline__ float min_or_nan(float a, float b) {
  float y;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
  return y;
}

// min(g, limit) sigmoid(1.702 min(g, limit)) (clamp(u, -limit, limit) + 1)
__device__ __forceinline__ float swiglu(float gate, float up, float limit) {
  constexpr float minus_alpha_log2e = -1.702f * 1.4426950408889634f;
  const float g = min_or_nan(gate, limit);
  const float u = min_or_nan(max_or_nan(up, -limit), limit);
  return g * reciprocal_approx(1.0f + exp2_fast(minus_alpha_log2e * g)) * (u + 1.0f);
}

}  // namespace haast
