// Router logits -> the experts of each token, their weights, and the order that groups rows by
// expert. Tokens are taken 64 at a time: within such a block, expert e's tokens are a 64-bit mask
// (a token picks an expert at most once), so ranks are bit counts and no order depends on timing.
// One CTA has up to four blocks; where there are more each CTA has one, and there are two launches.
#include "choose.cuh"
#include "experts.cuh"

namespace haast {
namespace {

constexpr int BLOCK_TOKENS = 64;
constexpr int MOST_BLOCKS = 4;  // of one CTA
constexpr int AT_ONCE = 4;      // tokens of a warp whose logits load together
constexpr int WARPS = 32;
constexpr int THREADS = WARPS * 32;

struct Routing {
  int* ids;        // [T, A]
  float* weights;  // [T, A]
  int* offs;       // [E + 1]
  int* gather;     // [T A]
  int* scatter;    // [T A]
};

struct Masks {
  uint32_t word[MAX_EXPERTS][2];

  __device__ void clear() {
    for (int i = threadIdx.x; i < MAX_EXPERTS * 2; i += THREADS) (&word[0][0])[i] = 0;
  }
  __device__ void add(int expert, int token) {
    atomicOr(&word[expert][token / 32], 1u << (token % 32));
  }
  __device__ int count(int expert) const {
    return __popc(word[expert][0]) + __popc(word[expert][1]);
  }
  // How many tokens before this one.
  __device__ int rank(int expert, int token) const {
    const uint32_t below = (1u << (token % 32)) - 1;
    return token < 32 ? __popc(word[expert][0] & below)
                      : __popc(word[expert][0]) + __popc(word[expert][1] & below);
  }
};

__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(bf16 v) { return __bfloat162float(v); }

// The `count` tokens from `first`, of up to 32 LANE_EXPERTS experts: ids and weights, largest first,
// ties to the lower expert; and each block's masks of who chose whom. A warp takes every 32nd token.
template <int LANE_EXPERTS, class T>
__device__ void choose(const T* logits, const Routing& r, Masks* masks, int first, int count,
                       int num_experts, int choices) {
  const int lane = threadIdx.x % 32;
  for (int base = threadIdx.x / 32; base < count; base += AT_ONCE * WARPS) {
    uint32_t keys[AT_ONCE][LANE_EXPERTS];
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i)
#pragma unroll
      for (int j = 0; j < LANE_EXPERTS; ++j) {
        const int token = base + i * WARPS, expert = j * 32 + lane;
        const long at = static_cast<long>(first + token) * num_experts + expert;
        keys[i][j] = token < count && expert < num_experts ? key_of(to_float(logits[at])) : 0;
      }
#pragma unroll
    for (int i = 0; i < AT_ONCE; ++i) {
      const int token = base + i * WARPS;
      if (token >= count) break;
      int expert = 0;
      uint32_t key = 0;
      choose_of_keys(keys[i], choices, lane, expert, key);
      const float weight = choice_weight(key, choices, lane);
      if (lane < choices) {
        const long slot = static_cast<long>(first + token) * choices + lane;
        r.ids[slot] = expert;
        r.weights[slot] = weight;
        masks[token / BLOCK_TOKENS].add(expert, token % BLOCK_TOKENS);
      }
    }
  }
}

// With no more keys a lane than the experts need.
template <class T>
__device__ void choose(const T* logits, const Routing& r, Masks* masks, int first, int count,
                       int num_experts, int choices) {
  if (num_experts <= 32)
    choose<1>(logits, r, masks, first, count, num_experts, choices);
  else if (num_experts <= 128)
    choose<4>(logits, r, masks, first, count, num_experts, choices);
  else
    choose<MAX_EXPERTS / 32>(logits, r, masks, first, count, num_experts, choices);
}

// One warp: exclusive prefix sum of count(e) into offs[0 .. num_experts].
template <class Count>
__device__ void prefix_sum(int num_experts, int* offs, int lane, Count count) {
  int before = 0;
  for (int base = 0; base < num_experts; base += 32) {
    const int e = base + lane;
    const int own = e < num_experts ? count(e) : 0;
    int sum = own;
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0u, sum, step);
      if (lane >= step) sum += other;
    }
    if (e < num_experts) offs[e] = before + sum - own;
    before += __shfl_sync(~0u, sum, 31);
  }
  if (lane == 0) offs[num_experts] = before;
}

// Rows of the tokens from `first` to their places; those of expert e begin at begin(e, block).
template <class Begin>
__device__ void place(const Routing& r, const Masks* masks, int first, int count, int choices,
                      Begin begin) {
  for (int i = threadIdx.x; i < count * choices; i += THREADS) {
    const int slot = first * choices + i, token = i / choices, block = token / BLOCK_TOKENS;
    const int expert = r.ids[slot];
    const int at = begin(expert, block) + masks[block].rank(expert, token % BLOCK_TOKENS);
    r.gather[at] = first + token;
    r.scatter[at] = slot;
  }
}

