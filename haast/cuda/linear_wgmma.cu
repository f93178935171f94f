// Dense product of some dozens of tokens, by wgmma with tokens as the rows of its first operand.
//
// A cluster of CTAs has a run of weight rows and 64 tokens, each of its CTAs a part of K. One warp
// brings 64 of K at a time, of weights and of tokens, through a ring; some of the weights before the
// previous kernel has ended, since no kernel writes them. The CTAs' sums are added in their order,
// token by token in turn. A token's bits do not depend on the other tokens.
#include "cluster.cuh"
#include "wgmma.cuh"

namespace haast {
namespace {

constexpr int BLOCK_K = 64, STEPS = BLOCK_K / 16;
constexpr int ROW_BYTES = BLOCK_K * 2;
constexpr int TOKENS = 64;
constexpr int MATH_WARPS = 4, MATH_THREADS = 32 * MATH_WARPS, THREADS = MATH_THREADS + 32;
constexpr int X_BYTES = TOKENS * ROW_BYTES;

struct Problem {
  const TensorMap *x, *weight;  // [T, K] by boxes of TOKENS rows, [N, K] by boxes of ROWS
  const bf16* bias;             // [N] or null
  bf16* out;                    // [T, N]
  int num_tokens, n, blocks;    // of K
  int stages, early;  // of the ring; of those, how many have weights before the wait
};

// A cluster of CTAS has ROWS weight rows.
template <int CTAS, int ROWS>
struct Tile {
  static constexpr int W_BYTES = ROWS * ROW_BYTES, STAGE_BYTES = W_BYTES + X_BYTES;
  static constexpr int PITCH = ROWS + 8;  // of sums, in floats; + 8: no bank conflicts
  static_assert(ROWS % 16 == 0);
};

// What a CTA has to do, and where.
struct Share {
  int first_row, first_token, first_block, count;  // of blocks
  uint32_t ring, full, empty;
};

template <int CTAS, int ROWS>
__device__ Share share_of(const Problem& p, uint32_t memory) {
  Share s;
  const int part = cluster_rank();
  s.first_row = blockIdx.x / CTAS * ROWS;
  s.first_token = blockIdx.y * TOKENS;
  s.first_block = p.blocks * part / CTAS;
  s.count = p.blocks * (part + 1) / CTAS - s.first_block;
  s.ring = memory;
  s.full = s.ring + p.stages * Tile<CTAS, ROWS>::STAGE_BYTES;
  s.empty = s.full + 8 * p.stages;
  return s;
}

// ---- one thread brings blocks

template <class T>
__device__ __forceinline__ void bring_weights(const Problem& p, const Share& s, int i, int stage) {
  const uint32_t full = s.full + 8 * stage;
  arrive_expect(full, T::W_BYTES);
  tensor_load(s.ring + stage * T::STAGE_BYTES, p.weight, (s.first_block + i) * BLOCK_K, s.first_row,
              full);
}

template <class T>
__device__ __forceinline__ void bring_tokens(const Problem& p, const Share& s, int i, int stage) {
  const uint32_t full = s.full + 8 * stage;
  const uint32_t to = s.ring + stage * T::STAGE_BYTES + T::W_BYTES;
  arrive_expect(full, X_BYTES);
  tensor_load(to, p.x, (s.first_block + i) * BLOCK_K, s.first_token, full);
}

template <class T>
__device__ void bring(const Problem& p, const Share& s) {
  const int early = min(p.early, s.count);
  for (int i = 0; i < early; ++i) bring_weights<T>(p, s, i, i);
  wait_for_previous_kernel();
  int stage = 0;
  uint32_t phase = 1;
  for (int i = 0; i < s.count; ++i) {
    wait(s.empty + 8 * stage, phase);
    if (i >= early) bring_weights<T>(p, s, i, stage);
    bring_tokens<T>(p, s, i, stage);
    if (++stage == p.stages) {
      stage = 0;
      phase ^= 1;
    }
  }
}

// ---- a warpgroup multiplies

// This warp's 16 tokens of a block, as wgmma wants them.
__device__ __forceinline__ void load_tokens(uint32_t x, int lane, uint32_t (&a)[STEPS][4]) {
  const int row = lane % 16;
#pragma unroll
  for (int step = 0; step < STEPS; ++step)
    load_matrices(x + row * ROW_BYTES + ((2 * step + lane / 16) ^ (row % 8)) * 16, a[step]);
}

template <int CTAS, int ROWS>
__device__ void multiply(const Problem& p, const Share& s, float (&acc)[ROWS / 2]) {
  using T = Tile<CTAS, ROWS>;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  int stage = 0;
  uint32_t phase = 0;
  for (int i = 0; i < s.count; ++i) {
    const uint32_t w = s.ring + stage * T::STAGE_BYTES;
    uint32_t a[STEPS][4];
    wait(s.full + 8 * stage, phase);
    load_tokens(w + T::W_BYTES + warp * 16 * ROW_BYTES, lane, a);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < STEPS; ++step)
      Wgmma<ROWS>::run(acc, a[step], b_descriptor(w) + 2 * step);
    wgmma_commit();
    wgmma_wait<0>();
    if (lane == 0) arrive(s.empty + 8 * stage);
    if (++stage == p.stages) {
      stage = 0;
      phase ^= 1;
    }
  }
}

__device__ __forceinline__ void sync_math() {
  asm volatile("bar.sync 1, %0;" ::"n"(MATH_THREADS) : "memory");
}

// ---- the cluster's sums

// [TOKENS][PITCH], over the ring: every block has been read.
template <int CTAS, int ROWS>
__device__ void put_sums(const float (&acc)[ROWS / 2], float* sums) {
  using T = Tile<CTAS, ROWS>;
  const int lane = threadIdx.x % 32, token = threadIdx.x / 32 * 16 + lane / 4;
  float* at = sums + token * T::PITCH + lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < ROWS / 8; ++i) {
    *reinterpret_cast<float2*>(at + 8 * i) = make_float2(acc[4 * i], acc[4 * i + 1]);
    *reinterpret_cast<float2*>(at + 8 * i + 8 * T::PITCH) =
        make_float2(acc[4 * i + 2], acc[4 * i + 3]);
  }
}

