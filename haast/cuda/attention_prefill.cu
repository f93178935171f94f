// Attention of chunks of queries over paged keys and values, by wgmma.
//
// A tile is (request, kv head, 24 queries): three warpgroups have 8 queries times the 8 heads that
// share the kv head as their 64 rows. One warp brings the queries and, from the last visible page
// back to the first, 16 KB tiles, a page of K or V each. While one warpgroup turns scores into
// weights the others' matrix products run: they take turns. Every CTA has a list of tiles, those
// with most pages first. Of a cache in e4m3 the tiles are of 8 KB, and three more warps make bf16
// of them, where the products are none the wiser.
//
// What a row gets does not depend on the others of its tile: products are by whole pages, and pages
// that a row does not see leave its sums as they are, bit for bit.
#include <cstddef>

#include "attention_wgmma.cuh"
#include "e4m3.cuh"

namespace haast {
namespace {

constexpr int MATH_GROUPS = 3;
constexpr int GROUP_THREADS = 128;
constexpr int THREADS = (MATH_GROUPS + 1) * GROUP_THREADS;
constexpr int MATH_WARPS = MATH_GROUPS * 4;
constexpr int MATH_REGISTERS = 160;
constexpr int FILL_REGISTERS = 32;
constexpr int GROUP_QUERIES = 64 / GROUP_HEADS;
constexpr int TILE_QUERIES = MATH_GROUPS * GROUP_QUERIES;
constexpr int QUERY_BYTES = TILE_QUERIES * GROUP_HEADS * HEAD_DIM * 2;
constexpr int GROUP_BYTES = QUERY_BYTES / MATH_GROUPS;
constexpr int QUERY_STAGES = 2;
constexpr int STAGES = 3;
constexpr int PACKED_STAGES = 4;
constexpr int UNPACK_WARPS = 3;
constexpr int TURN_BARRIER = 1;

struct Problem {
  const TensorMap *q, *k, *v;  // [T, Hq, 64]; [num_pages * Hkv * 128, 64]
  const int* offs;             // [n + 1], first query of each request
  const int* kv_lens;          // [n]
  const int* page_table;       // [n, max_pages]
  const bf16* sinks;           // [Hq]
  bf16* out;                   // [T, Hq, 64]
  int num_requests, num_kv_heads, max_pages, window;
};

struct alignas(1024) Memory {
  uint8_t q[QUERY_STAGES][QUERY_BYTES];
  uint8_t k[STAGES][PAGE_BYTES], v[STAGES][PAGE_BYTES];
  uint64_t full_q[QUERY_STAGES], empty_q[QUERY_STAGES];
  uint64_t full_k[STAGES], empty_k[STAGES], full_v[STAGES], empty_v[STAGES], brought;
  int first[MAX_REQUESTS + 1], offs[MAX_REQUESTS + 1], kv_lens[MAX_REQUESTS];
};

static_assert(offsetof(Memory, kv_lens) + sizeof(Memory::kv_lens) == 153744,
              "_SHARED_BYTES of haast/ops/attention/cuda_prefill.py");

// What lies in a stage of packed pages; the first `valid` positions are of the request.
struct Item {
  enum { KEYS, VALUES, END } kind;
  int valid;
};

// Of a cache in e4m3: pages of K and V in the order in which they are wanted.
struct PackedMemory {
  Memory unpacked;
  uint8_t pages[PACKED_STAGES][E4M3_BYTES];
  uint64_t full[PACKED_STAGES], empty[PACKED_STAGES];
  Item items[PACKED_STAGES];
};

static_assert(offsetof(PackedMemory, items) + sizeof(PackedMemory::items) == 187488,
              "_PACKED_BYTES of haast/ops/attention/cuda_prefill.py");

// ---- the list of tiles

__device__ __forceinline__ int query_tiles(int queries) { return divide_up(queries, TILE_QUERIES); }

struct Tile {
  int request, head;
  int row;                    // of its first query
  int queries;                // at most TILE_QUERIES
  int position, kv_len;       // of its first query; of the request
  int first_page, last_page;  // that any of its queries sees

