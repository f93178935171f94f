// A warpgroup's 8 queries times 8 heads against a page of keys and values in bf16, by wgmma. Lane
// (g, t) of warp w has head g of queries 2 w and 2 w + 1, and of each tile of eight keys or
// dimensions 2 t and 2 t + 1: [4 j + 2 query + i].
#pragma once
#include "attention.cuh"
#include "wgmma.cuh"

namespace haast {

constexpr int SCORES = PAGE_SIZE / 2, SUMS = HEAD_DIM / 2, STEPS = PAGE_SIZE / 16;

struct Running {
  float out[SUMS];
  float top[2], total[2];  // of raw scores; of this lane's keys
};

__device__ __forceinline__ void issue_scores(uint32_t q, uint32_t k, float (&scores)[SCORES]) {
  wgmma_shared_n128<false>(scores, q, k);
#pragma unroll
  for (int j = 1; j < HEAD_DIM / 16; ++j) wgmma_shared_n128<true>(scores, q + 2 * j, k + 2 * j);
  wgmma_commit();
}

__device__ __forceinline__ void issue_values(const uint32_t (&weights)[STEPS][4], uint32_t v,
                                             float (&out)[SUMS]) {
#pragma unroll
  for (int i = 0; i < STEPS; ++i) wgmma_rows_n64(out, weights[i], v + 128 * i);
  wgmma_commit();
}

// The queries at `position` and the one after it see keys up to their own, `window` of them.
__device__ __forceinline__ void mask(float (&scores)[SCORES], int position, int window, int key) {
#pragma unroll
  for (int i = 0; i < SCORES; ++i) {
    const int at = key + i / 4 * 8 + i % 2, query = position + i / 2 % 2;
    if (at > query || at <= query - window) scores[i] = -INFINITY;
  }
}

// Scores -> weights relative to the new maximum, in place; `scale` is what older sums are worth.
__device__ __forceinline__ void weigh(float (&scores)[SCORES], Running& r, float (&scale)[2]) {
#pragma unroll
  for (int query = 0; query < 2; ++query) {
    float top = r.top[query], other = -INFINITY;
#pragma unroll
    for (int i = 2 * query; i < SCORES; i += 4) {
      top = fmaxf(top, scores[i]);
      other = fmaxf(other, scores[i + 1]);
    }
    top = fmaxf(top, other);
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
    const float held = top == -INFINITY ? 0 : top;
    const float base = held * SCORE_SCALE;
    scale[query] = exp2_fast((r.top[query] - held) * SCORE_SCALE);
    r.top[query] = top;
    float sum[2] = {};
#pragma unroll
    for (int i = 2 * query; i < SCORES; i += 4)
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        scores[i + j] = exp2_fast(scores[i + j] * SCORE_SCALE - base);
        sum[j] += scores[i + j];
      }
    r.total[query] = r.total[query] * scale[query] + (sum[0] + sum[1]);
  }
}

__device__ __forceinline__ void pack(const float (&scores)[SCORES], uint32_t (&weights)[STEPS][4]) {
#pragma unroll
  for (int i = 0; i < SCORES / 2; ++i)
    weights[i / 4][i % 4] = pack_bf16(scores[2 * i], scores[2 * i + 1]);
}

// Of four lanes with words 2 t, 2 t + 1 of four pieces each: every lane gets one piece, its own.
__device__ __forceinline__ uint4 exchange(uint32_t a, uint32_t b, uint32_t c, uint32_t d, int t) {
  const bool is_odd = t & 1, is_high = t & 2;
  const uint32_t one = __shfl_xor_sync(~0u, is_odd ? a : b, 1);
  const uint32_t two = __shfl_xor_sync(~0u, is_odd ? c : d, 1);
  if (is_odd)
    a = one, c = two;
  else
    b = one, d = two;
  const uint32_t three = __shfl_xor_sync(~0u, is_high ? a : c, 2);
  const uint32_t four = __shfl_xor_sync(~0u, is_high ? b : d, 2);
  return is_high ? make_uint4(three, four, c, d) : make_uint4(a, b, three, four);
}

}  // namespace haast