// One CTA for all.
template <class T>
__device__ void route_small(const T* logits, const Routing& r, int num_tokens, int num_experts,
                            int choices) {
  __shared__ Masks masks[MOST_BLOCKS];
  __shared__ int offs[MAX_EXPERTS + 1];
  const int blocks = divide_up(num_tokens, BLOCK_TOKENS);
  for (int i = 0; i < blocks; ++i) masks[i].clear();
  let_next_kernel_start();
  wait_for_previous_kernel();
  __syncthreads();
  choose(logits, r, masks, 0, num_tokens, num_experts, choices);
  __syncthreads();
  const auto rows_before = [&](int expert, int block) {
    int rows = 0;
    for (int i = 0; i < block; ++i) rows += masks[i].count(expert);
    return rows;
  };
  if (threadIdx.x < 32)
    prefix_sum(num_experts, offs, threadIdx.x, [&](int e) { return rows_before(e, blocks); });
  __syncthreads();
  for (int e = threadIdx.x; e <= num_experts; e += THREADS) r.offs[e] = offs[e];
  place(r, masks, 0, num_tokens, choices,
        [&](int expert, int block) { return offs[expert] + rows_before(expert, block); });
}

// First of two launches: each CTA chooses for a block and counts, counts [blocks, E].
template <class T>
__device__ void route_choose(const T* logits, const Routing& r, int* counts, int num_tokens,
                             int num_experts, int choices) {
  __shared__ Masks masks;
  masks.clear();
  let_next_kernel_start();
  wait_for_previous_kernel();
  __syncthreads();
  const int first = blockIdx.x * BLOCK_TOKENS;
  choose(logits, r, &masks, first, min(BLOCK_TOKENS, num_tokens - first), num_experts, choices);
  __syncthreads();
  for (int e = threadIdx.x; e < num_experts; e += THREADS)
    counts[blockIdx.x * num_experts + e] = masks.count(e);
}

}  // namespace
}  // namespace haast

#define HAAST_ROUTE_ARGUMENTS(T)                                                           \
  const T *logits, int *ids, float *weights, int *offs, int *gather, int *scatter,         \
      int num_tokens, int num_experts, int choices
#define HAAST_ROUTING \
  haast::Routing { ids, weights, offs, gather, scatter }

#define HAAST_ROUTE(T, NAME)                                                                   \
  extern "C" __global__ void __launch_bounds__(haast::THREADS)                                 \
      route_small_##NAME(HAAST_ROUTE_ARGUMENTS(T)) {                                           \
    haast::route_small(logits, HAAST_ROUTING, num_tokens, num_experts, choices);               \
  }                                                                                            \
  extern "C" __global__ void __launch_bounds__(haast::THREADS)                                 \
      route_choose_##NAME(HAAST_ROUTE_ARGUMENTS(T), int* counts) {                             \
    haast::route_choose(logits, HAAST_ROUTING, counts, num_tokens, num_experts, choices);      \
  }

HAAST_ROUTE(haast::bf16, bf16)
HAAST_ROUTE(float, fp32)

// Second of two launches: from all counts, where each expert's rows of this block begin.
extern "C" __global__ void __launch_bounds__(haast::THREADS)
    route_place(const int* ids, const int* counts, int* offs, int* gather, int* scatter,
                int num_tokens, int num_experts, int choices) {
  using namespace haast;
  __shared__ Masks masks;
  __shared__ int total[MAX_EXPERTS], before[MAX_EXPERTS], base[MAX_EXPERTS + 1];
  masks.clear();
  for (int e = threadIdx.x; e < MAX_EXPERTS; e += THREADS) total[e] = before[e] = 0;
  let_next_kernel_start();
  wait_for_previous_kernel();
  __syncthreads();
  const int first = blockIdx.x * BLOCK_TOKENS, count = min(BLOCK_TOKENS, num_tokens - first);
  for (int i = threadIdx.x; i < count * choices; i += THREADS)
    masks.add(ids[first * choices + i], i / choices);
  for (int i = threadIdx.x; i < static_cast<int>(gridDim.x) * num_experts; i += THREADS) {
    const int count = counts[i], e = i % num_experts;
    if (!count) continue;
    atomicAdd(&total[e], count);
    if (i < static_cast<int>(blockIdx.x) * num_experts) atomicAdd(&before[e], count);
  }
  __syncthreads();
  if (threadIdx.x < 32)
    prefix_sum(num_experts, base, threadIdx.x, [&](int e) { return total[e]; });
  __syncthreads();
  if (blockIdx.x == 0)
    for (int e = threadIdx.x; e <= num_experts; e += THREADS) offs[e] = base[e];
  __syncthreads();
  for (int e = threadIdx.x; e < num_experts; e += THREADS) base[e] += before[e];
  __syncthreads();
  place(Routing{const_cast<int*>(ids), nullptr, offs, gather, scatter}, &masks, first, count,
        choices, [&](int expert, int) { return base[expert]; });
}