  __device__ int pages() const { return last_page - first_page + 1; }
};

// Tile `at` of the list: requests in order, then queries from the last to the first, then kv heads.
__device__ Tile find_tile(const Problem& p, const Memory& m, int at) {
  Tile tile;
  tile.request = request_of(m.first, p.num_requests, at);
  const int begin = m.offs[tile.request], queries = m.offs[tile.request + 1] - begin;
  const int local = at - m.first[tile.request];
  const int first = (query_tiles(queries) - 1 - local / p.num_kv_heads) * TILE_QUERIES;
  tile.head = local % p.num_kv_heads;
  tile.row = begin + first;
  tile.queries = min(TILE_QUERIES, queries - first);
  tile.kv_len = m.kv_lens[tile.request];
  tile.position = tile.kv_len - queries + first;
  tile.first_page = max(0, tile.position - p.window + 1) / PAGE_SIZE;
  tile.last_page = (tile.position + tile.queries - 1) / PAGE_SIZE;
  return tile;
}

// A CTA's tiles, one a round, there and back again, so that long ones are dealt out evenly.
struct Deal {
  int round = 0, total;

  __device__ explicit Deal(int num_tiles) : total(num_tiles) {}
  __device__ int at() const {
    const int cta = round % 2 ? gridDim.x - 1 - blockIdx.x : blockIdx.x;
    return round * gridDim.x + cta;
  }
  // The last round may have none for this CTA.
  __device__ bool has_one() const { return at() < total; }
  __device__ void next() { ++round; }
};

// ---- one warp brings tiles

// Pages in bf16, each into the stage where it is multiplied.
struct Plain {
  const Problem& p;
  Memory& m;
  int lane;
  Ring<STAGES> k{1}, v{1};
  uint32_t brought_phase = 0;

  __device__ void finish() {}

  __device__ void bring_keys(int row) {
    wait(smem_u32(&m.empty_k[k.stage]), k.phase);
    load(m.k[k.stage], p.k, row, m.full_k[k.stage]);
    k.next();
  }

  // The first `valid` positions are of the request.
  __device__ void bring_values(int row, int valid) {
    wait(smem_u32(&m.empty_v[v.stage]), v.phase);
    if (valid < PAGE_SIZE)
      bring_last_values(row, valid);
    else
      load(m.v[v.stage], p.v, row, m.full_v[v.stage]);
    v.next();
  }

 private:
  __device__ void load(uint8_t* to, const TensorMap* map, int row, uint64_t& full) {
    if (lane == 0) {
      arrive_expect(smem_u32(&full), PAGE_BYTES);
      tensor_load(smem_u32(to), map, 0, row, smem_u32(&full));
    }
    __syncwarp();
  }

  // Values at positions that no request has written may be anything, NaN too: they become zeros.
  __device__ void bring_last_values(int row, int valid) {
    load(m.v[v.stage], p.v, row, m.brought);
    wait(smem_u32(&m.brought), brought_phase);
    brought_phase ^= 1;
    uint4* pieces = reinterpret_cast<uint4*>(m.v[v.stage]);
    for (int i = valid * 8 + lane; i < PAGE_SIZE * 8; i += 32) pieces[i] = make_uint4(0, 0, 0, 0);
    async_fence();
    __syncwarp();
    if (lane == 0) arrive(smem_u32(&m.full_v[v.stage]));
    __syncwarp();
  }
};

// Pages in e4m3, for the warps that unpack them.
struct Packed {
  const Problem& p;
  PackedMemory& m;
  int lane;
  Ring<PACKED_STAGES> ring{1};

  __device__ void bring_keys(int row) { load({Item::KEYS, PAGE_SIZE}, p.k, row); }
  __device__ void bring_values(int row, int valid) { load({Item::VALUES, valid}, p.v, row); }

  __device__ void finish() {
    wait(smem_u32(&m.empty[ring.stage]), ring.phase);
    if (lane == 0) {
      m.items[ring.stage] = {Item::END, 0};
      arrive(smem_u32(&m.full[ring.stage]));
    }
  }

