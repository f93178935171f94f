// Adds a token's terms: choice by choice, and of each choice the parts of K.
#include "ptx.cuh"

namespace haast {
namespace {

constexpr int TERMS = 8;  // loaded before any is added

// What a thread loads of a term, 16 bytes.
struct Floats {
  static constexpr int SIZE = 4;
  float4 held;

  __device__ __forceinline__ void load(const void* at) {
    held = __ldcs(static_cast<const float4*>(at));
  }
  __device__ __forceinline__ void add_to(float (&sum)[SIZE]) const {
    sum[0] += held.x, sum[1] += held.y, sum[2] += held.z, sum[3] += held.w;
  }
};

struct Halves {
  static constexpr int SIZE = 8;
  uint4 held;

  __device__ __forceinline__ void load(const void* at) {
    held = __ldcs(static_cast<const uint4*>(at));
  }
  __device__ __forceinline__ void add_to(float (&sum)[SIZE]) const {
    const uint32_t pairs[4] = {held.x, held.y, held.z, held.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      sum[2 * i] += __uint_as_float(pairs[i] << 16);
      sum[2 * i + 1] += __uint_as_float(pairs[i] & 0xFFFF0000u);
    }
  }
};

// slots [parts, tokens * choices, pieces], 16 bytes each.
template <class Piece>
__device__ __forceinline__ void combine(const uint4* slots, __nv_bfloat162* out, int tokens,
                                        int choices, int pieces, int parts) {
  let_next_kernel_start();
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  wait_for_previous_kernel();
  if (at >= tokens * pieces) return;
  const int token = at / pieces, column = at % pieces, terms = choices * parts;
  const long part_stride = static_cast<long>(tokens) * choices * pieces;
  const uint4* first = slots + static_cast<long>(token) * choices * pieces + column;
  float sum[Piece::SIZE] = {};
  for (int base = 0; base < terms; base += TERMS) {
    Piece piece[TERMS];
#pragma unroll
    for (int i = 0; i < TERMS; ++i) {
      const int term = base + i;
      if (term < terms) piece[i].load(first + term / parts * pieces + term % parts * part_stride);
    }
#pragma unroll
    for (int i = 0; i < TERMS; ++i)
      if (base + i < terms) piece[i].add_to(sum);
  }
#pragma unroll
  for (int i = 0; i < Piece::SIZE / 2; ++i)
    out[static_cast<long>(at) * (Piece::SIZE / 2) + i] =
        __floats2bfloat162_rn(sum[2 * i], sum[2 * i + 1]);
}

}  // namespace
}  // namespace haast

// slots [parts, tokens * choices, hidden], hidden = pieces x 4 or 8 -> out [tokens, hidden] bf16.
#define HAAST_COMBINE(NAME, PIECE)                                                               \
  extern "C" __global__ void __launch_bounds__(256)                                              \
      NAME(const uint4* slots, __nv_bfloat162* out, int tokens, int choices, int pieces,         \
           int parts) {                                                                          \
    haast::combine<haast::PIECE>(slots, out, tokens, choices, pieces, parts);                    \
  }

HAAST_COMBINE(moe_combine_fp32, Floats)
HAAST_COMBINE(moe_combine_bf16, Halves)
