// The experts with the largest logits.
#pragma once
#include "float_key.cuh"

namespace haast {

// One warp, one token of up to 32 LANE_EXPERTS experts, expert i * 32 + lane in keys[i], 0 where there
// is none: lane c gets choice c (expert and key), largest first, ties to the lower expert.
template <int LANE_EXPERTS>
__device__ __forceinline__ void choose_of_keys(uint32_t (&keys)[LANE_EXPERTS], int choices, int lane,
                                               int& expert, uint32_t& key) {
  for (int c = 0; c < choices; ++c) {
    uint32_t best = 0;
#pragma unroll
    for (int i = 0; i < LANE_EXPERTS; ++i) best = max(best, keys[i]);
    best = __reduce_max_sync(~0u, best);
    int first = LANE_EXPERTS * 32;
#pragma unroll
    for (int i = LANE_EXPERTS - 1; i >= 0; --i)
      if (keys[i] == best) first = i * 32 + lane;
    first = __reduce_min_sync(~0u, first);
#pragma unroll
    for (int i = 0; i < LANE_EXPERTS; ++i)
      if (first == i * 32 + lane) keys[i] = 0;
    if (lane == c) {
      expert = first;
      key = best;
    }
  }
}

// The same of bf16 logits in one look each: keys are those of `key_of_bf16`, and are used up.
template <int LANE_EXPERTS, int CHOICES>
__device__ __forceinline__ uint32_t choose_of_bf16_keys(uint32_t (&keys)[LANE_EXPERTS], int lane) {
  uint32_t own = 0;
#pragma unroll
  for (int c = 0; c < CHOICES; ++c) {
    uint32_t best = 0;
#pragma unroll
    for (int i = 0; i < LANE_EXPERTS; ++i) best = max(best, keys[i]);
    best = __reduce_max_sync(~0u, best);
#pragma unroll
    for (int i = 0; i < LANE_EXPERTS; ++i)
      if (keys[i] == best) keys[i] = 0;
    if (lane == c) own = best;
  }
  return own;
}

// In the order of logits, and of equal ones the lower expert first; never 0.
__device__ __forceinline__ uint32_t key_of_bf16(float logit, int expert) {
  return (key_of(logit) & 0xFFFF0000u) | (0xFFFFu - expert);
}
__device__ __forceinline__ int expert_of_key(uint32_t key) { return 0xFFFF - (key & 0xFFFF); }
// As `key_of` has the logit, which it was before its lower half said the expert.
__device__ __forceinline__ uint32_t key_without_expert(uint32_t key) {
  return key & 0x80000000u ? key & 0xFFFF0000u : key | 0xFFFFu;
}

// Softmax over the choices: the weight of this lane's.
__device__ __forceinline__ float choice_weight(uint32_t key, int choices, int lane) {
  const float top = value_of(__shfl_sync(~0u, key, 0));
  const float share = lane < choices ? __expf(value_of(key) - top) : 0.0f;
  float sum = share;
  for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(~0u, sum, step);
  return share / sum;
}

}  // namespace haast
