// The head of few tokens by way of its 8-bit shadow: first the codes say between what every logit
// lies, then the logits that may matter are computed. Why that is exact, and where the constants are
// from: haast/ops/shortlist/reference.py.
//
// Bounds: every warp has eight rows at a time, every so many later the next eight, so that tokens
// with ids near each other are in different CTAs. It brings pieces of their codes itself, through a
// ring of its own, the first ones before the previous kernel has ended: no kernel writes codes.
//
// Choice: every CTA looks at its share of the upper ends, and computes those rows of the weight that
// any token may need, however many they are, in the order of linear.cu: the same bits.
#include "float_key.cuh"
#include "mma.cuh"
#include "token_rows.cuh"

namespace haast {
namespace {

constexpr uint32_t ALL = ~0u;
constexpr float INF = __builtin_inff();
constexpr int MAX_TOKENS = 16;
constexpr int ROWS = 8;  // of the weight at a time, one a column of the mma

// ---- bounds

constexpr int SCAN_WARPS = 8;
constexpr int SCAN_THREADS = 32 * SCAN_WARPS;
constexpr int STEP = 64;  // of K, and bytes of codes: what 4 lanes load at once, four mma
constexpr float LARGEST = 0x1p40f, NORM_LOSS = 0x1p-12f, SPARE_NORM = 0x1p-50f, SPARE = 0x1p-64f;

struct Scan {
  const bf16* x;         // [T, K]
  const int8_t* codes;   // [V, K]
  const float2* bounds;  // [V]: scale, radius
  bf16* upper;           // [T, V]
  float* best;           // [T, CTAs], the largest lower end of each
  int num_tokens, n, k;
  int piece, stages;  // codes of a row at a time, ring
};

// Of tokens, of which 4 lanes read 16 bytes every 32: the neighbour's lie between.
__device__ __forceinline__ int token_pitch_of(int k) { return 2 * k + 16; }

// Where a warp is in its rows, and in its ring.
struct Cursor {
  int row;     // first of eight
  int at = 0;  // code of each
  int stage = 0;
  uint32_t phase = 0;

