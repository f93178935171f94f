// Logits -> one token a row. Eight CTAs, a cluster, hold a row in their shared memory: it is read
// from global memory once, however many passes follow. Every warp owns consecutive tokens.
//
// The tokens that top-k, top-p and min-p keep are those above one logit and some of those equal to
// it, by id. That logit is found digit by digit of its key, from how many tokens, or how much of
// the probability, each digit has. No float is added twice in two orders: what eight consecutive
// tokens weigh is a float, all other sums are of integers.
#include "cluster.cuh"
#include "float_key.cuh"
#include "lanes.cuh"

namespace haast {
namespace {

constexpr int CTAS = 8;  // of a row
constexpr int WARPS = 16;
constexpr int THREADS = WARPS * 32;
constexpr int GROUP = 8;  // tokens
constexpr int DIGIT = 9;  // bits of a key
constexpr int BINS = 1 << DIGIT;
constexpr int CTA_BINS = BINS / CTAS;
constexpr uint32_t ALL = ~0u;
constexpr float MASS_OF_ONE = 0x1p44f;  // of the most likely token; 2^20 such fit in 64 bits
constexpr float INF = __builtin_inff();
static_assert(BINS == THREADS, "a thread a bin");

struct Settings {  // [B] each
  const float* temperature;
  const int* top_k;
  const float* top_p;
  const float* min_p;
  const uint64_t* seed;
  const int* position;
};

// Where the sum, from the largest logit down, first reaches a target.
struct Crossing {
  bool exists;
  uint32_t key;               // the last one of the digit
  uint32_t count_above, count;  // tokens with larger logits, with this one
  uint64_t mass_above;
};

struct Bin {
  int digit;
  uint32_t count_above, count;
  uint64_t mass_above;
};

struct Shared {
  // every CTA writes its place in all CTAs
  uint32_t top[CTAS], least_warp[CTAS], least_lane[CTAS], ties[CTAS];
  int first[CTAS];
  uint64_t mass[2][CTAS];
  uint32_t total_count[BINS];
  uint64_t total_mass[BINS];
  // of this CTA
  uint64_t copied[WARPS];  // barriers
  uint64_t warp_mass[WARPS], scan_mass[WARPS];
  uint32_t warp_top[WARPS], warp_least[WARPS], warp_ties[WARPS], scan_count[WARPS];
  uint32_t count[BINS], mass_low[BINS], mass_high[BINS];
  Bin found;
  uint32_t random;
};

// A warp's tokens, in shared memory, padded with -inf.
template <class T>
struct Segment {
  T* values;
  int first;   // token
  int groups;
  int lane;
};

// Relative to the most likely token.
struct Weigher {
  float top, scale;
  __device__ float operator()(float x) const { return exp2_fast((x - top) * scale); }
};

// Tokens of a segment above a logit, or equal to it with an id below tie_end, that weigh enough.
struct Kept {
  float least;
  int tie_end;
  float min_weight;
  __device__ bool operator()(float x, int id, float weight) const {
    return (x > least || (x == least && id < tie_end)) && weight >= min_weight;
  }
};

__device__ __forceinline__ uint64_t mass_of(float weight) {
  return __float2ull_rz(weight * MASS_OF_ONE);
}

// ---- groups of eight tokens

__device__ __forceinline__ void load_group(const bf16* at, float (&x)[GROUP]) {
  const uint4 v = *reinterpret_cast<const uint4*>(at);
  const uint32_t pairs[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    x[2 * i] = __uint_as_float(pairs[i] << 16);
    x[2 * i + 1] = __uint_as_float(pairs[i] & 0xFFFF0000u);
  }
}

__device__ __forceinline__ void load_group(const float* at, float (&x)[GROUP]) {
  const float4 low = reinterpret_cast<const float4*>(at)[0];
  const float4 high = reinterpret_cast<const float4*>(at)[1];
  x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
  x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
}

// NaN if there is one.
__device__ __forceinline__ float largest_of(const bf16* at) {
  const uint4 v = *reinterpret_cast<const uint4*>(at);
  const auto* pairs = reinterpret_cast<const __nv_bfloat162*>(&v);
  const __nv_bfloat162 best =
      __hmax2_nan(__hmax2_nan(pairs[0], pairs[1]), __hmax2_nan(pairs[2], pairs[3]));
  return max_or_nan(__low2float(best), __high2float(best));
}

__device__ __forceinline__ float largest_of(const float* at) {
  float x[GROUP];
  load_group(at, x);
  float best = x[0];
#pragma unroll
  for (int j = 1; j < GROUP; ++j) best = max_or_nan(best, x[j]);
  return best;
}

// sums[j]: what the first j + 1 tokens weigh, in the same order wherever it is asked.
template <bool FILTERED>
__device__ __forceinline__ void weigh_group(const float (&x)[GROUP], int id, const Weigher& weigh,
                                            const Kept& kept, float (&sums)[GROUP]) {
  float sum = 0.0f;
#pragma unroll
  for (int j = 0; j < GROUP; ++j) {
    const float weight = weigh(x[j]);
    sum += !FILTERED || kept(x[j], id + j, weight) ? weight : 0.0f;
    sums[j] = sum;
  }
}

// Of this lane and those before it.
template <class V>
__device__ __forceinline__ V sum_up_to_lane(V v, int lane) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const V other = __shfl_up_sync(ALL, v, step);
    if (lane >= step) v += other;
  }
  return v;
}