// The CTAs take tokens in turn; a thread has four weight rows.
template <int CTAS, int ROWS>
__device__ void add_sums(const Problem& p, const Share& s, float* sums) {
  constexpr int PIECES = ROWS / 4, PITCH = Tile<CTAS, ROWS>::PITCH;
  const int tokens = min(TOKENS, p.num_tokens - s.first_token), rank = cluster_rank();
  const float* from[CTAS];
#pragma unroll
  for (int r = 0; r < CTAS; ++r) from[r] = in_cta(sums, r);
  for (int i = threadIdx.x;; i += THREADS) {
    const int token = i / PIECES * CTAS + rank, column = i % PIECES * 4;
    const int row = s.first_row + column;
    if (token >= tokens) break;
    if (row >= p.n) continue;
    float4 part[CTAS];
#pragma unroll
    for (int r = 0; r < CTAS; ++r)
      part[r] = *reinterpret_cast<const float4*>(from[r] + token * PITCH + column);
    uint2 bias = make_uint2(0, 0);
    if (p.bias) bias = *reinterpret_cast<const uint2*>(p.bias + row);
    float4 sum = part[0];
#pragma unroll
    for (int r = 1; r < CTAS; ++r)
      sum.x += part[r].x, sum.y += part[r].y, sum.z += part[r].z, sum.w += part[r].w;
    sum.x += __uint_as_float(bias.x << 16), sum.y += __uint_as_float(bias.x & 0xFFFF0000u);
    sum.z += __uint_as_float(bias.y << 16), sum.w += __uint_as_float(bias.y & 0xFFFF0000u);
    const int64_t at = static_cast<int64_t>(s.first_token + token) * p.n + row;
    *reinterpret_cast<uint2*>(p.out + at) =
        make_uint2(pack_bf16(sum.x, sum.y), pack_bf16(sum.z, sum.w));
  }
}

template <int CTAS, int ROWS>
__device__ void run(const Problem& p) {
  extern __shared__ __align__(1024) uint8_t memory[];
  const Share s = share_of<CTAS, ROWS>(p, smem_u32(memory));
  float* sums = reinterpret_cast<float*>(memory);
  if (threadIdx.x == 0) {
    prefetch_map(p.weight);
    prefetch_map(p.x);
    for (int i = 0; i < p.stages; ++i) {
      barrier_init(s.full + 8 * i, 2);  // weights and tokens
      barrier_init(s.empty + 8 * i, MATH_WARPS);
    }
    barrier_init_fence();
  }
  __syncthreads();
  let_next_kernel_start();
  if (threadIdx.x < MATH_THREADS) {
    float acc[ROWS / 2] = {};
    multiply<CTAS, ROWS>(p, s, acc);
    sync_math();
    put_sums<CTAS, ROWS>(acc, sums);
  } else if (threadIdx.x == MATH_THREADS) {
    bring<Tile<CTAS, ROWS>>(p, s);
  }
  wait_for_previous_kernel();  // whose memory the result may lie in
  cluster_sync();
  add_sums<CTAS, ROWS>(p, s, sums);
  cluster_arrive();
  cluster_wait();
}

}  // namespace
}  // namespace haast

#define HAAST_LINEAR_WGMMA(CTAS, ROWS)                                                         \
  extern "C" __global__ void __launch_bounds__(haast::THREADS) __cluster_dims__(CTAS)          \
      linear_wgmma_c##CTAS##_n##ROWS(const __grid_constant__ haast::TensorMap x,               \
                                     const __grid_constant__ haast::TensorMap weight,          \
                                     const haast::bf16* bias, haast::bf16* out,                \
                                     int num_tokens, int n, int blocks, int stages,            \
                                     int early) {                                              \
    haast::run<CTAS, ROWS>({&x, &weight, bias, out, num_tokens, n, blocks, stages, early});    \
  }

HAAST_LINEAR_WGMMA(2, 80)
HAAST_LINEAR_WGMMA(4, 16)
HAAST_LINEAR_WGMMA(4, 48)
HAAST_LINEAR_WGMMA(4, 96)