  __device__ void next(const Scan& p) {
    at += p.piece;
    if (at >= p.k) {
      at = 0;
      row += gridDim.x * SCAN_WARPS * ROWS;
    }
    if (++stage == p.stages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// A warp's ring and the barriers of that.
struct Share {
  const Scan& p;
  int lane, stage_bytes;
  uint32_t ring, full;

  __device__ int rows_at(const Cursor& c) const { return min(ROWS, p.n - c.row); }
  __device__ int codes_at(const Cursor& c) const { return min(p.piece, p.k - c.at); }

  __device__ void bring(const Cursor& c) const {
    const int rows = rows_at(c), codes = codes_at(c);
    const uint32_t to = ring + c.stage * stage_bytes, barrier = full + 8 * c.stage;
    if (lane == 0) arrive_expect(barrier, rows * codes);
    __syncwarp();
    const int64_t row = c.row + lane;
    if (lane < rows)
      bulk_load_once(to + lane * pitch_of(p.piece), p.codes + row * p.k + c.at, codes, barrier);
  }
};

// Two codes, in bytes 0 and 2, to bf16, exactly. With m its lower seven bits and h its sign, a code
// is (128 + m) - (128 + 128 h), and the bits of both numbers lie ready.
__device__ __forceinline__ uint32_t to_bf16(uint32_t two) {
  const uint32_t value = (two & 0x007F007Fu) | 0x43004300u;
  const uint32_t offset = (two & 0x00800080u) | 0x43004300u;
  const __nv_bfloat162 pair = __hsub2(*reinterpret_cast<const __nv_bfloat162*>(&value),
                                      *reinterpret_cast<const __nv_bfloat162*>(&offset));
  return *reinterpret_cast<const uint32_t*>(&pair);
}

// Lane (g, t) has tokens g and g + 8, weight rows 2 t and 2 t + 1. Of every 64 of K it loads those
// from 16 t on, of token and of weight row g alike.
template <bool MANY>
struct Codes {
  uint4 codes, near[2], far[2];  // of weight row g, of token g, of token g + 8

  __device__ __forceinline__ void load(uint32_t codes_at, uint32_t near_at, uint32_t far_at) {
    codes = load_shared16(codes_at);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      near[i] = load_shared16(near_at + 16 * i);
      far[i] = MANY ? load_shared16(far_at + 16 * i) : make_uint4(0, 0, 0, 0);
    }
  }

  __device__ __forceinline__ void multiply(float (&acc)[4][4]) const {
    const uint32_t words[4] = {codes.x, codes.y, codes.z, codes.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint4 &a = near[i / 2], &b = far[i / 2];
      const uint32_t low = to_bf16(__byte_perm(words[i], 0, 0x4140));
      const uint32_t high = to_bf16(__byte_perm(words[i], 0, 0x4342));
      if (i % 2 == 0)
        mma(acc[i], {a.x, b.x, a.y, b.y}, low, high);
      else
        mma(acc[i], {a.z, b.z, a.w, b.w}, low, high);
    }
  }
};

// 64 of K at a time; those after them load meanwhile.
template <bool MANY>
__device__ __forceinline__ void multiply_codes(uint32_t codes, uint32_t near, uint32_t far,
                                               int bytes, float (&acc)[4][4]) {
  Codes<MANY> now, next;
  now.load(codes, near, far);
  int at = STEP;
  for (; at + STEP < bytes; at += 2 * STEP) {
    next.load(codes + at, near + 2 * at, far + 2 * at);
    now.multiply(acc);
    now.load(codes + at + STEP, near + 2 * (at + STEP), far + 2 * (at + STEP));
    next.multiply(acc);
  }
  if (at < bytes) next.load(codes + at, near + 2 * at, far + 2 * at);
  now.multiply(acc);
  if (at < bytes) next.multiply(acc);
}

// No smaller than the norm of a token's hidden state; infinite if that has no bound.
__device__ __forceinline__ float norm_of(uint32_t token, int k, int lane) {
  float sum = 0.0f;
  for (int at = 16 * lane; at < 2 * k; at += 16 * 32) {
    const uint4 v = load_shared16(token + at);
    const uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float low = __uint_as_float(pairs[i] << 16);
      const float high = __uint_as_float(pairs[i] & 0xFFFF0000u);
      sum += low * low;
      sum += high * high;
    }
  }
#pragma unroll
  for (int step = 16; step; step /= 2) sum += __shfl_xor_sync(ALL, sum, step);
  const float norm = sqrtf(sum) * (1.0f + NORM_LOSS) + SPARE_NORM;
  return norm <= LARGEST ? norm : INF;
}

// Writes the upper ends of eight rows; keeps the largest lower one of this lane's two tokens.
template <bool MANY>
__device__ __forceinline__ void bound(const Share& s, const Cursor& c, const float4& scales_radii,
                                      const float (&norms)[2], const float (&acc)[4][4],
                                      float (&best)[2]) {
  const int g = s.lane / 4, t = s.lane % 4;
#pragma unroll
  for (int i = 0; i < (MANY ? 4 : 2); ++i) {
    const int token = g + i / 2 * 8, row = 2 * t + i % 2;
    if (token >= s.p.num_tokens || row >= s.rows_at(c)) continue;
    const float scale = i % 2 ? scales_radii.z : scales_radii.x;
    const float radius = i % 2 ? scales_radii.w : scales_radii.y;
    const float middle = scale * ((acc[0][i] + acc[1][i]) + (acc[2][i] + acc[3][i]));
    const float slack = norms[i / 2] * radius + SPARE;
    const int64_t at = static_cast<int64_t>(token) * s.p.n + c.row + row;
    s.p.upper[at] = __float2bfloat16_rn(middle + slack);
    const float lower = __bfloat162float(__float2bfloat16_rn(middle - slack));
    best[i / 2] = fmaxf(best[i / 2], lower);  // NaN is none
  }
}

__device__ __forceinline__ float4 load_bounds(const Share& s, const Cursor& c) {
  const int row = s.lane % 4 * 2, rows = s.rows_at(c);
  const float2* from = s.p.bounds + c.row;
  const float2 none = make_float2(0.0f, 0.0f);
  const float2 first = row < rows ? __ldg(from + row) : none;
  const float2 second = row + 1 < rows ? __ldg(from + row + 1) : none;
  return make_float4(first.x, first.y, second.x, second.y);
}

template <bool MANY>
__device__ void scan_rows(const Share& s, Cursor from, Cursor to, uint32_t tokens,
                          const float (&norms)[2], float (&best)[2]) {
  const Scan& p = s.p;
  const int g = s.lane / 4, t = s.lane % 4, pitch = token_pitch_of(p.k);
  // Tokens and rows that there are not are the last one again; nobody keeps their results.
  const uint32_t near = tokens + min(g, p.num_tokens - 1) * pitch + 32 * t;
  const uint32_t far = tokens + min(g + 8, p.num_tokens - 1) * pitch + 32 * t;
  while (from.row < p.n) {
    float acc[4][4] = {};
    const float4 scales_radii = load_bounds(s, from);
    const uint32_t own = min(g, s.rows_at(from) - 1) * pitch_of(p.piece) + 16 * t;
    for (bool is_last = false; !is_last;) {
      is_last = from.at + p.piece >= p.k;
      wait(s.full + 8 * from.stage, from.phase);
      multiply_codes<MANY>(s.ring + from.stage * s.stage_bytes + own, near + 2 * from.at,
                           far + 2 * from.at, s.codes_at(from), acc);
      __syncwarp();
      if (is_last) bound<MANY>(s, from, scales_radii, norms, acc, best);
      from.next(p);
      if (to.row < p.n) {
        s.bring(to);
        to.next(p);
      }
    }
  }
}

// The largest lower end of each token over this CTA's rows.
__device__ __forceinline__ void tell_best(const Scan& p, float (&best)[2],
                                          float (&warps)[SCAN_WARPS][MAX_TOKENS]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    best[i] = fmaxf(best[i], __shfl_xor_sync(ALL, best[i], 1));
    best[i] = fmaxf(best[i], __shfl_xor_sync(ALL, best[i], 2));
    if (lane % 4 == 0) warps[warp][lane / 4 + 8 * i] = best[i];
  }
  __syncthreads();
  const int token = threadIdx.x;
  if (token >= p.num_tokens) return;
  float all = warps[0][token];
#pragma unroll
  for (int w = 1; w < SCAN_WARPS; ++w) all = fmaxf(all, warps[w][token]);
  p.best[token * gridDim.x + blockIdx.x] = all;
}

template <bool MANY>
__device__ void scan(const Scan& p) {
  extern __shared__ __align__(128) uint8_t memory[];
  __shared__ float of_warps[SCAN_WARPS][MAX_TOKENS], of_tokens[MAX_TOKENS];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, pitch = token_pitch_of(p.k);
  const uint32_t tokens = smem_u32(memory), rings = tokens + p.num_tokens * pitch;
  const int stage_bytes = ROWS * pitch_of(p.piece), ring_bytes = p.stages * stage_bytes;
  const uint32_t barriers = rings + SCAN_WARPS * ring_bytes;
  const uint32_t x_full = barriers + SCAN_WARPS * p.stages * 8;
  const Share s{p, lane, stage_bytes, rings + warp * ring_bytes, barriers + warp * p.stages * 8};
  if (lane == 0) {
    for (int i = 0; i < p.stages; ++i) barrier_init(s.full + 8 * i, 1);
    if (warp == 0) barrier_init(x_full, 1);
    barrier_init_fence();
  }
  __syncwarp();
  const Cursor begin{static_cast<int>(blockIdx.x * SCAN_WARPS + warp) * ROWS};
  Cursor to = begin;
  for (int i = 0; i < p.stages && to.row < p.n; ++i, to.next(p)) s.bring(to);
  let_next_kernel_start();
  wait_for_previous_kernel();
  if (warp == 0) bring_tokens(p.x, p.num_tokens, p.k, tokens, pitch, x_full, lane);
  __syncthreads();
  wait(x_full, 0);
  for (int token = warp; token < p.num_tokens; token += SCAN_WARPS) {
    const float norm = norm_of(tokens + token * pitch, p.k, lane);
    if (lane == 0) of_tokens[token] = norm;
  }
  __syncthreads();
  const float norms[2] = {of_tokens[min(lane / 4, p.num_tokens - 1)],
                          of_tokens[min(lane / 4 + 8, p.num_tokens - 1)]};
  float best[2] = {-INF, -INF};
  scan_rows<MANY>(s, begin, to, tokens, norms, best);
  tell_best(p, best, of_warps);
}

// ---- choice

constexpr int WARPS = 16;
constexpr int THREADS = 32 * WARPS;
constexpr int BLOCK = 128;    // bytes of a row at a time
constexpr int DEPTH = 5;      // of them on their way; with more it does not fit beside the scan
constexpr int HELD = 8;       // CTAs of the scan whose best a lane holds
constexpr int FEW_ROWS = 64;  // that are fetched ahead
constexpr float MIN_P_SLACK = 0.01f;

struct Choice {
  const bf16 *x, *weight;  // [T, K], [V, K]
  const float* best;       // [T, groups]
  const float* temperature;
  const int* top_k;
  const float *top_p, *min_p;  // [T] each
  bf16* logits;                // [T, V]: upper ends, of which logits are made
  unsigned long long* num_computed;
  int num_tokens, n, k, groups;
};

// The upper half of a key, which is all of a bf16, to its number.
__device__ __forceinline__ float value_of_half(uint32_t half) {
  return value_of(half << 16 | (half & 0x8000u ? 0u : 0xFFFFu));
}

// Below it no logit of this token is kept: the k-th largest of what groups of rows reach, or what
// min_p leaves. Minus infinity if its settings have no such number.
__device__ float least_kept(const Choice& p, int token, int lane) {
  uint32_t keys[HELD], top = 0, kth = 0;
#pragma unroll
  for (int i = 0; i < HELD; ++i) {
    const int at = lane + 32 * i;
    keys[i] = at < p.groups ? key_of(p.best[token * p.groups + at]) >> 16 : 0;
    top = max(top, keys[i]);
  }
  top = __reduce_max_sync(ALL, top);
  const float temperature = p.temperature[token];
  const int count = temperature == 0.0f ? 1 : max(p.top_k[token], 1);
  if (count == 1) kth = top;
  for (int bit = count > 1 && count <= p.groups ? 15 : -1; bit >= 0; --bit) {
    const uint32_t trial = kth | 1u << bit;
    int reached = 0;
#pragma unroll
    for (int i = 0; i < HELD; ++i) reached += keys[i] >= trial;
    if (__reduce_add_sync(ALL, reached) >= count) kth = trial;
  }
  const float by_count = kth ? value_of_half(kth) : -INF;
  if (temperature == 0.0f || p.top_p[token] < 1.0f) return by_count;
  const float further = temperature * (logf(p.min_p[token]) - MIN_P_SLACK);
  return fmaxf(by_count, value_of_half(top) + further);
}

// Lists the rows of this CTA that some token may need; what is in none has no logits.
__device__ void list_rows(const Choice& p, const float (&least)[MAX_TOKENS], int* list,
                          int& count) {
  const int lane = threadIdx.x % 32;
  for (int first = blockIdx.x * THREADS; first < p.n; first += gridDim.x * THREADS) {
    const int row = first + threadIdx.x;
    bf16* own = p.logits + row;
    bool is_needed = false;
    if (row < p.n) {
#pragma unroll 4
      for (int token = 0; token < p.num_tokens; ++token) {
        const float upper = __bfloat162float(own[static_cast<int64_t>(token) * p.n]);
        is_needed |= !(upper < least[token]);  // NaN is needed
      }
      if (!is_needed)
        for (int token = 0; token < p.num_tokens; ++token)
          own[static_cast<int64_t>(token) * p.n] = __float2bfloat16_rn(-INF);
    }
    const uint32_t needed = __ballot_sync(ALL, is_needed);
    int before = 0;
    if (lane == 0 && needed) before = atomicAdd(&count, __popc(needed));
    before = __shfl_sync(ALL, before, 0) + __popc(needed & ((1u << lane) - 1));
    if (is_needed) list[before] = row;
  }
}

__device__ __forceinline__ uint4 load_once(const char* at) {
  return __ldg(reinterpret_cast<const uint4*>(at));
}

// 64 of K: lane (g, t) has of every 32 those from 8 t on, of weight row g and tokens g and g + 8.
template <bool MANY>
__device__ __forceinline__ void multiply_block(const uint4 (&weight)[2], uint32_t near,
                                               uint32_t far, float (&acc)[4][4]) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint4 w = weight[i], a = load_shared16(near + 64 * i);
    const uint4 b = MANY ? load_shared16(far + 64 * i) : make_uint4(0, 0, 0, 0);
    mma(acc[2 * i], {a.x, b.x, a.y, b.y}, w.x, w.y);
    mma(acc[2 * i + 1], {a.z, b.z, a.w, b.w}, w.z, w.w);
  }
}