// ---- loading

__device__ __forceinline__ void set(float& to, float v) { to = v; }
__device__ __forceinline__ void set(bf16& to, float v) { to = __float2bfloat16(v); }
__device__ __forceinline__ float get(float v) { return v; }
__device__ __forceinline__ float get(bf16 v) { return __bfloat162float(v); }
__device__ __forceinline__ float largest_finite(float) { return 3.4028234664e38f; }
__device__ __forceinline__ float largest_finite(bf16) { return 3.3895313892e38f; }

// A warp's part of the row; rows that do not begin at 16 bytes come token by token.
template <class T>
__device__ void load_segment(const Segment<T>& own, const T* row, int vocab, uint32_t barrier) {
  const int size = own.groups * GROUP;
  const int valid = min(max(vocab - own.first, 0), size);
  if (vocab % GROUP == 0) {
    const int bytes = valid * static_cast<int>(sizeof(T));
    if (own.lane == 0 && bytes) {
      arrive_expect(barrier, bytes);
      bulk_load_once(smem_u32(own.values), row + own.first, bytes, barrier);
    }
    for (int i = valid + own.lane; i < size; i += 32) set(own.values[i], -INF);
    if (bytes) wait(barrier, 0);
  } else {
    for (int i = own.lane; i < size; i += 32)
      set(own.values[i], i < valid ? get(row[own.first + i]) : -INF);
  }
  __syncwarp();
}

template <class T>
__device__ float largest(const Segment<T>& own) {
  float best = -INF;
  for (int g = own.lane; g < own.groups; g += 32)
    best = max_or_nan(best, largest_of(own.values + g * GROUP));
  return best;
}

// NaN -> -inf, +inf -> the largest number: weights are differences, and have to exist.
template <class T>
__device__ void make_finite(const Segment<T>& own) {
  for (int i = own.lane; i < own.groups * GROUP; i += 32) {
    const float v = get(own.values[i]);
    if (v != v) set(own.values[i], -INF);
    if (v == INF) set(own.values[i], largest_finite(T()));
  }
  __syncwarp();
}

// ---- the largest logit

template <class T>
__device__ int first_equal(const Segment<T>& own, float value) {
  for (int base = 0; base < own.groups; base += 32) {
    const int g = base + own.lane;
    int at = GROUP;
    if (g < own.groups) {
      float x[GROUP];
      load_group(own.values + g * GROUP, x);
#pragma unroll
      for (int j = GROUP - 1; j >= 0; --j) at = x[j] == value ? j : at;
    }
    const uint32_t found = __ballot_sync(ALL, at < GROUP);
    if (found) return __shfl_sync(ALL, own.first + g * GROUP + at, __ffs(found) - 1);
  }
  return own.first;
}

