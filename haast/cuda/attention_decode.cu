// Attention of one query a request over its paged keys and values, which are streamed once.
//
// All pages of all heads of all requests lie in one list, of which each CTA, and an SM has one or two,
// takes an equal run. A unit of work is the part of a request's kv head in there, mostly all of it. One
// warp brings the query's eight heads and tiles, a page of K or V each, through a ring; four warps take
// 32 keys of every page each, with their own running maxima, and add their sums at the end of a unit.
// Of the first and the last page only those 32 keys come of which one is visible.
#include <cstddef>

#include "attention_mma.cuh"

namespace haast {
namespace {

constexpr int MATH_WARPS = PAGE_SIZE / WARP_KEYS;
constexpr int THREADS = 32 * (MATH_WARPS + 1);
constexpr int QUERY_BYTES = GROUP_HEADS * HEAD_DIM * 2;
constexpr int SUM_ROW = HEAD_DIM + 4;  // floats; + 4: fewer bank conflicts
constexpr int UNIT_BARRIER = 1;
constexpr int LEAST_SPLIT = 2;  // pages

// A page of one head, and the ring: as many bytes of pages in flight in either format.
template <bool E4M3>
struct Pages {
  static constexpr int BYTES = E4M3 ? E4M3_BYTES : PAGE_BYTES;
  static constexpr int WARP_BYTES = BYTES / MATH_WARPS;
  static constexpr int STAGES = E4M3 ? 8 : 4;
  static constexpr int STAGE_BYTES = BYTES + QUERY_BYTES;  // the query comes with a unit's first K
};

struct Problem {
  const TensorMap *k, *v;  // [num_pages * Hkv * 128, 64] bf16 or e4m3
  const bf16* q;           // [B, Hq, 64]
  const int* kv_lens;      // [B]
  const int* page_table;   // [B, max_pages]
  const bf16* sinks;       // [Hq]
  bf16* out;               // [B, Hq, 64]
  float* part;             // [B, Hq, part_splits, 64], each split's result
  float* part_lse;         // [B, Hq, part_splits], base 2
  int* splits;             // [B, Hkv] how many there are; null: heads are not to be split
  int num_requests, num_kv_heads, max_pages, window, part_splits;
};

struct Sums {
  float sums[MATH_WARPS][GROUP_HEADS][SUM_ROW];
  float tops[MATH_WARPS][GROUP_HEADS], totals[MATH_WARPS][GROUP_HEADS];
};

template <bool E4M3>
struct alignas(1024) Memory {
  uint8_t ring[Pages<E4M3>::STAGES][Pages<E4M3>::STAGE_BYTES];
  Sums sums;
  uint64_t full[Pages<E4M3>::STAGES], empty[Pages<E4M3>::STAGES];
  int first[MAX_REQUESTS + 1];
  int workers;
};

template <bool E4M3>
constexpr size_t used_bytes() {
  return offsetof(Memory<E4M3>, workers) + sizeof(Memory<E4M3>::workers);
}
static_assert(used_bytes<false>() == 80712 && used_bytes<true>() == 84872,
              "_shared_bytes of haast/ops/attention/cuda_decode.py");

// How many CTAs share the list: splits of no fewer than LEAST_SPLIT pages, and no more of them than
// MAX_SPLITS where the longest head has `longest` pages. For one warp.
__device__ int workers_of(const Problem& p, int total, int lane) {
  if (!p.splits) return gridDim.x;
  int longest = 1;
  for (int i = lane; i < p.num_requests; i += 32)
    longest = max(longest, Span(p.kv_lens[i], p.window).num_pages);
  longest = __reduce_max_sync(~0u, longest);
  const int most = min(total / LEAST_SPLIT,
                       static_cast<int>(int64_t{MAX_SPLITS - 2} * total / longest));
  return max(1, min(static_cast<int>(gridDim.x), most));
}

// Walks a CTA's units in order: what lies in its run of the list or, where heads are not to be split,
// begins there.
struct Units {
  const Problem& p;
  const int* first;
  int workers, at, end, request, head, page, kv_len;  // the unit begins at this page of the span
  Span span;

  __device__ Units(const Problem& problem, const int* first_of, int num_workers)
      : p(problem), first(first_of), workers(num_workers) {
    const int worker = blockIdx.x;
    at = worker < workers ? begin_of(worker) : 0;
    end = worker < workers ? begin_of(worker + 1) : 0;
    if (at >= end) return;
    request = request_of(first, p.num_requests, at);
    enter();
    const int local = at - first[request];
    head = local / span.listed();
    page = local % span.listed();
    if (page && !p.splits) next_head();
  }

