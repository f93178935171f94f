// A warp's keys of a page against the eight heads that share them, by mma.sync: scores, weights and
// sums, over pages in bf16 or in e4m3. The eight heads are rows of m16n8k16; the others are zero.
#pragma once
#include "e4m3.cuh"
#include "mma.cuh"

namespace haast {

constexpr int WARP_KEYS = 32;
constexpr int KEY_TILES = WARP_KEYS / 8;

// The rows that are no heads are zero.
__device__ __forceinline__ void mma(float (&d)[4], uint32_t a0, uint32_t a2, uint32_t b0,
                                    uint32_t b1) {
  mma(d, {a0, 0, a2, 0}, b0, b1);
}

// Lane (g, t) of a warp: head g, and of each tile of eight keys or dimensions 2 t and 2 t + 1.
struct Running {
  float out[HEAD_DIM / 8][4];  // the last two are of no head
  float top, total;            // of raw scores; of this lane's keys

  __device__ void clear() {
    top = -INFINITY;
    total = 0;
#pragma unroll
    for (auto& tile : out)
#pragma unroll
      for (float& x : tile) x = 0;
  }
};

// A lane's part of the query's eight heads.
template <bool E4M3>
__device__ __forceinline__ void load_query(uint32_t query, int lane, uint32_t (&q)[2][4]) {
  if constexpr (E4M3) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint4 piece = load_shared16(query + lane / 4 * 128 + lane % 4 * 32 + i * 16);
      q[i][0] = piece.x, q[i][1] = piece.y, q[i][2] = piece.z, q[i][3] = piece.w;
    }
  } else {
    const uint32_t part = query + lane % 8 * 128 + lane / 8 * 16;
    load_matrices(part, q[0]);
    load_matrices(part + 64, q[1]);
  }
}

// Scores of a warp's keys: K rows are 128 bytes, their 16-byte pieces in the 128-byte swizzle.
__device__ __forceinline__ void multiply_keys(uint32_t k, const uint32_t (&q)[2][4], int lane,
                                              float (&scores)[KEY_TILES][4]) {
  const uint32_t row = k + lane % 8 * 128;
  const uint32_t low = row + ((lane / 8 ^ lane % 8) << 4);
  const uint32_t high = row + ((lane / 8 + 4 ^ lane % 8) << 4);
#pragma unroll
  for (int n = 0; n < KEY_TILES; ++n) {
    uint32_t b[2][4];
    load_matrices(low + n * 8 * 128, b[0]);
    load_matrices(high + n * 8 * 128, b[1]);
#pragma unroll
    for (float& x : scores[n]) x = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j)
      mma(scores[n], q[j / 2][j % 2 * 2], q[j / 2][j % 2 * 2 + 1], b[j / 2][j % 2 * 2],
          b[j / 2][j % 2 * 2 + 1]);
  }
}

// Of e4m3: a lane has whole pieces of 16 dimensions, so 4 t .. 4 t + 3 of each k16 step are those
// from 16 t + 4 j on, in the query too. Columns 2 and 3, 6 and 7 of a tile have each other's keys:
// then the rows whose values a quarter of a warp reads lie in different banks.
__device__ __forceinline__ void multiply_keys_e4m3(uint32_t k, const uint32_t (&q)[2][4], int lane,
                                                   float (&scores)[KEY_TILES][4]) {
  const int column = lane / 4;
  const uint32_t at = k + e4m3_piece(column ^ column / 2 % 2, lane % 4);
#pragma unroll
  for (int n = 0; n < KEY_TILES; ++n) {
    const uint4 piece = load_shared16(at + n * 8 * E4M3_ROW);
    const uint32_t words[4] = {piece.x, piece.y, piece.z, piece.w};
#pragma unroll
    for (float& x : scores[n]) x = 0;
#pragma unroll
    for (int j = 0; j < 4; ++j)
      mma(scores[n], q[j / 2][j % 2 * 2], q[j / 2][j % 2 * 2 + 1], bf16_of_e4m3(words[j]),
          bf16_of_e4m3(words[j] >> 16));
  }
}

// Keys [first, last) of the page are visible; the others' scores, whatever they are, do not count.
// Score i of a pair is of key i ^ swap.
__device__ __forceinline__ void mask(float (&scores)[KEY_TILES][4], int key, int swap, int first,
                                     int last) {
#pragma unroll
  for (int n = 0; n < KEY_TILES; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int at = key + 8 * n + (i ^ swap);
      if (at < first || at >= last) scores[n][i] = -INFINITY;
    }
}

// Scores -> weights relative to the new maximum, in place.
__device__ __forceinline__ void weigh(float (&scores)[KEY_TILES][4], Running& r) {
  float top = r.top;
#pragma unroll
  for (int n = 0; n < KEY_TILES; ++n) top = fmaxf(top, fmaxf(scores[n][0], scores[n][1]));
  top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
  top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
  const float held = top == -INFINITY ? 0 : top;
  const float base = held * SCORE_SCALE, scale = exp2_fast((r.top - held) * SCORE_SCALE);
  r.top = top;
  r.total *= scale;
#pragma unroll
  for (int n = 0; n < KEY_TILES; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      scores[n][i] = exp2_fast(scores[n][i] * SCORE_SCALE - base);
      r.total += scores[n][i];
    }
#pragma unroll
  for (auto& tile : r.out) {
    tile[0] *= scale;
    tile[1] *= scale;
  }
}

