// Dense product of few tokens, by mma.sync: tokens are the rows of its first operand, weight rows the
// columns of the second, so that weights are read once, by one warp.
//
// Every warp has a run of weight rows, `rows` of them at a time, and of those a piece of K after
// the other, which it brings itself through a ring of its own. The first pieces are on their way
// before the previous kernel has ended: no kernel writes weights. A token's bits do not depend on the
// other tokens.
#include "mma.cuh"
#include "token_rows.cuh"

namespace haast {
namespace {

constexpr int WARPS = 8;
constexpr int THREADS = 32 * WARPS;
constexpr int STEP_BYTES = 64;  // 32 of K: what 4 lanes load at once, two mma

struct Problem {
  const bf16 *x, *weight, *bias;  // [T, K], [N, K], [N] or null
  bf16* out;                      // [T, N]
  int num_tokens, n, row_bytes;   // bytes of a row of x or of the weight
  int piece, rows, stages;        // bytes of a weight row at a time, weight rows at a time, ring
};

// Where a warp is in its weight rows, and in its ring.
struct Cursor {
  int row;     // first of those at a time
  int at = 0;  // byte of each
  int stage = 0;
  uint32_t phase = 0;

  __device__ void next(const Problem& p) {
    at += p.piece;
    if (at >= p.row_bytes) {
      at = 0;
      row += p.rows;
    }
    if (++stage == p.stages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// A warp's share: its rows, its ring and the barriers of that.
struct Share {
  const Problem& p;
  int lane, begin, end;
  int stage_bytes;
  uint32_t ring, full;

  __device__ int rows_at(const Cursor& c) const { return min(p.rows, end - c.row); }
  __device__ int bytes_at(const Cursor& c) const { return min(p.piece, p.row_bytes - c.at); }

  __device__ void bring(const Cursor& c) const {
    const int rows = rows_at(c), bytes = bytes_at(c);
    const uint32_t to = ring + c.stage * stage_bytes, barrier = full + 8 * c.stage;
    if (lane == 0) arrive_expect(barrier, rows * bytes);
    __syncwarp();
    const int64_t row = c.row + lane;
    const char* from = reinterpret_cast<const char*>(p.weight) + row * p.row_bytes + c.at;
    if (lane < rows) bulk_load_once(to + lane * pitch_of(p.piece), from, bytes, barrier);
  }
};

// Lane (g, t) has tokens g and g + 8, weight rows 2 t and 2 t + 1. Of every 32 of K it loads those
// from 8 t on, of token and of weight row g alike: any order of K will do that both agree on.
template <bool MANY>
struct Operands {
  uint4 weight, near, far;  // 32 of K: of weight row g, of token g, of token g + 8

  __device__ __forceinline__ void load(uint32_t weight_at, uint32_t near_at, uint32_t far_at) {
    weight = load_shared16(weight_at);
    near = load_shared16(near_at);
    far = MANY ? load_shared16(far_at) : make_uint4(0, 0, 0, 0);
  }

  __device__ __forceinline__ void multiply(float (&first)[4], float (&second)[4]) const {
    mma(first, {near.x, far.x, near.y, far.y}, weight.x, weight.y);
    mma(second, {near.z, far.z, near.w, far.w}, weight.z, weight.w);
  }
};

// 64 of K at a time; those after them load meanwhile. Four sums, so that mma latencies overlap.
template <bool MANY>
__device__ __forceinline__ void multiply_piece(uint32_t weight, uint32_t near, uint32_t far, int bytes,
                                               float (&acc)[4][4]) {
  Operands<MANY> now[2], next[2];
  const auto load = [&](Operands<MANY>(&to)[2], int at) {
#pragma unroll
    for (int i = 0; i < 2; ++i, at += STEP_BYTES) to[i].load(weight + at, near + at, far + at);
  };
  const auto multiply = [&](const Operands<MANY>(&from)[2]) {
    from[0].multiply(acc[0], acc[1]);
    from[1].multiply(acc[2], acc[3]);
  };
  load(now, 0);
  int at = 2 * STEP_BYTES;
  for (; at + 2 * STEP_BYTES < bytes; at += 4 * STEP_BYTES) {
    load(next, at);
    multiply(now);
    load(now, at + 2 * STEP_BYTES);
    multiply(next);
  }
  if (at < bytes) load(next, at);
  multiply(now);
  if (at < bytes) multiply(next);
}

template <bool MANY>
__device__ __forceinline__ void store(const Share& s, const Cursor& c, const float (&bias)[2],
                                      const float (&acc)[4][4]) {
  const int g = s.lane / 4, t = s.lane % 4;
#pragma unroll
  for (int i = 0; i < (MANY ? 4 : 2); ++i) {
    const int token = g + i / 2 * 8, row = 2 * t + i % 2;
    if (token >= s.p.num_tokens || row >= s.rows_at(c)) continue;
    const int64_t at = static_cast<int64_t>(token) * s.p.n + c.row + row;
    const float sum = (acc[0][i] + acc[1][i]) + (acc[2][i] + acc[3][i]);
    s.p.out[at] = __float2bfloat16_rn(sum + bias[i % 2]);
  }
}

__device__ __forceinline__ void load_bias(const Share& s, const Cursor& c, float (&bias)[2]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = s.lane % 4 * 2 + i;
    const bool has_one = s.p.bias && row < s.rows_at(c);
    bias[i] = has_one ? __bfloat162float(s.p.bias[c.row + row]) : 0.0f;
  }
}

template <bool MANY>
__device__ void multiply(const Share& s, Cursor to, uint32_t tokens) {
  const Problem& p = s.p;
  const int g = s.lane / 4, quad = s.lane % 4 * 16, pitch = pitch_of(p.row_bytes);
  // Tokens and weight rows that there are not are the last one again; nobody stores their results.
  const uint32_t x = tokens + min(g, p.num_tokens - 1) * pitch + quad;
  const uint32_t x_far = tokens + min(g + 8, p.num_tokens - 1) * pitch + quad;
  Cursor from{s.begin};
  while (from.row < s.end) {
    float acc[4][4] = {}, bias[2];
    load_bias(s, from, bias);
    const uint32_t own = min(g, s.rows_at(from) - 1) * pitch_of(p.piece) + quad;
    for (bool is_last = false; !is_last;) {
      is_last = from.at + p.piece >= p.row_bytes;
      wait(s.full + 8 * from.stage, from.phase);
      multiply_piece<MANY>(s.ring + from.stage * s.stage_bytes + own, x + from.at, x_far + from.at,
                           s.bytes_at(from), acc);
      __syncwarp();
      if (is_last) store<MANY>(s, from, bias, acc);
      from.next(p);
      if (to.row < s.end) {
        s.bring(to);
        to.next(p);
      }
    }
  }
}

template <bool MANY>
__device__ void run(const Problem& p) {
  extern __shared__ __align__(128) uint8_t memory[];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const uint32_t tokens = smem_u32(memory), rings = tokens + p.num_tokens * pitch_of(p.row_bytes);
  const int stage_bytes = p.rows * pitch_of(p.piece), ring_bytes = p.stages * stage_bytes;
  const uint32_t barriers = rings + WARPS * ring_bytes, x_full = barriers + WARPS * p.stages * 8;
  const int64_t all = static_cast<int64_t>(gridDim.x) * WARPS, mine = blockIdx.x * WARPS + warp;
  const Share s{p,
                lane,
                static_cast<int>(p.n * mine / all),
                static_cast<int>(p.n * (mine + 1) / all),
                stage_bytes,
                rings + warp * ring_bytes,
                barriers + warp * p.stages * 8};
  if (lane == 0) {
    for (int i = 0; i < p.stages; ++i) barrier_init(s.full + 8 * i, 1);
    if (warp == 0) barrier_init(x_full, 1);
    barrier_init_fence();
  }
  __syncwarp();
  Cursor to{s.begin};
  for (int i = 0; i < p.stages && to.row < s.end; ++i, to.next(p)) s.bring(to);
  let_next_kernel_start();
  wait_for_previous_kernel();
  if (warp == 0)
    bring_tokens(reinterpret_cast<const char*>(p.x), p.num_tokens, p.row_bytes, tokens,
                 pitch_of(p.row_bytes), x_full, lane);
  __syncthreads();
  wait(x_full, 0);
  multiply<MANY>(s, to, tokens);
}

}  // namespace
}  // namespace haast

#define HAAST_LINEAR(NAME, MANY)                                                               \
  extern "C" __global__ void __launch_bounds__(haast::THREADS)                                 \
      NAME(const haast::bf16* x, const haast::bf16* weight, const haast::bf16* bias,           \
           haast::bf16* out, int num_tokens, int n, int row_bytes, int piece, int rows,        \
           int stages) {                                                                       \
    haast::run<MANY>({x, weight, bias, out, num_tokens, n, row_bytes, piece, rows, stages});   \
  }

HAAST_LINEAR(linear_mma_m8, false)
HAAST_LINEAR(linear_mma_m16, true)