// Tells all CTAs this one's largest logit, the first token that has it if that is wanted, and the
// smallest of the largest logits of its warps and of its lanes.
template <class T>
__device__ void tell_top(const Segment<T>& own, Shared& s, int rank, bool is_greedy) {
  const int warp = threadIdx.x / 32, lane = own.lane;
  float best = largest(own);
  if (__any_sync(ALL, best != best || best == INF)) {
    make_finite(own);
    best = largest(own);
  }
  const uint32_t warp_top = __reduce_max_sync(ALL, key_of(best));
  const uint32_t warp_least = __reduce_min_sync(ALL, key_of(best));
  if (lane == 0) {
    s.warp_top[warp] = warp_top;
    s.warp_least[warp] = warp_least;
  }
  __syncthreads();
  const uint32_t tops = s.warp_top[lane % WARPS];
  const uint32_t top = __reduce_max_sync(ALL, tops);
  const uint32_t least_warp = __reduce_min_sync(ALL, tops);
  const uint32_t least_lane = __reduce_min_sync(ALL, s.warp_least[lane % WARPS]);
  const int holder = __ffs(__ballot_sync(ALL, tops == top)) - 1;
  cluster_wait();  // all CTAs have begun
  if (warp == holder) {
    const bool is_wanted = is_greedy || top == KEY_OF_MINUS_INF;
    const int first = is_wanted ? first_equal(own, value_of(top)) : 0;
    if (lane < CTAS) {
      Shared* there = in_cta(&s, lane);
      there->top[rank] = top;
      there->least_warp[rank] = least_warp;
      there->least_lane[rank] = least_lane;
      there->first[rank] = first;
    }
  }
  cluster_sync();
}

// ---- sums over the row

// What the row's kept tokens weigh; what this warp's do is in warp_mass.
template <bool FILTERED, class T>
__device__ uint64_t mass_of_row(const Segment<T>& own, Shared& s, int rank, const Weigher& weigh,
                                const Kept& kept) {
  const int warp = threadIdx.x / 32;
  uint64_t mass = 0;
  for (int g = own.lane; g < own.groups; g += 32) {
    float x[GROUP], sums[GROUP];
    load_group(own.values + g * GROUP, x);
    weigh_group<FILTERED>(x, own.first + g * GROUP, weigh, kept, sums);
    mass += mass_of(sums[GROUP - 1]);
  }
  mass = sum_of_lanes(mass);
  if (own.lane == 0) s.warp_mass[warp] = mass;
  __syncthreads();
  if (threadIdx.x < CTAS) {
    uint64_t sum = 0;
    for (int w = 0; w < WARPS; ++w) sum += s.warp_mass[w];
    in_cta(&s, threadIdx.x)->mass[FILTERED][rank] = sum;
  }
  cluster_sync();
  uint64_t total = 0;
  for (int c = 0; c < CTAS; ++c) total += s.mass[FILTERED][c];
  return total;
}

// Counts tokens whose keys are in a range under a digit of theirs, and adds what they weigh.
template <class T>
__device__ void fill_bins(const Segment<T>& own, Shared& s, const Weigher& weigh, uint32_t first,
                          uint32_t last, int shift, bool has_mass) {
  const float least = value_of(max(first, KEY_OF_MINUS_INF));
  uint32_t hidden = 0;  // by a mask or a shortlist: most of a row, too many for an atomic each
  for (int g = own.lane; g < own.groups; g += 32) {
    float x[GROUP];
    load_group(own.values + g * GROUP, x);
#pragma unroll
    for (int j = 0; j < GROUP; ++j) {
      if (!(x[j] >= least)) continue;
      if (x[j] == -INF) {
        ++hidden;
        continue;
      }
      const uint32_t key = key_of(x[j]);
      if (key < first || key > last) continue;
      const int bin = key >> shift & (BINS - 1);
      atomicAdd(&s.count[bin], 1u);
      if (!has_mass) continue;
      const uint64_t mass = mass_of(weigh(x[j]));
      const uint32_t low = static_cast<uint32_t>(mass);
      const uint32_t before = atomicAdd(&s.mass_low[bin], low);
      atomicAdd(&s.mass_high[bin], static_cast<uint32_t>(mass >> 32) + (before + low < low));
    }
  }
  if (first > KEY_OF_MINUS_INF || last < KEY_OF_MINUS_INF) return;
  hidden = sum_of_lanes(hidden);  // which weigh nothing
  if (own.lane == 0) atomicAdd(&s.count[KEY_OF_MINUS_INF >> shift & (BINS - 1)], hidden);
}