// Which of the keys `a` and `b` lie in [first, last), as a mask of two bf16.
__device__ __forceinline__ uint32_t visible_pair(int a, int b, int first, int last) {
  const uint32_t low = a >= first && a < last ? 0xFFFF : 0;
  return low | (b >= first && b < last ? 0xFFFF0000 : 0);
}

// Weights times values. What is not visible may be anything, NaN too, so it is zeroed.
template <bool AT_EDGE>
__device__ __forceinline__ void multiply_values_bf16(uint32_t v,
                                                     const float (&weights)[KEY_TILES][4], int lane,
                                                     int key, int first, int last, Running& r) {
  const uint32_t row = v + lane % 16 * 128;
#pragma unroll
  for (int i = 0; i < KEY_TILES / 2; ++i) {
    const uint32_t a0 = pack_bf16(weights[2 * i][0], weights[2 * i][1]);
    const uint32_t a2 = pack_bf16(weights[2 * i + 1][0], weights[2 * i + 1][1]);
#pragma unroll
    for (int c = 0; c < HEAD_DIM / 8; c += 2) {
      uint32_t b[4];
      load_matrices_transposed(row + i * 16 * 128 + ((c + lane / 16 ^ lane % 8) << 4), b);
      if (AT_EDGE) {
        const int at = key + 16 * i;
        const uint32_t low = visible_pair(at, at + 1, first, last);
        const uint32_t high = visible_pair(at + 8, at + 9, first, last);
        b[0] &= low, b[1] &= high, b[2] &= low, b[3] &= high;
      }
      mma(r.out[c], a0, a2, b[0], b[1]);
      mma(r.out[c + 1], a0, a2, b[2], b[3]);
    }
  }
}

// Bytes 0 and 1, or 2 and 3, of two keys' dimensions: pairs of one dimension.
__device__ __forceinline__ void pair_up(uint32_t a, uint32_t b, uint32_t (&pairs)[4]) {
  const uint32_t low = __byte_perm(a, b, 0x5140), high = __byte_perm(a, b, 0x7362);
  pairs[0] = bf16_of_e4m3(low), pairs[1] = bf16_of_e4m3(low >> 16);
  pairs[2] = bf16_of_e4m3(high), pairs[3] = bf16_of_e4m3(high >> 16);
}

// Of e4m3: column g of result tile c is dimension 8 g + c.
template <bool AT_EDGE>
__device__ __forceinline__ void multiply_values_e4m3(uint32_t v,
                                                     const float (&weights)[KEY_TILES][4], int lane,
                                                     int key, int swap, int first, int last,
                                                     Running& r) {
  const int g = lane / 4, row = lane % 4 * 2;
  const uint32_t base = v + e4m3_piece(row, g / 2) + g % 2 * 8;
  const uint32_t a = base + swap * E4M3_ROW, b = base + (swap ^ 1) * E4M3_ROW;
#pragma unroll
  for (int i = 0; i < KEY_TILES / 2; ++i) {
    const uint32_t a0 = pack_bf16(weights[2 * i][0], weights[2 * i][1]);
    const uint32_t a2 = pack_bf16(weights[2 * i + 1][0], weights[2 * i + 1][1]);
    const uint32_t step = i * 16 * E4M3_ROW, next = 8 * E4M3_ROW;
    const uint2 one = load_shared8(a + step), two = load_shared8(b + step);
    const uint2 three = load_shared8(a + step + next), four = load_shared8(b + step + next);
    uint32_t low = ~0u, high = ~0u;
    if (AT_EDGE) {
      const int at = key + 16 * i + swap, other = key + 16 * i + (swap ^ 1);
      low = visible_pair(at, other, first, last);
      high = visible_pair(at + 8, other + 8, first, last);
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t b0[4], b1[4];
      pair_up(half ? one.y : one.x, half ? two.y : two.x, b0);
      pair_up(half ? three.y : three.x, half ? four.y : four.x, b1);
#pragma unroll
      for (int c = 0; c < 4; ++c) mma(r.out[4 * half + c], a0, a2, b0[c] & low, b1[c] & high);
    }
  }
}

template <bool E4M3, bool AT_EDGE>
__device__ __forceinline__ void multiply_values(uint32_t v, const float (&weights)[KEY_TILES][4],
                                                int lane, int key, int swap, int first, int last,
                                                Running& r) {
  if constexpr (E4M3)
    multiply_values_e4m3<AT_EDGE>(v, weights, lane, key, swap, first, last, r);
  else
    multiply_values_bf16<AT_EDGE>(v, weights, lane, key, first, last, r);
}

}  // namespace haast
