// Products of a decode step's vector with what lies in slots of the ring. Every warp has its blocks of 64
// of the vector in registers and multiplies them.
#pragma once
#include "mma.cuh"
#include "rope.cuh"
#include "step.cuh"

namespace haast {

constexpr int H_BLOCKS = divide_up(MAX_TILE_BLOCKS, STEP_WARPS);
template <int RANKS>
constexpr int O_BLOCKS = (RANKS == 1 ? MAX_DENSE_BLOCKS : MAX_SHARE_DENSE_BLOCKS) / STEP_WARPS;
template <int RANKS>
constexpr int I_BLOCKS =
    divide_up(RANKS == 1 ? MAX_TILE_BLOCKS : MAX_SHARE_TILE_BLOCKS, STEP_WARPS);

// A vector of which a lane has elements 2 lane and 2 lane + 1 of the warp's blocks warp + 12 i; zeros
// where there are no such blocks.
template <int BLOCKS>
struct Vector {
  uint32_t pair[BLOCKS];
};

// As operand of a dense product: of two blocks one is in rows 0 to 7 of the mma, the other in rows 8 to
// 15, and lane (g, t) has of every 32 elements those from 8 t on.
template <int BLOCKS>
struct DenseOperand {
  uint32_t a[BLOCKS / 2][8][2];

  __device__ __forceinline__ DenseOperand(const Vector<BLOCKS>& v, int lane) {
#pragma unroll
    for (int i = 0; i < BLOCKS / 2; ++i)
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const int from = j / 4 * 16 + lane % 4 * 4 + j % 4;
#pragma unroll
        for (int k = 0; k < 2; ++k) a[i][j][k] = __shfl_sync(~0u, v.pair[2 * i + k], from);
      }
  }
};

// Columns 0 to 3 of the mma are weight rows in the first of two blocks, 4 to 7 the same rows in the
// second one: what counts of the result is row 0 of the former and row 8 of the latter.
template <int BLOCKS>
struct DenseSlot {
  uint4 low[BLOCKS / 2], high[BLOCKS / 2];

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

  // To sums: of row r it is that of entries r and r + 4.
  struct Product {
    float acc[2][4] = {};

    __device__ __forceinline__ Product(const DenseSlot& s, const DenseOperand<BLOCKS>& x) {
#pragma unroll
      for (int i = 0; i < BLOCKS / 2; ++i) {
        const auto& a = x.a[i];
        multiply(acc[0], a[0], a[1], s.low[i].x, s.low[i].y);
        multiply(acc[1], a[2], a[3], s.low[i].z, s.low[i].w);
        multiply(acc[0], a[4], a[5], s.high[i].x, s.high[i].y);
        multiply(acc[1], a[6], a[7], s.high[i].z, s.high[i].w);
      }
    }

    static __device__ __forceinline__ void multiply(float (&sum)[4], const uint32_t (&first)[2],
                                                    const uint32_t (&second)[2], uint32_t b0,
                                                    uint32_t b1) {
      mma(sum, {first[0], first[1], second[0], second[1]}, b0, b1);
    }

    __device__ __forceinline__ void put(float* sums, int lane) const {
      if (lane >= 4) return;
      const int of = lane / 2 * 2;  // row 0 or row 8
      const float first = of ? acc[0][2] + acc[1][2] : acc[0][0] + acc[1][0];
      const float second = of ? acc[0][3] + acc[1][3] : acc[0][1] + acc[1][1];
      *reinterpret_cast<float2*>(sums + lane * 2) = make_float2(first, second);
    }
  };
};

// How the rows of a dense weight lie in slots.
template <int BLOCKS>
struct DenseSlots {
  using Slot = DenseSlot<BLOCKS>;
  const Rows r;

  // The CTA's slot `index`, which lies at `at`.
  __device__ __forceinline__ void load(Slot& slot, uint32_t at, int index, int warp,
                                       int lane) const {
    const int row = r.rows.begin + index * r.at_once;
    const int own = min(lane / 4 % 4, min(r.at_once, r.rows.end - row) - 1);
    slot.load(at + own * (r.row_bytes + ROW_GAP), r.row_bytes / 128, warp, lane);
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
  float bias[2];  // of rows g and g + 8

  __device__ __forceinline__ void load(uint32_t slot, int blocks, int warp, int lane) {
    bias[0] = bias[1] = 0;
#pragma unroll
    for (int i = 0; i < BLOCKS; ++i) {
      const int block = warp + i * STEP_WARPS;  // where there is none x is zero
      const uint32_t at = slot + (block < blocks ? block : 0) * BLOCK_BYTES;
      words[i] = load_shared16(at + lane * 16);
      scale_bytes[i] = load_shared4(at + SCALES_AT + lane / 4 * 4);
    }
  }

  // In a paired tile the two rows are neighbours.
  template <bool PAIRED>
  __device__ __forceinline__ void load_bias(uint32_t at, int lane) {
    const int g = lane / 4;
    bias[0] = load_shared_bf16(at + 2 * (PAIRED ? 2 * g : g));
    bias[1] = load_shared_bf16(at + 2 * (PAIRED ? 2 * g + 1 : g + 8));
  }

  struct Product {
    float acc[2][4] = {};

    __device__ __forceinline__ Product(const TileSlot& s, const TileOperand<BLOCKS>& x) {
      acc[0][0] = s.bias[0];
      acc[0][2] = s.bias[1];
#pragma unroll
      for (int i = 0; i < BLOCKS; ++i) {
        const Scales scales(s.scale_bytes[i]);
        uint32_t a[4][4];
        decode<0>(s.words[i].x, scales, a[0]);
        decode<0>(s.words[i].y, scales, a[1]);
        decode<1>(s.words[i].z, scales, a[2]);
        decode<1>(s.words[i].w, scales, a[3]);
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
};

// A tile lies in each slot, and after it its biases, which the last warp adds.
template <int BLOCKS, bool PAIRED>
struct TileSlots {
  using Slot = TileSlot<BLOCKS>;
  const int blocks;

  __device__ __forceinline__ void load(Slot& slot, uint32_t at, int, int warp, int lane) const {
    slot.load(at, blocks, warp, lane);
    if (warp == STEP_WARPS - 1) slot.template load_bias<PAIRED>(at + blocks * BLOCK_BYTES, lane);
  }
};

}  // namespace haast
