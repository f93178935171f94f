// Products of a decode step's vector with what lies in slots of the ring. Every warp has its blocks of 64
// of the vector in registers and multiplies them, of two slots at a time, so that latencies overlap.
#pragma once
#include "mma.cuh"
#include "rope.cuh"
#include "step.cuh"

namespace haast {

constexpr int H_BLOCKS = MAX_TILE_BLOCKS / STEP_WARPS;
template <int RANKS>
constexpr int O_BLOCKS = (RANKS == 1 ? MAX_DENSE_BLOCKS : MAX_SHARE_DENSE_BLOCKS) / STEP_WARPS;
template <int RANKS>
constexpr int I_BLOCKS = (RANKS == 1 ? MAX_TILE_BLOCKS : MAX_SHARE_TILE_BLOCKS) / STEP_WARPS;

// A vector of which a lane has elements 2 lane and 2 lane + 1 of the warp's blocks warp + 12 i; zeros
// where there are no such blocks.
template <int BLOCKS>
struct Vector {
  uint32_t pair[BLOCKS];
};

// As operand of a dense product: even rows have of two blocks the first, odd rows the second one, and
// lane (g, t) has of every 32 elements those from 8 t on.
template <int BLOCKS>
struct DenseOperand {
  uint32_t a[BLOCKS / 2][8];

  __device__ __forceinline__ DenseOperand(const Vector<BLOCKS>& v, int lane) {
    const bool is_second = lane / 4 & 1;
#pragma unroll
    for (int i = 0; i < BLOCKS / 2; ++i)
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const int from = j / 4 * 16 + lane % 4 * 4 + j % 4;
        const uint32_t first = __shfl_sync(~0u, v.pair[2 * i], from);
        const uint32_t second = __shfl_sync(~0u, v.pair[2 * i + 1], from);
        a[i][j] = is_second ? second : first;
      }
  }
};

// Columns 0 to 3 of the mma are weight rows in the first of two blocks, 4 to 7 the same rows in the
// second one: what counts of the result is row 0 of the former and row 1 of the latter.
template <int BLOCKS>
struct DenseSlot {
  uint4 low[BLOCKS / 2], high[BLOCKS / 2];
  float acc[2][4] = {};

  // `blocks` are those of a row; `row` is where this lane's begins.
  __device__ __forceinline__ void load(uint32_t row, int blocks, int warp, int lane) {
#pragma unroll
    for (int i = 0; i < BLOCKS / 2; ++i) {
      const int block = warp + (2 * i + lane / 16) * STEP_WARPS;  // where there is none x is zero
      const uint32_t at = row + (block < blocks ? block : 0) * 128 + lane % 4 * 16;
      low[i] = load_shared16(at);
      high[i] = load_shared16(at + 64);
    }
  }

  __device__ __forceinline__ void multiply(const DenseOperand<BLOCKS>& x) {
#pragma unroll
    for (int i = 0; i < BLOCKS / 2; ++i) {
      const auto& a = x.a[i];
      mma(acc[0], {a[0], 0, a[1], 0}, low[i].x, low[i].y);
      mma(acc[1], {a[2], 0, a[3], 0}, low[i].z, low[i].w);
      mma(acc[0], {a[4], 0, a[5], 0}, high[i].x, high[i].y);
      mma(acc[1], {a[6], 0, a[7], 0}, high[i].z, high[i].w);
    }
  }

  // Of row r the sum is that of entries r and r + 4.
  __device__ __forceinline__ void put(float* sums, int lane) const {
    if (lane / 4 == lane % 4 / 2)
      *reinterpret_cast<float2*>(sums + lane % 4 * 2) =
          make_float2(acc[0][0] + acc[1][0], acc[0][1] + acc[1][1]);
  }
};

// As operand of tiles: b0 and b1 of the four k16 steps of each block.
template <int BLOCKS>
struct TileOperand {
  uint32_t b[BLOCKS][8];

  __device__ __forceinline__ void set(const Vector<BLOCKS>& v, int lane) {
#pragma unroll
    for (int i = 0; i < BLOCKS; ++i)
#pragma unroll
      for (int j = 0; j < 8; ++j) b[i][j] = __shfl_sync(~0u, v.pair[i], 4 * j + lane % 4);
  }
};

template <int BLOCKS>
struct TileSlot {
  uint4 words[BLOCKS];
  uint32_t scale_bytes[BLOCKS];
  float acc[2][4] = {};

  __device__ __forceinline__ void load(uint32_t slot, int blocks, int warp, int lane) {
#pragma unroll
    for (int i = 0; i < BLOCKS; ++i) {
      const int block = warp + i * STEP_WARPS;  // where there is none x is zero
      const uint32_t at = slot + (block < blocks ? block : 0) * BLOCK_BYTES;
      words[i] = load_shared16(at + lane * 16);
      scale_bytes[i] = load_shared4(at + SCALES_AT + lane / 4 * 4);
    }
  }

  // Of rows g and g + 8; in a paired tile those are neighbours in the bias.
  template <bool PAIRED>
  __device__ __forceinline__ void add_bias(uint32_t bias, int lane) {
    const int g = lane / 4;
    acc[0][0] = load_shared_bf16(bias + 2 * (PAIRED ? 2 * g : g));
    acc[0][2] = load_shared_bf16(bias + 2 * (PAIRED ? 2 * g + 1 : g + 8));
  }

  __device__ __forceinline__ void multiply(const TileOperand<BLOCKS>& x) {
#pragma unroll
    for (int i = 0; i < BLOCKS; ++i) {
      const Scales scales(scale_bytes[i]);
      uint32_t a[4][4];
      decode<0>(words[i].x, scales, a[0]);
      decode<0>(words[i].y, scales, a[1]);
      decode<1>(words[i].z, scales, a[2]);
      decode<1>(words[i].w, scales, a[3]);
#pragma unroll
      for (int j = 0; j < 4; ++j) mma(acc[j % 2], a[j], x.b[i][2 * j], x.b[i][2 * j + 1]);
    }
  }

  __device__ __forceinline__ void put(float* sums, int lane) const {
    if (lane % 4) return;
    sums[lane / 4] = acc[0][0] + acc[1][0];
    sums[lane / 4 + 8] = acc[0][2] + acc[1][2];
  }
};

}  // namespace haast
