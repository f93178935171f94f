// Joins the splits of attention_decode, in their order, with the sinks.
#include "attention.cuh"
#include "lanes.cuh"

namespace haast {
namespace {

constexpr int WARPS = 8;
constexpr int UNROLL = 8;

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int step = 16; step; step /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, step));
  return x;
}

}  // namespace
}  // namespace haast

// part [B, Hq, part_splits, 64] fp32, part_lse [B, Hq, part_splits] -> out [B, Hq, 64] bf16, a warp a
// head. Heads of one split have their result already.
extern "C" __global__ void __launch_bounds__(32 * haast::WARPS)
    attention_merge(const float* part, const float* part_lse, const int* splits_of,
                    const haast::bf16* sinks, haast::bf16* out, int num_requests, int num_heads,
                    int part_splits) {
  using namespace haast;
  let_next_kernel_start();
  const int lane = threadIdx.x % 32;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * WARPS + threadIdx.x / 32;
  const int request = static_cast<int>(row / num_heads), head = static_cast<int>(row % num_heads);
  wait_for_previous_kernel();
  if (request >= num_requests) return;
  const int splits = splits_of[row / GROUP_HEADS];
  if (splits <= 1) return;
  const float lse = lane < splits ? part_lse[row * part_splits + lane] : -INFINITY;
  const float sink = __bfloat162float(sinks[head]) * LOG2_E;
  const float top = fmaxf(warp_max(lse), sink);
  const float weight = exp2f(lse - top);
  const float scale = 1 / (sum_of_lanes(weight) + exp2f(sink - top));
  const float4* values = reinterpret_cast<const float4*>(part + row * part_splits * HEAD_DIM);
  float4 sum = make_float4(0, 0, 0, 0);
  for (int base = 0; base < splits; base += 2 * UNROLL) {
    float4 value[UNROLL];
#pragma unroll
    for (int i = 0; i < UNROLL; ++i) {
      const int split = base + 2 * i + lane / 16;
      value[i] = split < splits ? values[split * 16 + lane % 16] : make_float4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < UNROLL; ++i) {
      const float share = __shfl_sync(~0u, weight, base + 2 * i + lane / 16);
      sum.x += value[i].x * share, sum.y += value[i].y * share;
      sum.z += value[i].z * share, sum.w += value[i].w * share;
    }
  }
  sum.x += __shfl_xor_sync(~0u, sum.x, 16), sum.y += __shfl_xor_sync(~0u, sum.y, 16);
  sum.z += __shfl_xor_sync(~0u, sum.z, 16), sum.w += __shfl_xor_sync(~0u, sum.w, 16);
  if (lane < 16)
    *reinterpret_cast<uint2*>(out + row * HEAD_DIM + lane * 4) = make_uint2(
        pack_bf16(sum.x * scale, sum.y * scale), pack_bf16(sum.z * scale, sum.w * scale));
}
