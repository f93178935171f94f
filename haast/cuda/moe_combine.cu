// Adds a token's terms in the order of its choices.
#include "ptx.cuh"

// slots [parts, tokens * choices, hidden] fp32 -> out [tokens, hidden] bf16; hidden a multiple of 4.
extern "C" __global__ void __launch_bounds__(256)
    moe_combine(const float4* slots, uint2* out, int tokens, int choices, int hidden, int parts) {
  haast::let_next_kernel_start();
  const int quads = hidden / 4;
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  haast::wait_for_previous_kernel();
  if (at >= tokens * quads) return;
  const int token = at / quads, column = at % quads;
  const long part_stride = static_cast<long>(tokens) * choices * quads;
  float4 sum = make_float4(0, 0, 0, 0);
#pragma unroll 4
  for (int c = 0; c < choices; ++c) {
    const float4* term = slots + static_cast<long>(token * choices + c) * quads + column;
    for (int part = 0; part < parts; ++part) {
      const float4 v = __ldcs(term + part * part_stride);
      sum.x += v.x;
      sum.y += v.y;
      sum.z += v.z;
      sum.w += v.w;
    }
  }
  const __nv_bfloat162 low = __floats2bfloat162_rn(sum.x, sum.y);
  const __nv_bfloat162 high = __floats2bfloat162_rn(sum.z, sum.w);
  out[at] = make_uint2(*reinterpret_cast<const uint32_t*>(&low),
                       *reinterpret_cast<const uint32_t*>(&high));
}
