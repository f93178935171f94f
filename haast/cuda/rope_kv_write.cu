// Rotates queries and keys, puts keys and values in their slots.
#include "e4m3.cuh"
#include "rope.cuh"

namespace haast {
namespace {

constexpr int PARTS = 4;  // of a head: 8 dimensions of its first half and the 8 that they pair with

__device__ __forceinline__ uint2 e4m3_of(uint4 x) {
  return make_uint2(e4m3_of_bf16(x.x) | e4m3_of_bf16(x.y) << 16,
                    e4m3_of_bf16(x.z) | e4m3_of_bf16(x.w) << 16);
}

// CachePiece: 8 dimensions, uint4 of bf16 or uint2 of e4m3.
template <class CachePiece>
__device__ __forceinline__ void write(const uint4* qkv, const int* positions, const float4* cos,
                                      const float4* sin, CachePiece* k_cache, CachePiece* v_cache,
                                      const int* slots, uint4* q, int num_tokens, int num_heads,
                                      int num_kv_heads) {
  let_next_kernel_start();
  const int all_heads = num_heads + 2 * num_kv_heads;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const int part = static_cast<int>(at % PARTS);
  const int64_t row = at / PARTS;
  const int token = static_cast<int>(row / all_heads), head = static_cast<int>(row % all_heads);
  wait_for_previous_kernel();
  if (token >= num_tokens) return;
  constexpr int PIECES = HEAD_DIM / 8;
  uint4 first = qkv[row * PIECES + part], second = qkv[row * PIECES + part + PARTS];
  const int kv_head = head - num_heads;
  if (kv_head < num_kv_heads) {
    const int64_t angle = (static_cast<int64_t>(positions[token]) * PARTS + part) * 2;
    const float4 c[2] = {cos[angle], cos[angle + 1]}, s[2] = {sin[angle], sin[angle + 1]};
    rotate_eight(first, second, c, s);
  }
  if (kv_head < 0) {
    uint4* to = q + (static_cast<int64_t>(token) * num_heads + head) * PIECES;
    to[part] = first;
    to[part + PARTS] = second;
    return;
  }
  const int slot = slots[token];
  if (slot < 0) return;
  const bool is_k = kv_head < num_kv_heads;
  const int64_t line = static_cast<int64_t>(slot / PAGE_SIZE) * num_kv_heads + kv_head -
                       (is_k ? 0 : num_kv_heads);
  CachePiece* to = (is_k ? k_cache : v_cache) + (line * PAGE_SIZE + slot % PAGE_SIZE) * PIECES;
  if constexpr (sizeof(CachePiece) == sizeof(uint4)) {
    to[part] = first;
    to[part + PARTS] = second;
  } else {
    to[part] = e4m3_of(first);
    to[part + PARTS] = e4m3_of(second);
  }
}

}  // namespace
}  // namespace haast

// qkv [T, Hq + 2 Hkv, 64] bf16 -> q [T, Hq, 64]; caches [num_pages, Hkv, 128, 64]; four threads a head.
extern "C" __global__ void __launch_bounds__(256)
    rope_kv_write(const uint4* qkv, const int* positions, const float4* cos, const float4* sin,
                  uint4* k_cache, uint4* v_cache, const int* slots, uint4* q, int num_tokens,
                  int num_heads, int num_kv_heads) {
  haast::write(qkv, positions, cos, sin, k_cache, v_cache, slots, q, num_tokens, num_heads,
               num_kv_heads);
}

// The same with caches in e4m3.
extern "C" __global__ void __launch_bounds__(256)
    rope_kv_write_fp8(const uint4* qkv, const int* positions, const float4* cos, const float4* sin,
                      uint2* k_cache, uint2* v_cache, const int* slots, uint4* q, int num_tokens,
                      int num_heads, int num_kv_heads) {
  haast::write(qkv, positions, cos, sin, k_cache, v_cache, slots, q, num_tokens, num_heads,
               num_kv_heads);
}