  __device__ bool has_one() const { return at < end; }

  __device__ void next() {
    if (p.splits && page + pages() < span.num_pages)
      at = end;
    else
      next_head();
  }

  __device__ void become(const Units& other) {
    at = other.at, request = other.request, head = other.head, page = other.page;
    kv_len = other.kv_len, span = other.span;
  }

  // Warps with visible keys in the page that begins at this key.
  __device__ int first_warp(int page_key) const {
    return max(0, kv_len - p.window - page_key) / WARP_KEYS;
  }
  __device__ int end_warp(int page_key) const {
    return min(MATH_WARPS, divide_up(kv_len - page_key, WARP_KEYS));
  }
  __device__ int pages() const {
    return p.splits ? min(span.num_pages - page, end - at) : span.num_pages;
  }
  __device__ int first_page() const { return span.first_page + page; }
  __device__ bool is_whole() const { return pages() == span.num_pages; }
  // Of the head: where it is in the list, and which of its splits this is.
  __device__ int listed_at() const { return first[request] + head * span.listed(); }
  __device__ int split() const { return blockIdx.x - worker_of(listed_at()); }
  __device__ int splits() const {
    return worker_of(listed_at() + span.listed() - 1) - worker_of(listed_at()) + 1;
  }

 private:
  __device__ int begin_of(int worker) const {
    return static_cast<int>(int64_t{first[p.num_requests]} * worker / workers);
  }
  __device__ int worker_of(int place) const {
    return static_cast<int>((int64_t{place + 1} * workers - 1) / first[p.num_requests]);
  }

  __device__ void enter() {
    kv_len = p.kv_lens[request];
    span = Span(kv_len, p.window);
  }