// Bins of all CTAs, added, to all CTAs. A CTA adds 64 of them, eight lanes each.
__device__ void add_bins(Shared& s, int rank) {
  const int bin = rank * CTA_BINS + threadIdx.x / CTAS;
  Shared* there = in_cta(&s, threadIdx.x % CTAS);
  uint32_t count = there->count[bin];
  uint64_t mass = static_cast<uint64_t>(there->mass_high[bin]) << 32 | there->mass_low[bin];
#pragma unroll
  for (int step = 1; step < CTAS; step *= 2) {
    count += __shfl_xor_sync(ALL, count, step);
    mass += __shfl_xor_sync(ALL, mass, step);
  }
  there->total_count[bin] = count;
  there->total_mass[bin] = mass;
}

// The bin in which the sum from the last one down reaches the target; digit -1 if none does.
// Empties this CTA's bins.
__device__ Bin find_bin(Shared& s, uint64_t target, bool by_mass) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int bin = BINS - 1 - threadIdx.x;
  const uint32_t count = s.total_count[bin];
  const uint64_t mass = s.total_mass[bin];
  uint32_t count_above = sum_up_to_lane(count, lane);
  uint64_t mass_above = sum_up_to_lane(mass, lane);
  if (lane == 31) {
    s.scan_count[warp] = count_above;
    s.scan_mass[warp] = mass_above;
  }
  if (threadIdx.x == 0) s.found.digit = -1;
  s.count[bin] = s.mass_low[bin] = s.mass_high[bin] = 0;
  __syncthreads();
  count_above -= count;
  mass_above -= mass;
  for (int w = 0; w < warp; ++w) {
    count_above += s.scan_count[w];
    mass_above += s.scan_mass[w];
  }
  const uint64_t above = by_mass ? mass_above : count_above;
  const uint64_t own = by_mass ? mass : count;
  if (above < target && target <= above + own) s.found = {bin, count_above, count, mass_above};
  __syncthreads();
  return s.found;
}

// Of tokens with keys of at least `floor`.
template <class T>
__device__ Crossing cross(const Segment<T>& own, Shared& s, int rank, const Weigher& weigh,
                          uint32_t floor, uint64_t target, bool by_mass, bool has_mass) {
  constexpr int LAST_SHIFT = sizeof(T) == 2 ? 14 : 0;  // keys of bf16 differ in 16 bits only
  Crossing at{true, ALL, 0, 0, 0};
  uint32_t first = floor;
  for (int shift = 32 - DIGIT;; shift = max(shift - DIGIT, 0)) {
    fill_bins(own, s, weigh, first, at.key, shift, has_mass);
    cluster_sync();
    add_bins(s, rank);
    cluster_sync();
    const Bin bin = find_bin(s, target - (by_mass ? at.mass_above : at.count_above), by_mass);
    if (bin.digit < 0) return Crossing{};
    at.count_above += bin.count_above;
    at.mass_above += bin.mass_above;
    at.count = bin.count;
    const uint32_t known = shift + DIGIT < 32 ? at.key & (ALL << (shift + DIGIT)) : 0;
    const uint32_t from = known | static_cast<uint32_t>(bin.digit) << shift;
    at.key = from + ((1u << shift) - 1);
    first = max(floor, from);
    if (shift == LAST_SHIFT) return at;
  }
}

// The logit with a key; of a bf16 the lowest bits are 0 or, below 0, 1.
template <class T>
__device__ float value_at(uint32_t key) {
  const bool is_cut = sizeof(T) == 2 && key & 0x80000000u;
  return value_of(is_cut ? key & 0xFFFF0000u : key);
}

// For this warp: below which id tokens equal to `value` are kept, if the row keeps that many.
template <class T>
__device__ int end_of_ties(const Segment<T>& own, Shared& s, int rank, float value, int kept) {
  const int warp = threadIdx.x / 32, lane = own.lane;
  auto count = [&](int g) {
    float x[GROUP];
    int equal = 0;
    if (g < own.groups) {
      load_group(own.values + g * GROUP, x);
#pragma unroll
      for (int j = 0; j < GROUP; ++j) equal += x[j] == value;
    }
    return equal;
  };
  int mine = 0;
  for (int g = lane; g < own.groups; g += 32) mine += count(g);
  mine = sum_of_lanes(mine);
  if (lane == 0) s.warp_ties[warp] = mine;
  __syncthreads();
  if (threadIdx.x < CTAS) {
    uint32_t sum = 0;
    for (int w = 0; w < WARPS; ++w) sum += s.warp_ties[w];
    in_cta(&s, threadIdx.x)->ties[rank] = sum;
  }
  cluster_sync();
  for (int c = 0; c < rank; ++c) kept -= static_cast<int>(s.ties[c]);
  for (int w = 0; w < warp; ++w) kept -= static_cast<int>(s.warp_ties[w]);
  if (kept <= 0) return 0;
  if (kept >= mine) return 1 << 30;
  for (int base = 0;; base += 32) {
    const int g = base + lane, equal = count(g);
    const int up_to = sum_up_to_lane(equal, lane);
    const uint32_t reached = __ballot_sync(ALL, up_to >= kept);
    if (!reached) {
      kept -= __shfl_sync(ALL, up_to, 31);
      continue;
    }
    int end = 0;
    if (lane == __ffs(reached) - 1) {
      int left = kept - (up_to - equal);
      for (int j = 0; left; ++j) {
        end = own.first + g * GROUP + j + 1;
        left -= get(own.values[g * GROUP + j]) == value;
      }
    }
    return __shfl_sync(ALL, end, __ffs(reached) - 1);
  }
}

