// Reading swizzled MXFP4 blocks (haast/mxfp4/layout.py) into registers.
#pragma once
#include "ptx.cuh"

namespace haast {

// A block is 16 rows x 64 k: lane l's four words (k16 steps) at 16 l, then for each g in 0..7 the
// scale bytes of (row g, row g + 8) for the first and for the second 32 of k.
constexpr int BLOCK_BYTES = 544;
constexpr int SCALES_AT = 512;
constexpr int TILE_ROWS = 16;
constexpr int BLOCK_K = 64;

// A block's scales for a lane: bytes of (row g, row g + 8) for the first and for the second 32 of k,
// each already e8m0 + 126, become pairs of bf16 factors 2^(e8m0 - 127 + 126) by k-group.
struct Scales {
  uint32_t row, row8;

  __device__ __forceinline__ explicit Scales(uint32_t bytes)
      : row(bytes << 7 & 0x7F807F80), row8(bytes >> 1 & 0x7F807F80) {}
};

// Two bf16 times the factor of one k-group.
template <int GROUP>
__device__ __forceinline__ uint32_t scale(uint32_t pair, uint32_t factors) {
  const auto a = *reinterpret_cast<const __nv_bfloat162*>(&pair);
  const auto f = *reinterpret_cast<const __nv_bfloat162*>(&factors);
  const __nv_bfloat162 d = __hmul2(a, GROUP ? __high2bfloat162(f) : __low2bfloat162(f));
  return *reinterpret_cast<const uint32_t*>(&d);
}

// One word, of k-group GROUP -> the lane's m16k16 A fragment. The masks pick sign, exponent and
// mantissa where bf16 has them; exponents come out 126 too small, which the factor makes good.
template <int GROUP>
__device__ __forceinline__ void decode(uint32_t word, const Scales& scales, uint32_t (&a)[4]) {
  constexpr uint32_t mask = 0x81C081C0;
  a[0] = scale<GROUP>(word & mask, scales.row);
  a[1] = scale<GROUP>((word << 4) & mask, scales.row8);
  a[2] = scale<GROUP>(__funnelshift_l(word, word, 10) & mask, scales.row);
  a[3] = scale<GROUP>(((word << 6) & 0x80C080C0) | ((word >> 2) & 0x01000100), scales.row8);
}

}  // namespace haast