 private:
  __device__ void load(Item item, const TensorMap* map, int row) {
    wait(smem_u32(&m.empty[ring.stage]), ring.phase);
    if (lane == 0) {
      const uint32_t full = smem_u32(&m.full[ring.stage]);
      m.items[ring.stage] = item;
      arrive_expect(full, E4M3_BYTES);
      tensor_load(smem_u32(m.pages[ring.stage]), map, 0, row, full);
    }
    __syncwarp();
    ring.next();
  }
};

template <class Pages>
__device__ void bring(const Problem& p, Memory& m, Pages pages, int lane) {
  Ring<QUERY_STAGES> q_ring(1);
  for (Deal deal(m.first[p.num_requests]); deal.has_one(); deal.next(), q_ring.next()) {
    const Tile tile = find_tile(p, m, deal.at());
    wait(smem_u32(&m.empty_q[q_ring.stage]), q_ring.phase);
    if (lane == 0) {
      const uint32_t full = smem_u32(&m.full_q[q_ring.stage]);
      arrive_expect(full, QUERY_BYTES);
      tensor_load(smem_u32(m.q[q_ring.stage]), p.q, 0, tile.head * GROUP_HEADS, tile.row, full);
    }
    __syncwarp();
    const int64_t table = static_cast<int64_t>(tile.request) * p.max_pages;
    int entries = 0, row = 0, last_row = 0;
    // The values of a page come after the keys of the next one, as they are wanted.
    for (int i = 0; i <= tile.pages(); ++i) {
      if (i < tile.pages()) {
        if (i % 32 == 0)
          entries = i + lane < tile.pages() ? p.page_table[table + tile.last_page - i - lane] : 0;
        row = (__shfl_sync(~0u, entries, i % 32) * p.num_kv_heads + tile.head) * PAGE_SIZE;
        pages.bring_keys(row);
      }
      if (i > 0)
        pages.bring_values(last_row, tile.kv_len - (tile.last_page - i + 1) * PAGE_SIZE);
      last_row = row;
    }
  }
  pages.finish();
}

// ---- three warps unpack e4m3

// A page into the 128-byte swizzle; positions from `valid` on become zeros. A thread's rows lie 24
// apart, so that all of them are swizzled alike.
__device__ __forceinline__ void unpack(uint32_t from, uint32_t to, int valid, int thread) {
  constexpr int ROWS = UNPACK_WARPS * 8;
  static_assert(ROWS % 8 == 0, "rows of a swizzle");
  const int first = thread / 4, piece = thread % 4;
  from += e4m3_piece(first, piece);
  to += first * 128 + ((2 * piece ^ first % 8) << 4);
#pragma unroll 1
  for (int row = first; row < PAGE_SIZE; row += ROWS, from += ROWS * E4M3_ROW, to += ROWS * 128) {
    uint4 in = load_shared16(from);
    if (row >= valid) in = make_uint4(0, 0, 0, 0);
    store_shared16(to, make_uint4(bf16_of_e4m3(in.x), bf16_of_e4m3(in.x >> 16),
                                  bf16_of_e4m3(in.y), bf16_of_e4m3(in.y >> 16)));
    store_shared16(to ^ 16, make_uint4(bf16_of_e4m3(in.z), bf16_of_e4m3(in.z >> 16),
                                       bf16_of_e4m3(in.w), bf16_of_e4m3(in.w >> 16)));
  }
  async_fence();
  __syncwarp();
}

__device__ void unpack_pages(PackedMemory& packed, int thread) {
  Memory& m = packed.unpacked;
  Ring<STAGES> k(1), v(1);
  for (Ring<PACKED_STAGES> ring(0);; ring.next()) {
    wait(smem_u32(&packed.full[ring.stage]), ring.phase);
    // The lane that reads it is the one that says it was read.
    Item item{};
    if (thread % 32 == 0) item = packed.items[ring.stage];
    const int kind = __shfl_sync(~0u, item.kind, 0), valid = __shfl_sync(~0u, item.valid, 0);
    if (kind == Item::END) return;
    const bool is_v = kind == Item::VALUES;
    Ring<STAGES> to = is_v ? v : k;
    wait(smem_u32(&(is_v ? m.empty_v : m.empty_k)[to.stage]), to.phase);
    unpack(smem_u32(packed.pages[ring.stage]), smem_u32((is_v ? m.v : m.k)[to.stage]), valid,
           thread);
    if (thread % 32 == 0) {
      arrive(smem_u32(&packed.empty[ring.stage]));
      arrive(smem_u32(&(is_v ? m.full_v : m.full_k)[to.stage]));
    }
    to.next();
    (is_v ? v : k) = to;
  }
}

// ---- three warpgroups multiply

// Warpgroup after warpgroup issues its products.
__device__ __forceinline__ void wait_for_turn(int group) {
  asm volatile("bar.sync %0, %1;" ::"r"(TURN_BARRIER + group), "n"(2 * GROUP_THREADS) : "memory");
}

__device__ __forceinline__ void pass_turn(int group) {
  const int next = group + 1 == MATH_GROUPS ? 0 : group + 1;
  asm volatile("bar.arrive %0, %1;" ::"r"(TURN_BARRIER + next), "n"(2 * GROUP_THREADS) : "memory");
}

// Of this warp's two queries, numbered within the tile.
__device__ void store(const Problem& p, const Tile& tile, Running& r, int query, int lane) {
  const int g = lane / 4, t = lane % 4, head = tile.head * GROUP_HEADS + g;
  const float sink = __bfloat162float(p.sinks[head]) * LOG2_E;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float total = r.total[half] + __shfl_xor_sync(~0u, r.total[half], 1);
    total += __shfl_xor_sync(~0u, total, 2);
    const float scale = total > 0 ? 1 / (total + exp2f(sink - r.top[half] * SCORE_SCALE)) : 0;
    uint32_t words[HEAD_DIM / 8];
#pragma unroll
    for (int j = 0; j < HEAD_DIM / 8; ++j)
      words[j] = pack_bf16(r.out[4 * j + 2 * half] * scale, r.out[4 * j + 2 * half + 1] * scale);
    const uint4 low = exchange(words[0], words[1], words[2], words[3], t);
    const uint4 high = exchange(words[4], words[5], words[6], words[7], t);
    if (query + half >= tile.queries) continue;
    const int64_t row = tile.row + query + half;
    bf16* to = p.out + (row * p.num_kv_heads * GROUP_HEADS + head) * HEAD_DIM;
    reinterpret_cast<uint4*>(to)[t] = low;
    reinterpret_cast<uint4*>(to)[4 + t] = high;
  }
}

struct Rings {
  Ring<QUERY_STAGES> q{0};
  Ring<STAGES> k{0}, v{0};
};

// All pages of one tile. The products of scores for a page and of weights and values for the page
// before it run together.
__device__ __forceinline__ void attend(const Problem& p, Memory& m, const Tile& tile, Rings& rings,
                                       int group, Running& r) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  const int position = tile.position + group * GROUP_QUERIES + warp * 2;
  const int lowest = tile.position + group * GROUP_QUERIES;
  const uint32_t q = b_descriptor(smem_u32(m.q[rings.q.stage]) + group * GROUP_BYTES);
  float scores[SCORES], scale[2];
  uint32_t weights[STEPS][4];
  int key = tile.last_page * PAGE_SIZE;
  const auto weigh_page = [&] {
    const bool is_edge =
        key + PAGE_SIZE - 1 > lowest || key <= lowest + GROUP_QUERIES - 1 - p.window;
    if (is_edge) mask(scores, position, p.window, key + lane % 4 * 2);
    weigh(scores, r, scale);
    key -= PAGE_SIZE;
  };
  const auto scores_done = [&] {
    if (lane == 0) arrive(smem_u32(&m.empty_k[rings.k.stage]));
    rings.k.next();
  };
  const auto values_done = [&] {
    if (lane == 0) arrive(smem_u32(&m.empty_v[rings.v.stage]));
    rings.v.next();
  };
  wait(smem_u32(&m.full_q[rings.q.stage]), rings.q.phase);
  wait(smem_u32(&m.full_k[rings.k.stage]), rings.k.phase);
  wgmma_fence();
  issue_scores(q, b_descriptor(smem_u32(m.k[rings.k.stage])), scores);
  wgmma_wait<0>();
  settle(scores);
  scores_done();
  weigh_page();
  bool is_first = true;
  // The wait for values stands at the top: within one block of instructions ptxas would move it
  // up, before the weights of the next page are made.
  const auto take_values = [&] {
    wgmma_wait<0>();
    settle(r.out);
    if (!is_first) values_done();
    is_first = false;
#pragma unroll
    for (int i = 0; i < SUMS; ++i) r.out[i] *= scale[i / 2 % 2];
    pack(scores, weights);
  };
  for (int left = tile.pages() - 1; left; --left) {
    take_values();
    wait(smem_u32(&m.full_k[rings.k.stage]), rings.k.phase);
    wait_for_turn(group);
    wgmma_fence();
    issue_scores(q, b_descriptor(smem_u32(m.k[rings.k.stage])), scores);
    wait(smem_u32(&m.full_v[rings.v.stage]), rings.v.phase);
    issue_values(weights, b_descriptor(smem_u32(m.v[rings.v.stage])), r.out);
    pass_turn(group);
    wgmma_wait<1>();
    settle(scores);
    scores_done();
    weigh_page();
    settle(scores);
  }
  take_values();
  if (lane == 0) arrive(smem_u32(&m.empty_q[rings.q.stage]));
  rings.q.next();
  wait(smem_u32(&m.full_v[rings.v.stage]), rings.v.phase);
  wgmma_fence();
  issue_values(weights, b_descriptor(smem_u32(m.v[rings.v.stage])), r.out);
  wgmma_wait<0>();
  settle(r.out);
  values_done();
}