// ---- choosing

// The token in whose share of the mass the random number falls; its warp writes it.
template <bool FILTERED, class T>
__device__ void pick(const Segment<T>& own, const Shared& s, int rank, const Weigher& weigh,
                     const Kept& kept, uint64_t total, int64_t* token) {
  const int warp = threadIdx.x / 32, lane = own.lane;
  const uint64_t target = __umul64hi(total, static_cast<uint64_t>(s.random) << 32);
  uint64_t begin = 0;
  for (int c = 0; c < rank; ++c) begin += s.mass[FILTERED][c];
  for (int w = 0; w < warp; ++w) begin += s.warp_mass[w];
  if (target < begin || target >= begin + s.warp_mass[warp]) return;
  for (int base = 0; base < own.groups; base += 32) {
    const int g = base + lane;
    float x[GROUP], sums[GROUP] = {};
    if (g < own.groups) {
      load_group(own.values + g * GROUP, x);
      weigh_group<FILTERED>(x, own.first + g * GROUP, weigh, kept, sums);
    }
    const uint64_t mass = mass_of(sums[GROUP - 1]);
    const uint64_t up_to = sum_up_to_lane(mass, lane);
    const uint32_t reached = __ballot_sync(ALL, begin + up_to > target);
    if (reached) {
      if (lane != __ffs(reached) - 1) return;
      const uint64_t left = target - (begin + up_to - mass);
      int at = 0;
#pragma unroll
      for (int j = 0; j < GROUP; ++j) at += mass_of(sums[j]) <= left;
      *token = own.first + g * GROUP + at;
      return;
    }
    begin += __shfl_sync(ALL, up_to, 31);
  }
}

// The first word of Philox4x32-10, as in haast/ops/sample/philox.py.
__device__ uint32_t random_word(uint64_t seed, int position) {
  uint32_t c0 = position, c1 = position >> 31, c2 = 0, c3 = 0;
  uint32_t k0 = static_cast<uint32_t>(seed), k1 = static_cast<uint32_t>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(0xD2511F53u, c0), high2 = __umulhi(0xCD9E8D57u, c2);
    const uint32_t low0 = 0xD2511F53u * c0, low2 = 0xCD9E8D57u * c2;
    c0 = high2 ^ c1 ^ k0, c1 = low2, c2 = high0 ^ c3 ^ k1, c3 = low0;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return c0;
}

// The logit, and how many of those equal to it, down to which top-k and top-p keep tokens.
template <class T>
__device__ Kept filter(const Segment<T>& own, Shared& s, int rank, const Weigher& weigh,
                       int top_k, float top_p, int vocab) {
  Kept kept{-INF, 1 << 30, 0.0f};
  uint32_t floor = 0;
  uint64_t mass = 0;
  int ties = 0, num_kept = 0;
  if (top_k < vocab) {
    // as many tokens as there are warps, or lanes, are at least their smallest maximum
    if (top_k <= CTAS * THREADS)
      for (int c = 0; c < CTAS; ++c) {
        const uint32_t least = top_k <= CTAS * WARPS ? s.least_warp[c] : s.least_lane[c];
        floor = c ? min(floor, least) : least;
      }
    const Crossing at = cross(own, s, rank, weigh, floor, top_k, false, top_p < 1.0f);
    kept.least = value_at<T>(at.key);
    ties = at.count;
    num_kept = top_k - at.count_above;
    mass = at.mass_above + num_kept * mass_of(weigh(kept.least));
    floor = key_of(kept.least);
  } else if (top_p < 1.0f) {
    mass = mass_of_row<false>(own, s, rank, weigh, kept);
    // all tokens below this weight together would be too few to matter, by a factor of four
    const float weight = mass / MASS_OF_ONE * (1.0f - top_p) / vocab * 0.25f;
    floor = key_of(__fadd_rd(weigh.top, log2f(weight) / weigh.scale));
  }
  if (top_p < 1.0f) {
    const uint64_t target = max(1ull, __double2ull_ru(static_cast<double>(mass) * top_p));
    const Crossing at = cross(own, s, rank, weigh, floor, target, true, true);
    if (at.exists) {
      kept.least = value_at<T>(at.key);
      ties = at.count;
      const uint64_t each = mass_of(weigh(kept.least));
      num_kept = static_cast<int>((target - at.mass_above + each - 1) / each);
    }
  }
  if (num_kept < ties) kept.tie_end = end_of_ties(own, s, rank, kept.least, num_kept);
  return kept;
}