template <bool MANY>
__device__ __forceinline__ void multiply_rows(const char* weight, uint32_t near, uint32_t far,
                                              int bytes, float (&acc)[4][4]) {
  uint4 held[DEPTH][2];
  const auto load = [&](uint4(&to)[2], int at) {
    if (at >= bytes) return;
    to[0] = load_once(weight + at);
    to[1] = load_once(weight + at + BLOCK / 2);
  };
#pragma unroll
  for (int i = 0; i < DEPTH; ++i) load(held[i], i * BLOCK);
  for (int first = 0; first < bytes; first += DEPTH * BLOCK) {
#pragma unroll
    for (int i = 0; i < DEPTH; ++i) {
      const int at = first + i * BLOCK;
      if (at >= bytes) break;
      multiply_block<MANY>(held[i], near + at, far + at, acc);
      load(held[i], at + DEPTH * BLOCK);
    }
  }
}

// The listed rows' logits, of all tokens. Bits are those of linear.cu, in whose order this adds.
template <bool MANY>
__device__ void compute_rows(const Choice& p, const int* list, int count, uint32_t tokens) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int bytes = 2 * p.k, pitch = pitch_of(bytes);
  const uint32_t near = tokens + min(g, p.num_tokens - 1) * pitch + 16 * t;
  const uint32_t far = tokens + min(g + 8, p.num_tokens - 1) * pitch + 16 * t;
  for (int first = warp * ROWS; first < count; first += WARPS * ROWS) {
    const int64_t own = list[min(first + g, count - 1)];
    float acc[4][4] = {};
    multiply_rows<MANY>(reinterpret_cast<const char*>(p.weight) + own * bytes + 16 * t, near, far,
                        bytes, acc);
#pragma unroll
    for (int i = 0; i < (MANY ? 4 : 2); ++i) {
      const int token = g + i / 2 * 8, at = first + 2 * t + i % 2;
      if (token >= p.num_tokens || at >= count) continue;
      const float sum = (acc[0][i] + acc[1][i]) + (acc[2][i] + acc[3][i]);
      // the bias that linear.cu adds makes 0 of -0
      p.logits[static_cast<int64_t>(token) * p.n + list[at]] = __float2bfloat16_rn(sum + 0.0f);
    }
  }
}