__device__ void multiply(const Problem& p, Memory& m, int group) {
  Rings rings;
  if (group == MATH_GROUPS - 1) pass_turn(group);
  for (Deal deal(m.first[p.num_requests]); deal.has_one(); deal.next()) {
    const Tile tile = find_tile(p, m, deal.at());
    Running r;
#pragma unroll
    for (float& x : r.out) asm volatile("mov.f32 %0, 0f00000000;" : "=f"(x));
    r.top[0] = r.top[1] = -INFINITY;
    r.total[0] = r.total[1] = 0;
    attend(p, m, tile, rings, group, r);
    store(p, tile, r, group * GROUP_QUERIES + threadIdx.x / 32 % 4 * 2, threadIdx.x % 32);
  }
}

// A page of K or V is there once so many threads have arrived.
__device__ void initialise(const Problem& p, Memory& m, int arrivals) {
  prefetch_map(p.q);
  prefetch_map(p.k);
  prefetch_map(p.v);
  for (int i = 0; i < QUERY_STAGES; ++i) {
    barrier_init(smem_u32(&m.full_q[i]), 1);
    barrier_init(smem_u32(&m.empty_q[i]), MATH_WARPS);
  }
  for (int i = 0; i < STAGES; ++i) {
    barrier_init(smem_u32(&m.full_k[i]), arrivals);
    barrier_init(smem_u32(&m.full_v[i]), arrivals);
    barrier_init(smem_u32(&m.empty_k[i]), MATH_WARPS);
    barrier_init(smem_u32(&m.empty_v[i]), MATH_WARPS);
  }
  barrier_init(smem_u32(&m.brought), 1);
  barrier_init_fence();
}