template <class T>
__device__ void sample_row(const T* logits, const Settings& settings, int64_t* tokens, int vocab,
                           int groups) {
  extern __shared__ __align__(128) unsigned char slice[];
  __shared__ Shared s;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, rank = cluster_rank();
  const int row = blockIdx.y;
  const int place = warp * groups * GROUP;
  const Segment<T> own{reinterpret_cast<T*>(slice) + place, rank * WARPS * groups * GROUP + place,
                       groups, lane};
  const uint32_t barrier = smem_u32(&s.copied[warp]);
  if (lane == 0) {
    barrier_init(barrier, 1);
    barrier_init_fence();
  }
  s.count[threadIdx.x] = s.mass_low[threadIdx.x] = s.mass_high[threadIdx.x] = 0;
  __syncwarp();
  cluster_arrive();
  let_next_kernel_start();
  wait_for_previous_kernel();
  load_segment(own, logits + static_cast<long>(row) * vocab, vocab, barrier);
  const float temperature = settings.temperature[row];
  if (threadIdx.x == 0) s.random = random_word(settings.seed[row], settings.position[row]);
  tell_top(own, s, rank, temperature == 0.0f);

  uint32_t top = 0;
  for (int c = CTAS - 1; c >= 0; --c) top = max(top, s.top[c]);
  if (temperature == 0.0f || top == KEY_OF_MINUS_INF) {
    if (rank == 0 && threadIdx.x == 0) {
      int holder = 0;
      while (s.top[holder] != top) ++holder;
      tokens[row] = s.first[holder];
    }
    return;
  }
  const Weigher weigh{value_of(top), fminf(1.44269504f / temperature, 3.4028234664e38f)};
  const int top_k = max(settings.top_k[row], 1);
  const float top_p = settings.top_p[row], min_p = fminf(settings.min_p[row], 1.0f);
  if (top_k >= vocab && top_p >= 1.0f && min_p <= 0.0f) {
    const uint64_t total = mass_of_row<false>(own, s, rank, weigh, Kept{});
    pick<false>(own, s, rank, weigh, Kept{}, total, tokens + row);
    return;
  }
  Kept kept = filter(own, s, rank, weigh, top_k, top_p, vocab);
  kept.min_weight = min_p;
  const uint64_t total = mass_of_row<true>(own, s, rank, weigh, kept);
  pick<true>(own, s, rank, weigh, kept, total, tokens + row);
}

}  // namespace
}  // namespace haast

// RESIDENT: CTAs that an SM holds of gpt-oss's vocabulary
#define HAAST_SAMPLE(T, NAME, RESIDENT)                                                           \
  extern "C" __global__ void __cluster_dims__(haast::CTAS, 1, 1)                                  \
      __launch_bounds__(haast::THREADS, RESIDENT)                                                 \
          sample_##NAME(const T* logits, const float* temperature, const int* top_k,              \
                        const float* top_p, const float* min_p, const uint64_t* seed,             \
                        const int* position, int64_t* tokens, int vocab, int groups) {            \
    const haast::Settings settings{temperature, top_k, top_p, min_p, seed, position};             \
    haast::sample_row(logits, settings, tokens, vocab, groups);                                   \
  }

HAAST_SAMPLE(haast::bf16, bf16, 3)
HAAST_SAMPLE(float, fp32, 2)
