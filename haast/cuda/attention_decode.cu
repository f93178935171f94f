// Attention of one query a request over its paged keys and values, which are streamed once.
//
// A unit of work is (request, kv head, split: some of its pages); each CTA, of which an SM has two, takes a
// run of consecutive units with about as many pages as the others. One warp brings the query's eight heads and 16 KB tiles,
// a page of K or V each, through a ring; four warps take 32 keys of every page each, with their own
// running maxima, and add their sums at the end of a unit. The eight heads are rows of m16n8k16;
// the other eight rows are zero.
#include <cstddef>

#include "attention.cuh"

namespace haast {
namespace {

constexpr int MATH_WARPS = 4;
constexpr int WARP_KEYS = PAGE_SIZE / MATH_WARPS;
constexpr int THREADS = 32 * (MATH_WARPS + 1);
constexpr int STAGES = 4;
constexpr int QUERY_BYTES = GROUP_HEADS * HEAD_DIM * 2;
constexpr int STAGE_BYTES = PAGE_BYTES + QUERY_BYTES;  // the query comes with a unit's first K tile
constexpr int SUM_ROW = HEAD_DIM + 4;                  // floats; + 4: fewer bank conflicts
constexpr int UNIT_BARRIER = 1;

struct Problem {
  const TensorMap *k, *v;  // [num_pages * Hkv * 128, 64] bf16
  const bf16* q;           // [B, Hq, 64]
  const int* kv_lens;      // [B]
  const int* page_table;   // [B, max_pages]
  const bf16* sinks;       // [Hq]
  bf16* out;               // [B, Hq, 64]
  float* part;             // [B, Hq, part_splits, 64], each split's result
  float* part_lse;         // [B, Hq, part_splits], base 2
  int num_requests, num_kv_heads, max_pages, window, most_splits, part_splits;
};

struct alignas(1024) Memory {
  uint8_t ring[STAGES][STAGE_BYTES];
  float sums[MATH_WARPS][GROUP_HEADS][SUM_ROW];
  float tops[MATH_WARPS][GROUP_HEADS], totals[MATH_WARPS][GROUP_HEADS];
  uint64_t full[STAGES], empty[STAGES];
  int first[MAX_REQUESTS + 1];
};

static_assert(offsetof(Memory, first) + sizeof(Memory::first) == 80708,
              "_SHARED_BYTES of haast/ops/attention/cuda_decode.py");

struct Ring {
  int stage = 0;
  uint32_t phase;

  __device__ explicit Ring(uint32_t first_phase) : phase(first_phase) {}

