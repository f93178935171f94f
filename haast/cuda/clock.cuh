// The time that all SMs share.
#pragma once
#include <cstdint>

namespace haast {

__device__ __forceinline__ uint64_t nanoseconds() {
  uint64_t ns;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(ns));
  return ns;
}

}  // namespace haast