  __device__ void next_head() {
    page = 0;
    if (++head == p.num_kv_heads) {
      head = 0;
      ++request;
      at = first[request];
      if (at >= end) return;
      enter();
    }
    at = listed_at();
  }
};

// ---- one warp brings tiles

// Entries of the page table for the first 32 pages of a unit, one a lane.
__device__ __forceinline__ int first_entries(const Problem& p, const Units& unit, int lane) {
  if (!unit.has_one() || lane >= unit.pages()) return 0;
  return p.page_table[static_cast<int64_t>(unit.request) * p.max_pages + unit.first_page() + lane];
}

template <bool E4M3>
__device__ void bring(const Problem& p, Memory<E4M3>& m, int lane) {
  using Pages = Pages<E4M3>;
  Ring<Pages::STAGES> ring(1);
  Units unit(p, m.first, m.workers);
  int entries = first_entries(p, unit, lane);
  while (unit.has_one()) {
    Units ahead = unit;
    ahead.next();
    const int next_entries = first_entries(p, ahead, lane);  // in time for the next unit
    const int pages = unit.pages();
    int page_key = unit.first_page() * PAGE_SIZE;
    const int* table =
        p.page_table + static_cast<int64_t>(unit.request) * p.max_pages + unit.first_page();
    for (int i = 0; i < pages; ++i, page_key += PAGE_SIZE) {
      if (i && i % 32 == 0) entries = i + lane < pages ? table[i + lane] : 0;
      const int row = (__shfl_sync(~0u, entries, i % 32) * p.num_kv_heads + unit.head) * PAGE_SIZE;
      const int begin = unit.first_warp(page_key), end = unit.end_warp(page_key);
#pragma unroll
      for (int is_v = 0; is_v < 2; ++is_v, ring.next()) {
        wait(smem_u32(&m.empty[ring.stage]), ring.phase);
        if (lane == 0) {
          const uint32_t full = smem_u32(&m.full[ring.stage]);
          const uint32_t to = smem_u32(m.ring[ring.stage]);
          const bool with_query = i == 0 && !is_v;
          arrive_expect(full, (end - begin) * Pages::WARP_BYTES + (with_query ? QUERY_BYTES : 0));
          for (int w = begin; w < end; ++w)
            tensor_load(to + w * Pages::WARP_BYTES, is_v ? p.v : p.k, 0, row + w * WARP_KEYS, full);
          if (with_query) {
            const int64_t group = static_cast<int64_t>(unit.request) * p.num_kv_heads + unit.head;
            bulk_load(to + Pages::BYTES, p.q + group * GROUP_HEADS * HEAD_DIM, QUERY_BYTES, full);
          }
        }
        __syncwarp();
      }
    }
    unit.become(ahead);
    entries = next_entries;
  }
}

// ---- four warps multiply

__device__ __forceinline__ void sync_math() {
  asm volatile("bar.sync %0, %1;" ::"n"(UNIT_BARRIER), "n"(32 * MATH_WARPS) : "memory");
}

// A lane's sums of head g into their dimensions.
template <bool E4M3>
__device__ __forceinline__ void put_sums(const Running& r, float* head, int t) {
  if constexpr (E4M3) {
#pragma unroll
    for (int n = 0; n < HEAD_DIM / 8; n += 4)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        *reinterpret_cast<float4*>(head + 16 * t + 8 * i + n) =
            make_float4(r.out[n][i], r.out[n + 1][i], r.out[n + 2][i], r.out[n + 3][i]);
  } else {
#pragma unroll
    for (int n = 0; n < HEAD_DIM / 8; ++n)
      *reinterpret_cast<float2*>(head + 8 * n + 2 * t) = make_float2(r.out[n][0], r.out[n][1]);
  }
}

// The four warps' sums of a unit, added in their order; each thread has four dimensions of a head.
template <bool E4M3>
__device__ void finish_unit(const Problem& p, Sums& m, const Units& unit, const Running& r,
                            int warp, int lane) {
  const int g = lane / 4, t = lane % 4;
  float total = r.total + __shfl_xor_sync(~0u, r.total, 1);
  total += __shfl_xor_sync(~0u, total, 2);
  sync_math();  // the unit before has been read
  if (t == 0) {
    m.tops[warp][g] = r.top;
    m.totals[warp][g] = total;
  }
  put_sums<E4M3>(r, m.sums[warp][g], t);
  sync_math();
  const int head = threadIdx.x / 16, dim = threadIdx.x % 16 * 4;
  float top = m.tops[0][head];
#pragma unroll
  for (int w = 1; w < MATH_WARPS; ++w) top = fmaxf(top, m.tops[w][head]);
  const float held = top == -INFINITY ? 0 : top, base = held * SCORE_SCALE;
  float4 sum = make_float4(0, 0, 0, 0);
  total = 0;
#pragma unroll
  for (int w = 0; w < MATH_WARPS; ++w) {
    const float scale = exp2_fast((m.tops[w][head] - held) * SCORE_SCALE);
    const float4 part = *reinterpret_cast<const float4*>(&m.sums[w][head][dim]);
    total += m.totals[w][head] * scale;
    sum.x += part.x * scale, sum.y += part.y * scale;
    sum.z += part.z * scale, sum.w += part.w * scale;
  }
  const bool is_whole = unit.is_whole();
  if (p.splits && unit.page == 0 && threadIdx.x == 0)
    p.splits[unit.request * p.num_kv_heads + unit.head] = is_whole ? 1 : unit.splits();
  const int q_head = unit.head * GROUP_HEADS + head;
  const int64_t row = static_cast<int64_t>(unit.request) * p.num_kv_heads * GROUP_HEADS + q_head;
  if (is_whole) {
    const float sink = __bfloat162float(p.sinks[q_head]) * LOG2_E;
    const float scale = total > 0 ? 1 / (total + exp2f(sink - base)) : 0;
    *reinterpret_cast<uint2*>(p.out + row * HEAD_DIM + dim) = make_uint2(
        pack_bf16(sum.x * scale, sum.y * scale), pack_bf16(sum.z * scale, sum.w * scale));
  } else {
    const int64_t at = row * p.part_splits + unit.split();
    const float scale = 1 / total;
    *reinterpret_cast<float4*>(p.part + at * HEAD_DIM + dim) =
        make_float4(sum.x * scale, sum.y * scale, sum.z * scale, sum.w * scale);
    if (dim == 0) p.part_lse[at] = base + log2f(total);
  }
}

// The warp has read a stage.
__device__ __forceinline__ void release(uint64_t& empty, int lane) {
  __syncwarp();
  if (lane == 0) arrive(smem_u32(&empty));
}

template <bool E4M3>
__device__ void multiply(const Problem& p, Memory<E4M3>& m, int warp, int lane) {
  using Pages = Pages<E4M3>;
  const int swap = E4M3 ? lane % 2 : 0;
  Ring<Pages::STAGES> ring(0);
  for (Units unit(p, m.first, m.workers); unit.has_one(); unit.next()) {
    Running r;
    r.clear();
    uint32_t q[2][4];
    const int first_key = unit.kv_len - p.window;
    const int pages = unit.pages();
    int page_key = unit.first_page() * PAGE_SIZE;
    for (int i = 0; i < pages; ++i, page_key += PAGE_SIZE) {
      const bool has_keys = unit.first_warp(page_key) <= warp && warp < unit.end_warp(page_key);
      const int key = page_key + warp * WARP_KEYS + lane % 4 * 2;
      const bool is_edge = page_key < first_key || page_key + PAGE_SIZE > unit.kv_len;
      const uint32_t k = smem_u32(m.ring[ring.stage]);
      wait(smem_u32(&m.full[ring.stage]), ring.phase);
      if (i == 0) load_query<E4M3>(k + Pages::BYTES, lane, q);
      float scores[KEY_TILES][4];
      if (has_keys) {
        if constexpr (E4M3)
          multiply_keys_e4m3(k + warp * Pages::WARP_BYTES, q, lane, scores);
        else
          multiply_keys(k + warp * Pages::WARP_BYTES, q, lane, scores);
      }
      release(m.empty[ring.stage], lane);
      ring.next();
      if (has_keys) {
        if (is_edge) mask(scores, key, swap, first_key, unit.kv_len);
        weigh(scores, r);
      }
      const uint32_t v = smem_u32(m.ring[ring.stage]) + warp * Pages::WARP_BYTES;
      wait(smem_u32(&m.full[ring.stage]), ring.phase);
      if (has_keys) {
        if (is_edge)
          multiply_values<E4M3, true>(v, scores, lane, key, swap, first_key, unit.kv_len, r);
        else
          multiply_values<E4M3, false>(v, scores, lane, key, swap, first_key, unit.kv_len, r);
      }
      release(m.empty[ring.stage], lane);
      ring.next();
    }
    finish_unit<E4M3>(p, m.sums, unit, r, warp, lane);
  }
}

template <bool E4M3>
__device__ __forceinline__ void attend(const Problem& p, uint8_t* bytes) {
  Memory<E4M3>& m = *reinterpret_cast<Memory<E4M3>*>(bytes);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    prefetch_map(p.k);
    prefetch_map(p.v);
    for (int i = 0; i < Pages<E4M3>::STAGES; ++i) {
      barrier_init(smem_u32(&m.full[i]), 1);
      barrier_init(smem_u32(&m.empty[i]), MATH_WARPS);
    }
    barrier_init_fence();
  }
  let_next_kernel_start();
  wait_for_previous_kernel();
  if (warp == 0) {
    list_requests(p.num_requests, m.first, lane, [&](int request) {
      return p.num_kv_heads * Span(p.kv_lens[request], p.window).listed();
    });
    __syncwarp();
    const int workers = workers_of(p, m.first[p.num_requests], lane);
    if (lane == 0) m.workers = workers;
  }
  __syncthreads();
  if (warp < MATH_WARPS)
    multiply(p, m, warp, lane);
  else
    bring(p, m, lane);
}

}  // namespace
}  // namespace haast

// Where splits is not null, attention_merge has to follow.
#define HAAST_ATTENTION_DECODE(NAME, E4M3)                                                          \
  extern "C" __global__ void __launch_bounds__(haast::THREADS, 2)                                  \
      NAME(const __grid_constant__ haast::TensorMap k, const __grid_constant__ haast::TensorMap v, \
           const haast::bf16* q, const int* kv_lens, const int* page_table,                        \
           const haast::bf16* sinks, haast::bf16* out, float* part, float* part_lse, int* splits,  \
           int num_requests, int num_kv_heads, int max_pages, int window, int part_splits) {       \
    extern __shared__ __align__(1024) uint8_t bytes[];                                             \
    haast::attend<E4M3>({&k, &v, q, kv_lens, page_table, sinks, out, part, part_lse, splits,       \
                         num_requests, num_kv_heads, max_pages, window, part_splits},              \
                        bytes);                                                                    \
  }

HAAST_ATTENTION_DECODE(attention_decode_mma, false)
HAAST_ATTENTION_DECODE(attention_decode_mma_fp8, true)