  __device__ void next() {
    if (++stage == STAGES) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// Walks a CTA's units in order: those that begin within its share of all pages.
struct Units {
  const Problem& p;
  const int* first;
  int at, end, request, head, split, kv_len;
  Span span;

  __device__ Units(const Problem& problem, const int* first_of) : p(problem), first(first_of) {
    const int64_t total = first[p.num_requests];
    at = static_cast<int>(total * blockIdx.x / gridDim.x);
    end = static_cast<int>(total * (blockIdx.x + 1) / gridDim.x);
    if (at >= end) return;
    request = request_of(first, p.num_requests, at);
    enter();
    const int local = at - first[request];
    head = local / span.listed();
    split = divide_up(local % span.listed(), span.split_pages);
    settle();
  }

  __device__ bool has_one() const { return at < end; }

  __device__ void next() {
    ++split;
    settle();
  }

  __device__ void become(const Units& other) {
    at = other.at, request = other.request, head = other.head, split = other.split;
    kv_len = other.kv_len, span = other.span;
  }

  __device__ int begin_page() const { return split * span.split_pages; }
  __device__ int pages() const { return min(span.num_pages - begin_page(), span.split_pages); }

 private:
  __device__ void enter() {
    kv_len = p.kv_lens[request];
    span = Span(kv_len, p.window, p.most_splits);
  }

  // To the next head or request if this one has no such split.
  __device__ void settle() {
    if (begin_page() >= span.listed()) {
      split = 0;
      if (++head == p.num_kv_heads) {
        head = 0;
        ++request;
        at = first[request];
        if (at >= end) return;
        enter();
      }
    }
    at = first[request] + head * span.listed() + begin_page();
  }
};

// ---- one warp brings tiles

// Entries of the page table for the first 32 pages of a unit, one a lane.
__device__ __forceinline__ int first_entries(const Problem& p, const Units& unit, int lane) {
  if (!unit.has_one() || lane >= unit.pages()) return 0;
  return p.page_table[static_cast<int64_t>(unit.request) * p.max_pages + unit.span.first_page +
                      unit.begin_page() + lane];
}

__device__ void bring(const Problem& p, Memory& m, int lane) {
  Ring ring(1);
  Units unit(p, m.first);
  int entries = first_entries(p, unit, lane);
  while (unit.has_one()) {
    Units ahead = unit;
    ahead.next();
    const int next_entries = first_entries(p, ahead, lane);  // in time for the next unit
    const int pages = unit.pages();
    const int* table = p.page_table + static_cast<int64_t>(unit.request) * p.max_pages +
                       unit.span.first_page + unit.begin_page();
    for (int i = 0; i < pages; ++i) {
      if (i && i % 32 == 0) entries = i + lane < pages ? table[i + lane] : 0;
      const int row = (__shfl_sync(~0u, entries, i % 32) * p.num_kv_heads + unit.head) * PAGE_SIZE;
#pragma unroll
      for (int is_v = 0; is_v < 2; ++is_v, ring.next()) {
        wait(smem_u32(&m.empty[ring.stage]), ring.phase);
        if (lane == 0) {
          const uint32_t full = smem_u32(&m.full[ring.stage]);
          const uint32_t to = smem_u32(m.ring[ring.stage]);
          const bool with_query = i == 0 && !is_v;
          arrive_expect(full, with_query ? STAGE_BYTES : PAGE_BYTES);
          tensor_load(to, is_v ? p.v : p.k, 0, row, full);
          if (with_query) {
            const int64_t group = static_cast<int64_t>(unit.request) * p.num_kv_heads + unit.head;
            bulk_load(to + PAGE_BYTES, p.q + group * GROUP_HEADS * HEAD_DIM, QUERY_BYTES, full);
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

__device__ __forceinline__ void mma(float (&d)[4], uint32_t a0, uint32_t a2, uint32_t b0,
                                    uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
      "{%0, %1, %2, %3}, {%4, %5, %6, %5}, {%7, %8}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a0), "r"(0), "r"(a2), "r"(b0), "r"(b1));
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

constexpr int KEY_TILES = WARP_KEYS / 8;

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

// Keys [first, last) of the page are visible; the others' scores, whatever they are, do not count.
__device__ __forceinline__ void mask(float (&scores)[KEY_TILES][4], int key, int first, int last) {
#pragma unroll
  for (int n = 0; n < KEY_TILES; ++n)
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int at = key + 8 * n + i;
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

// Which of the keys `at` and `at + 1` lie in [first, last), as a mask of two bf16.
__device__ __forceinline__ uint32_t visible_pair(int at, int first, int last) {
  const uint32_t low = at >= first && at < last ? 0xFFFF : 0;
  return low | (at + 1 >= first && at + 1 < last ? 0xFFFF0000 : 0);
}

// Weights times values. What is not visible may be anything, NaN too, so it is zeroed.
template <bool AT_EDGE>
__device__ __forceinline__ void multiply_values(uint32_t v, const float (&weights)[KEY_TILES][4],
                                                int lane, int key, int first, int last,
                                                Running& r) {
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
        const uint32_t low = visible_pair(key + 16 * i, first, last);
        const uint32_t high = visible_pair(key + 16 * i + 8, first, last);
        b[0] &= low, b[1] &= high, b[2] &= low, b[3] &= high;
      }
      mma(r.out[c], a0, a2, b[0], b[1]);
      mma(r.out[c + 1], a0, a2, b[2], b[3]);
    }
  }
}

__device__ __forceinline__ void sync_math() {
  asm volatile("bar.sync %0, %1;" ::"n"(UNIT_BARRIER), "n"(32 * MATH_WARPS) : "memory");
}

// The four warps' sums of a unit, added in their order; each thread has four dimensions of a head.
__device__ void finish_unit(const Problem& p, Memory& m, const Units& unit, const Running& r,
                            int warp, int lane) {
  const int g = lane / 4, t = lane % 4;
  float total = r.total + __shfl_xor_sync(~0u, r.total, 1);
  total += __shfl_xor_sync(~0u, total, 2);
  sync_math();  // the unit before has been read
  if (t == 0) {
    m.tops[warp][g] = r.top;
    m.totals[warp][g] = total;
  }
#pragma unroll
  for (int n = 0; n < HEAD_DIM / 8; ++n)
    *reinterpret_cast<float2*>(&m.sums[warp][g][8 * n + 2 * t]) =
        make_float2(r.out[n][0], r.out[n][1]);
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
  const bool is_whole = unit.span.splits() <= 1;
  const int q_head = unit.head * GROUP_HEADS + head;
  const int64_t row = static_cast<int64_t>(unit.request) * p.num_kv_heads * GROUP_HEADS + q_head;
  if (is_whole) {
    const float sink = __bfloat162float(p.sinks[q_head]) * LOG2_E;
    const float scale = total > 0 ? 1 / (total + exp2f(sink - base)) : 0;
    *reinterpret_cast<uint2*>(p.out + row * HEAD_DIM + dim) = make_uint2(
        pack_bf16(sum.x * scale, sum.y * scale), pack_bf16(sum.z * scale, sum.w * scale));
  } else {
    const int64_t at = row * p.part_splits + unit.split;
    const float scale = 1 / total;
    *reinterpret_cast<float4*>(p.part + at * HEAD_DIM + dim) =
        make_float4(sum.x * scale, sum.y * scale, sum.z * scale, sum.w * scale);
    if (dim == 0) p.part_lse[at] = base + log2f(total);
  }
}

__device__ void multiply(const Problem& p, Memory& m, int warp, int lane) {
  Ring ring(0);
  for (Units unit(p, m.first); unit.has_one(); unit.next()) {
    Running r;
    r.clear();
    uint32_t q[2][4];
    const int first_key = unit.kv_len - p.window;
    const int pages = unit.pages();
    int page_key = (unit.span.first_page + unit.begin_page()) * PAGE_SIZE;
    for (int i = 0; i < pages; ++i, page_key += PAGE_SIZE) {
      const uint32_t k = smem_u32(m.ring[ring.stage]);
      wait(smem_u32(&m.full[ring.stage]), ring.phase);
      if (i == 0) {
        const uint32_t query = k + PAGE_BYTES + lane % 8 * 128 + lane / 8 * 16;
        load_matrices(query, q[0]);
        load_matrices(query + 64, q[1]);
      }
      float scores[KEY_TILES][4];
      multiply_keys(k + warp * WARP_KEYS * 128, q, lane, scores);
      __syncwarp();
      if (lane == 0) arrive(smem_u32(&m.empty[ring.stage]));
      ring.next();
      const int key = page_key + warp * WARP_KEYS + lane % 4 * 2;
      const bool is_edge = page_key < first_key || page_key + PAGE_SIZE > unit.kv_len;
      if (is_edge) mask(scores, key, first_key, unit.kv_len);
      weigh(scores, r);
      const uint32_t v = smem_u32(m.ring[ring.stage]) + warp * WARP_KEYS * 128;
      wait(smem_u32(&m.full[ring.stage]), ring.phase);
      if (is_edge)
        multiply_values<true>(v, scores, lane, key, first_key, unit.kv_len, r);
      else
        multiply_values<false>(v, scores, lane, key, first_key, unit.kv_len, r);
      __syncwarp();
      if (lane == 0) arrive(smem_u32(&m.empty[ring.stage]));
      ring.next();
    }
    finish_unit(p, m, unit, r, warp, lane);
  }
}

}  // namespace
}  // namespace haast

// Where most_splits > 1, attention_merge has to follow for requests of more than one split.
extern "C" __global__ void __launch_bounds__(haast::THREADS, 2) attention_decode_mma(
    const __grid_constant__ haast::TensorMap k, const __grid_constant__ haast::TensorMap v,
    const haast::bf16* q, const int* kv_lens, const int* page_table, const haast::bf16* sinks,
    haast::bf16* out, float* part, float* part_lse, int num_requests, int num_kv_heads,
    int max_pages, int window, int most_splits, int part_splits) {
  using namespace haast;
  extern __shared__ __align__(1024) uint8_t bytes[];
  Memory& m = *reinterpret_cast<Memory*>(bytes);
  const Problem p{&k,   &v,       q,            kv_lens,      page_table, sinks,  out,        part,
                  part_lse, num_requests, num_kv_heads, max_pages,  window, most_splits, part_splits};
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    prefetch_map(&k);
    prefetch_map(&v);
    for (int i = 0; i < STAGES; ++i) {
      barrier_init(smem_u32(&m.full[i]), 1);
      barrier_init(smem_u32(&m.empty[i]), MATH_WARPS);
    }
    barrier_init_fence();
  }
  let_next_kernel_start();
  wait_for_previous_kernel();
  if (warp == 0)
    list_requests(num_requests, m.first, lane, [&](int request) {
      return num_kv_heads * Span(kv_lens[request], window, most_splits).listed();
    });
  __syncthreads();
  if (warp < MATH_WARPS)
    multiply(p, m, warp, lane);
  else
    bring(p, m, lane);
}