template <bool E4M3>
__device__ __forceinline__ void attend_all(const Problem& p, uint8_t* bytes) {
  Memory& m = *reinterpret_cast<Memory*>(bytes);
  PackedMemory& packed = *reinterpret_cast<PackedMemory*>(bytes);  // if E4M3
  if (threadIdx.x == 0) {
    for (int i = 0; E4M3 && i < PACKED_STAGES; ++i) {
      barrier_init(smem_u32(&packed.full[i]), 1);
      barrier_init(smem_u32(&packed.empty[i]), UNPACK_WARPS);
    }
    initialise(p, m, E4M3 ? UNPACK_WARPS : 1);
  }
  let_next_kernel_start();
  wait_for_previous_kernel();
  for (int i = threadIdx.x; i <= p.num_requests; i += THREADS) {
    m.offs[i] = p.offs[i];
    if (i < p.num_requests) m.kv_lens[i] = p.kv_lens[i];
  }
  if (threadIdx.x < 32)
    list_requests(p.num_requests, m.first, threadIdx.x, [&](int request) {
      return p.num_kv_heads * query_tiles(p.offs[request + 1] - p.offs[request]);
    });
  __syncthreads();
  if (threadIdx.x >= MATH_GROUPS * GROUP_THREADS) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(FILL_REGISTERS));
    const int thread = threadIdx.x - MATH_GROUPS * GROUP_THREADS;
    if constexpr (E4M3) {
      if (thread < 32)
        bring(p, m, Packed{p, packed, thread}, thread);
      else
        unpack_pages(packed, thread - 32);
    } else {
      if (thread < 32) bring(p, m, Plain{p, m, thread}, thread);
    }
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(MATH_REGISTERS));
    multiply(p, m, broadcast(threadIdx.x / GROUP_THREADS));
  }
}

}  // namespace
}  // namespace haast

// offs, kv_lens and page_table begin with the first request that this launch serves.
#define HAAST_ATTENTION_PREFILL(NAME, E4M3)                                                        \
  extern "C" __global__ void __launch_bounds__(haast::THREADS, 1)                                  \
      NAME(const __grid_constant__ haast::TensorMap q, const __grid_constant__ haast::TensorMap k, \
           const __grid_constant__ haast::TensorMap v, const int* offs, const int* kv_lens,        \
           const int* page_table, const haast::bf16* sinks, haast::bf16* out, int num_requests,    \
           int num_kv_heads, int max_pages, int window) {                                          \
    extern __shared__ __align__(1024) uint8_t bytes[];                                             \
    haast::attend_all<E4M3>({&q, &k, &v, offs, kv_lens, page_table, sinks, out, num_requests,      \
                             num_kv_heads, max_pages, window},                                     \
                            bytes);                                                                \
  }

HAAST_ATTENTION_PREFILL(attention_prefill_wgmma, false)
HAAST_ATTENTION_PREFILL(attention_prefill_wgmma_fp8, true)