template <bool MANY>
__device__ void choose(const Choice& p) {
  extern __shared__ __align__(128) uint8_t memory[];
  __shared__ float least[MAX_TOKENS];
  __shared__ uint64_t x_full;
  __shared__ int count;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, pitch = pitch_of(2 * p.k);
  const uint32_t tokens = smem_u32(memory), full = smem_u32(&x_full);
  int* list = reinterpret_cast<int*>(memory + p.num_tokens * pitch);
  if (threadIdx.x == 0) {
    barrier_init(full, 1);
    barrier_init_fence();
    count = 0;
  }
  __syncwarp();
  let_next_kernel_start();
  wait_for_previous_kernel();
  if (warp == 0) bring_tokens(p.x, p.num_tokens, p.k, tokens, pitch, full, lane);
  if (warp < p.num_tokens) {
    const float found = least_kept(p, warp, lane);
    if (lane == 0) least[warp] = found;
  }
  __syncthreads();
  list_rows(p, least, list, count);
  __syncthreads();
  if (count <= FEW_ROWS && threadIdx.x < count)
    prefetch_l2(p.weight + static_cast<int64_t>(list[threadIdx.x]) * p.k, 2 * p.k);
  if (threadIdx.x == 0 && count) atomicAdd(p.num_computed, static_cast<unsigned long long>(count));
  wait(full, 0);
  compute_rows<MANY>(p, list, count, tokens);
}

}  // namespace
}  // namespace haast

#define HAAST_SHORTLIST(NAME, MANY)                                                               \
  extern "C" __global__ void __launch_bounds__(haast::SCAN_THREADS) shortlist_scan_##NAME(        \
      const haast::bf16* x, const int8_t* codes, const float2* bounds, haast::bf16* upper,        \
      float* best, int num_tokens, int n, int k, int piece, int stages) {                         \
    haast::scan<MANY>({x, codes, bounds, upper, best, num_tokens, n, k, piece, stages});          \
  }                                                                                               \
  extern "C" __global__ void __launch_bounds__(haast::THREADS) shortlist_choose_##NAME(           \
      const haast::bf16* x, const haast::bf16* weight, const float* best,                         \
      const float* temperature, const int* top_k, const float* top_p, const float* min_p,         \
      haast::bf16* logits, unsigned long long* num_computed, int num_tokens, int n, int k,        \
      int groups) {                                                                               \
    haast::choose<MANY>({x, weight, best, temperature, top_k, top_p, min_p, logits, num_computed, \
                         num_tokens, n, k, groups});                                              \
  }

HAAST_SHORTLIST(m8, false)
HAAST_SHORTLIST(m16, true)
