// What a build with -DHAAST_DELAYS adds: CTAs and warps that come late, so that those which touch
// memory too early meet them. For tests; nothing that is shipped has it.
#pragma once
#include "clock.cuh"

namespace haast {

__device__ __forceinline__ uint32_t hash_of(uint32_t x) {
  x = (x ^ x >> 16) * 0x7feb352du;
  x = (x ^ x >> 15) * 0x846ca68bu;
  return x ^ x >> 16;
}

__device__ __forceinline__ uint32_t clock_now() {
  uint32_t ticks;
  asm volatile("mov.u32 %0, %%clock;" : "=r"(ticks));
  return ticks;
}

// Lanes that are together stay so.
__device__ __forceinline__ void sleep_some(uint32_t ns) {
  const uint32_t mask = __activemask();
  ns = __shfl_sync(mask, ns, __ffs(mask) - 1);
  if (ns) __nanosleep(ns);
  __syncwarp(mask);
}

// One CTA in eight sleeps for up to 16 us, another one each 8 us; one warp in eight for up to 4 us.
__device__ __forceinline__ void delay_some() {
  const uint32_t cta = blockIdx.x + 1021 * (blockIdx.y + 1021 * blockIdx.z);
  uint32_t sm;
  asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
  const uint32_t of_cta = hash_of(cta ^ static_cast<uint32_t>(nanoseconds() >> 13) << 12);
  const uint32_t of_warp = hash_of(clock_now() ^ sm << 24 ^ threadIdx.x / 32 << 16 ^ cta);
  sleep_some((of_cta % 8 ? 0 : of_cta >> 18) + (of_warp % 8 ? 0 : of_warp >> 20));
}

// All CTAs that come by in one of four spans of 16 us. Not some CTAs each time: the next kernel starts
// when the last one lets it, so it would never start early.
__device__ __forceinline__ void delay_all() {
  const uint32_t span = hash_of(static_cast<uint32_t>(nanoseconds() >> 14));
  sleep_some(span % 4 ? 0 : span >> 20);
}

}  // namespace haast
