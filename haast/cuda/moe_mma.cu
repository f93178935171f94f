// Grouped MXFP4 matmul for few rows an expert: mma.sync m16n8k16, weights streamed once.
//
// A unit of work is (expert, chunk of NT x 8 routed rows, part of K, tile of 16 weight rows); each CTA
// takes an equal run of consecutive units. One warp streams weights through a ring with bulk copies,
// one brings the rows of a chunk, twelve warps keep their blocks of those rows in registers and
// multiply them with the same blocks of every tile, two warps add the partial sums and finish.
#include "experts.cuh"
#include "mma.cuh"
#include "mxfp4.cuh"
#include "swiglu.cuh"

namespace haast {
namespace {

constexpr int MATH_WARPS = 12;
constexpr int WEIGHT_WARP = MATH_WARPS;
constexpr int ROW_WARP = WEIGHT_WARP + 1;
constexpr int FINISH_WARP = ROW_WARP + 1;
constexpr int FINISH_WARPS = 2;
constexpr int THREADS = 32 * (FINISH_WARP + FINISH_WARPS);
constexpr int BIAS_BYTES = TILE_ROWS * 2;
constexpr int WARP_BLOCKS = 4;  // of K that a warp has at most: K <= 3072
constexpr int COPY_BLOCKS = 16;  // of a bulk copy: about 8 KB are fastest
static_assert(FINISH_WARPS == 2);
constexpr int SUM_SLOTS = FINISH_WARPS;  // each finishing warp has its own

struct Problem {
  const bf16* x;          // [T, K] or [R, K]
  const uint8_t* weight;  // [E, tiles, blocks, 544]
  const bf16* bias;       // [E, N]
  const int* offs;        // [E + 1]
  const int* gather;      // [R] row of x, or null: the routed row itself
  int num_experts;
  int k;
  int tiles;   // N / 16
  int parts;   // of K
  int stages;  // of the ring
};

struct Shared {
  uint32_t rows, row_bytes, ring, stage_bytes, sums, sum_bytes;  // a stage ends with its bias
  uint32_t full, empty, rows_full, rows_empty, sum_empty;
  int* first_unit;  // [E + 1]
};

__device__ __forceinline__ int blocks_of(int k) { return divide_up(k, BLOCK_K); }

// Which blocks of K part `part` has: [first, last).
__device__ __forceinline__ int first_block(const Problem& p, int part) {
  return blocks_of(p.k) * part / p.parts;
}

template <int NT>
__device__ Shared carve(const Problem& p, uint8_t* memory) {
  Shared s;
  uint32_t at = smem_u32(memory);
  const uint32_t blocks = blocks_of(p.k);
  s.row_bytes = blocks * BLOCK_K * 2 + 16;  // + 16: ldmatrix without bank conflicts
  s.stage_bytes = (blocks + p.parts - 1) / p.parts * BLOCK_BYTES + BIAS_BYTES;
  s.sum_bytes = MATH_WARPS * NT * 512;
  s.rows = at;
  at += s.row_bytes * NT * 8;
  s.sums = at;
  at += s.sum_bytes * SUM_SLOTS;
  s.ring = at;
  at += s.stage_bytes * p.stages;
  s.full = at;
  s.empty = s.full + 8 * p.stages;
  s.sum_empty = s.empty + 8 * p.stages;
  s.rows_full = s.sum_empty + 8 * SUM_SLOTS;
  s.rows_empty = s.rows_full + 8;
  s.first_unit = reinterpret_cast<int*>(memory + (s.rows_empty + 8 - smem_u32(memory)));
  return s;
}

// Walks a CTA's units in order.
template <int NT>
struct Units {
  const Problem& p;
  const int* first_unit;
  int at, end, expert, chunk, part, tile;
  int first_row, num_rows;  // routed rows of the chunk
  bool is_new_chunk;

  __device__ Units(const Problem& problem, const int* first_unit_of)
      : p(problem), first_unit(first_unit_of) {
    const int total = first_unit[p.num_experts], share = total / gridDim.x, rest = total % gridDim.x;
    at = share * blockIdx.x + min(static_cast<int>(blockIdx.x), rest);
    end = at + share + (static_cast<int>(blockIdx.x) < rest);
    if (at >= end) return;
    expert = expert_of(first_unit, p.num_experts, at);
    const int local = at - first_unit[expert];
    chunk = local / (p.tiles * p.parts);
    part = local / p.tiles % p.parts;
    tile = local % p.tiles;
    enter_chunk();
  }

  __device__ bool has_one() const { return at < end; }

  __device__ void next() {
    is_new_chunk = false;
    if (++at >= end || ++tile < p.tiles) return;
    tile = 0;
    if (++part < p.parts) return;
    part = 0;
    ++chunk;
    while (first_unit[expert + 1] <= at) {
      ++expert;
      chunk = 0;
    }
    enter_chunk();
  }

  // No later unit needs this chunk's rows once this part's are in registers.
  __device__ bool is_last_part() const {
    return part + 1 == p.parts || end - at <= p.tiles - tile;
  }

  // To the next part; how many units that leaves behind.
  __device__ int skip_part() {
    const int run = min(end - at, p.tiles - tile);
    at += run - 1;
    tile += run - 1;
    next();
    return run;
  }

 private:
  __device__ void enter_chunk() {
    is_new_chunk = true;
    first_row = __ldcg(p.offs + expert) + chunk * NT * 8;
    num_rows = min(__ldcg(p.offs + expert + 1) - first_row, NT * 8);
  }
};

// Bytes of x beyond K are multiplied by zero weights, so they must be numbers.
template <int NT>
__device__ void clear_row_tails(const Problem& p, uint8_t* rows, uint32_t row_bytes) {
  const int used = p.k * 2;
  const int tail = static_cast<int>(row_bytes) - used;
  for (int i = threadIdx.x * 4; i < tail * NT * 8; i += THREADS * 4)
    *reinterpret_cast<uint32_t*>(rows + i / tail * row_bytes + used + i % tail) = 0;
}

template <int NT>
__device__ void stream_weights(const Problem& p, const Shared& s) {
  const int blocks = blocks_of(p.k);
  int stage = 0;
  uint32_t phase = 1;
  for (Units<NT> unit(p, s.first_unit); unit.has_one(); unit.next()) {
    const int first = first_block(p, unit.part);
    const int bytes = (first_block(p, unit.part + 1) - first) * BLOCK_BYTES;
    const long tile = static_cast<long>(unit.expert) * p.tiles + unit.tile;
    const long block = tile * blocks + first;
    wait(s.empty + 8 * stage, phase);
    const uint32_t to = s.ring + stage * s.stage_bytes, full = s.full + 8 * stage;
    arrive_expect(full, bytes + BIAS_BYTES);
    for (int at = 0; at < bytes; at += COPY_BLOCKS * BLOCK_BYTES)
      bulk_load_once(to + at, p.weight + block * BLOCK_BYTES + at,
                     min(COPY_BLOCKS * BLOCK_BYTES, bytes - at), full);
    bulk_load(to + s.stage_bytes - BIAS_BYTES, p.bias + tile * TILE_ROWS, BIAS_BYTES, full);
    if (++stage == p.stages) {
      stage = 0;
      phase ^= 1;
    }
  }
}

template <int NT>
__device__ void bring_rows(const Problem& p, const Shared& s, int lane) {
  uint32_t phase = 1;
  for (Units<NT> unit(p, s.first_unit); unit.has_one(); unit.next()) {
    if (!unit.is_new_chunk) continue;
    wait(s.rows_empty, phase);
    phase ^= 1;
    if (lane == 0) arrive_expect(s.rows_full, unit.num_rows * p.k * 2);
    __syncwarp();
    if (lane < unit.num_rows) {
      const int row = unit.first_row + lane;
      const long source = p.gather ? p.gather[row] : row;
      bulk_load(s.rows + lane * s.row_bytes, p.x + source * p.k, p.k * 2, s.rows_full);
    }
  }
}

// A lane's fragments of NT x 8 rows in its warp's blocks of K: warp, warp + MATH_WARPS, ...
template <int NT>
struct Rows {
  uint32_t x[WARP_BLOCKS][NT][2][4];

  __device__ __forceinline__ void load(uint32_t rows, uint32_t row_bytes, int blocks, int warp,
                                       int lane) {
    rows += lane % 8 * row_bytes + lane / 8 * 16;
#pragma unroll
    for (int i = 0; i < WARP_BLOCKS; ++i) {
      const int block = warp + i * MATH_WARPS;
      if (block >= blocks) continue;
#pragma unroll
      for (int n = 0; n < NT; ++n)
#pragma unroll
        for (int half = 0; half < 2; ++half)
          load_matrices(rows + n * 8 * row_bytes + block * BLOCK_K * 2 + half * 64, x[i][n][half]);
    }
  }
};

// One block of 64 k. Two accumulators a tile, so that mma latencies overlap.
template <int NT>
__device__ __forceinline__ void multiply_block(const uint4& words, uint32_t scale_bytes,
                                               const uint32_t (&x)[NT][2][4],
                                               float (&acc)[NT][2][4]) {
  const Scales scales(scale_bytes);
  uint32_t a[4][4];
  decode<0>(words.x, scales, a[0]);
  decode<0>(words.y, scales, a[1]);
  decode<1>(words.z, scales, a[2]);
  decode<1>(words.w, scales, a[3]);
#pragma unroll
  for (int j = 0; j < 4; ++j)
#pragma unroll
    for (int n = 0; n < NT; ++n)
      mma(acc[n][j % 2], a[j], x[n][j / 2][j % 2 * 2], x[n][j / 2][j % 2 * 2 + 1]);
}

struct Words {
  uint4 words;
  uint32_t scales;

  __device__ __forceinline__ void load(uint32_t words_at, uint32_t scales_at) {
    words = load_shared16(words_at);
    scales = load_shared4(scales_at);
  }
};

// A warp's `count` blocks of one tile; the next block loads while one is multiplied.
template <int NT>
__device__ __forceinline__ void multiply_tile(uint32_t words_at, uint32_t scales_at,
                                              const Rows<NT>& rows, int count,
                                              float (&acc)[NT][2][4]) {
  constexpr int STEP = MATH_WARPS * BLOCK_BYTES;
  Words buffer[2];
  if (count > 0) buffer[0].load(words_at, scales_at);
#pragma unroll
  for (int i = 0; i < WARP_BLOCKS; ++i) {
    if (i >= count) break;
    if (i + 1 < WARP_BLOCKS && i + 1 < count)
      buffer[(i + 1) % 2].load(words_at + (i + 1) * STEP, scales_at + (i + 1) * STEP);
    multiply_block<NT>(buffer[i % 2].words, buffer[i % 2].scales, rows.x[i], acc);
  }
}

// Of weight rows g and g + 8; in a paired tile those are neighbours in the bias.
template <int NT, bool PAIRED>
__device__ __forceinline__ void add_bias(uint32_t bias, int lane, float (&acc)[NT][2][4]) {
  const int g = lane / 4;
  const float a = load_shared_bf16(bias + 2 * (PAIRED ? 2 * g : g));
  const float b = load_shared_bf16(bias + 2 * (PAIRED ? 2 * g + 1 : g + 8));
#pragma unroll
  for (int n = 0; n < NT; ++n) {
    acc[n][0][0] += a;
    acc[n][0][1] += a;
    acc[n][0][2] += b;
    acc[n][0][3] += b;
  }
}

// A slot of partial sums is full once every math warp has arrived.
__device__ __forceinline__ void sums_arrive(int slot) {
  asm volatile("bar.arrive %0, %1;" ::"r"(1 + slot), "n"(32 * (MATH_WARPS + 1)) : "memory");
}

__device__ __forceinline__ void sums_wait(int slot) {
  asm volatile("bar.sync %0, %1;" ::"r"(1 + slot), "n"(32 * (MATH_WARPS + 1)) : "memory");
}

template <int NT, bool PAIRED>
__device__ void multiply(const Problem& p, const Shared& s, int warp, int lane) {
  Rows<NT> rows;
  uint32_t phase = 0, rows_phase = 0;
  const uint32_t ring_end = s.ring + p.stages * s.stage_bytes;
  const uint32_t words_in_stage = warp * BLOCK_BYTES + lane * 16;
  const uint32_t scales_in_stage = warp * BLOCK_BYTES + SCALES_AT + lane / 4 * 4;
  const bool has_bias = warp == MATH_WARPS - 1;
  uint32_t stage = s.ring, full = s.full;
  uint32_t sums = s.sums + warp * 512 + lane * 16, sums_step = s.sum_bytes;
  uint32_t slot = 0, sum_phase = 1;
  for (Units<NT> unit(p, s.first_unit); unit.has_one();) {
    const int first = first_block(p, unit.part);
    const int blocks = first_block(p, unit.part + 1) - first;
    const int count = (blocks - warp + MATH_WARPS - 1) / MATH_WARPS;
    if (unit.is_new_chunk) {
      wait(s.rows_full, rows_phase);
      rows_phase ^= 1;
    }
    rows.load(s.rows + first * BLOCK_K * 2, s.row_bytes, blocks, warp, lane);
    if (unit.is_last_part()) arrive(s.rows_empty);
    const bool adds_bias = has_bias && unit.part == 0;
    for (int run = unit.skip_part(); run; --run) {
      float acc[NT][2][4] = {};
      wait(full, phase);
      multiply_tile<NT>(stage + words_in_stage, stage + scales_in_stage, rows, count, acc);
      if (adds_bias) add_bias<NT, PAIRED>(stage + s.stage_bytes - BIAS_BYTES, lane, acc);
      wait(s.sum_empty + 8 * slot, sum_phase);
#pragma unroll
      for (int n = 0; n < NT; ++n) {
        const auto& d = acc[n];
        store_shared_float4(sums + n * MATH_WARPS * 512,
                            make_float4(d[0][0] + d[1][0], d[0][1] + d[1][1], d[0][2] + d[1][2],
                                        d[0][3] + d[1][3]));
      }
      sums_arrive(slot);
      __syncwarp();
      if (lane == 0) arrive(full + 8 * p.stages);
      stage += s.stage_bytes;
      full += 8;
      if (stage == ring_end) {
        stage = s.ring;
        full = s.full;
        phase ^= 1;
      }
      sum_phase ^= slot;
      slot ^= 1;
      sums += sums_step;
      sums_step = -sums_step;
    }
  }
}

// Sum of the warps' partial results of one 16 x 8 tile, in warp order.
__device__ __forceinline__ float4 sum_partials(uint32_t at) {
  float4 total = load_shared_float4(at);
#pragma unroll
  for (int w = 1; w < MATH_WARPS; ++w) {
    const float4 part = load_shared_float4(at + w * 512);
    total.x += part.x;
    total.y += part.y;
    total.z += part.z;
    total.w += part.w;
  }
  return total;
}

// Every second unit, with its own slot of partial sums. Lane (g, t) has weight rows g and g + 8 of
// routed rows 2 t and 2 t + 1 (+ 8 n): finish.column(i, ...) for i = 2 n and 2 n + 1.
template <int NT, class Finish>
__device__ void finish_units(const Problem& p, const Shared& s, int warp, int lane,
                             Finish finish) {
  const int g = lane / 4, t = lane % 4;
  const uint32_t sums = s.sums + warp * s.sum_bytes + lane * 16;
  int turn = 0, chunk = -1, expert = -1;
  for (Units<NT> unit(p, s.first_unit); unit.has_one(); unit.next()) {
    const bool is_own = turn == warp;
    turn = turn + 1 == FINISH_WARPS ? 0 : turn + 1;
    if (!is_own) continue;
    if (unit.expert != expert || unit.chunk != chunk) {
      expert = unit.expert;
      chunk = unit.chunk;
#pragma unroll
      for (int i = 0; i < NT * 2; ++i) {
        const int column = i / 2 * 8 + t * 2 + i % 2;
        if (column < unit.num_rows) finish.enter_row(i, unit.first_row + column);
      }
    }
    sums_wait(warp);
#pragma unroll
    for (int n = 0; n < NT; ++n) {
      const float4 d = sum_partials(sums + n * MATH_WARPS * 512);
      const int column = n * 8 + t * 2;
      if (column < unit.num_rows) finish.store(p, unit, g, 2 * n, d.x, d.z);
      if (column + 1 < unit.num_rows) finish.store(p, unit, g, 2 * n + 1, d.y, d.w);
    }
    arrive(s.sum_empty + 8 * warp);
  }
}

template <int NT, class Finish>
__device__ void run(const Problem& p, Finish finish) {
  extern __shared__ __align__(128) uint8_t memory[];
  const Shared s = carve<NT>(p, memory);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (int i = 0; i < p.stages; ++i) {
      barrier_init(s.full + 8 * i, 1);
      barrier_init(s.empty + 8 * i, MATH_WARPS);
    }
    for (int i = 0; i < SUM_SLOTS; ++i) barrier_init(s.sum_empty + 8 * i, 32);
    barrier_init(s.rows_full, 1);
    barrier_init(s.rows_empty, MATH_WARPS * 32);
    barrier_init_fence();
  }
  clear_row_tails<NT>(p, memory, s.row_bytes);
  // moe_down starts when all CTAs of moe_up know the routing, so it may read that at once and stream
  // weights while the last tiles of moe_up are computed.
  if constexpr (Finish::IS_UP) wait_for_previous_kernel();
  let_next_kernel_start();
  if (warp == 0)
    list_work(p.offs, p.num_experts, s.first_unit, lane, [&](int rows) {
      return divide_up(rows, NT * 8) * p.tiles * p.parts;
    });
  __syncthreads();
  if (warp == WEIGHT_WARP) {
    if (lane == 0) stream_weights<NT>(p, s);
    return;
  }
  if constexpr (!Finish::IS_UP) wait_for_previous_kernel();
  if (warp < MATH_WARPS) {
    multiply<NT, Finish::IS_UP>(p, s, warp, lane);
  } else if (warp == ROW_WARP) {
    bring_rows<NT>(p, s, lane);
  } else {
    finish_units<NT>(p, s, warp - FINISH_WARP, lane, finish);
  }
}

// Rows of a tile: g is gate and g + 8 is up of intermediate element tile * 8 + g.
template <int NT>
struct FinishUp {
  static constexpr bool IS_UP = true;
  bf16* out;  // [R, N / 2]
  float limit;
  int rows[NT * 2];

  __device__ void enter_row(int i, int row) { rows[i] = row; }

  template <class U>
  __device__ void store(const Problem& p, const U& unit, int g, int i, float gate,
                        float up) const {
    out[(static_cast<long>(rows[i]) * p.tiles + unit.tile) * 8 + g] =
        __float2bfloat16(swiglu(gate, up, limit));
  }
};

// fp32 terms by slot, for moe_combine to add.
template <int NT>
struct FinishDown {
  static constexpr bool IS_UP = false;
  float* out;            // [parts, R, N]
  const float* weights;  // [R] by slot
  const int* scatter;    // [R] slot of each routed row
  int num_rows;          // R
  int slots[NT * 2];
  float slot_weights[NT * 2];

  __device__ void enter_row(int i, int row) {
    slots[i] = scatter[row];
    slot_weights[i] = weights[slots[i]];
  }

  template <class U>
  __device__ void store(const Problem& p, const U& unit, int g, int i, float a, float b) const {
    const long row = static_cast<long>(unit.part) * num_rows + slots[i];
    float* at = out + (row * p.tiles + unit.tile) * TILE_ROWS + g;
    at[0] = a * slot_weights[i];
    at[8] = b * slot_weights[i];
  }
};

}  // namespace
}  // namespace haast

#define MOE_UP_MMA(NT, NAME)                                                                     \
  extern "C" __global__ void __launch_bounds__(haast::THREADS, 1)                                \
      NAME(const haast::bf16* x, const uint8_t* weight, const haast::bf16* bias, const int* offs, \
           const int* gather, haast::bf16* out, int num_experts, int k, int tiles, int stages,   \
           float limit) {                                                                        \
    const haast::Problem p{x, weight, bias, offs, gather, num_experts, k, tiles, 1, stages};     \
    haast::run<NT>(p, haast::FinishUp<NT>{out, limit});                                              \
  }

#define MOE_DOWN_MMA(NT, NAME)                                                                   \
  extern "C" __global__ void __launch_bounds__(haast::THREADS, 1)                                \
      NAME(const haast::bf16* x, const uint8_t* weight, const haast::bf16* bias, const int* offs, \
           const float* expert_weights, const int* scatter, float* out, int num_experts, int k,  \
           int tiles, int parts, int stages, int num_rows) {                                     \
    const haast::Problem p{x, weight, bias, offs, nullptr, num_experts, k, tiles, parts, stages}; \
    haast::run<NT>(p, haast::FinishDown<NT>{out, expert_weights, scatter, num_rows});                \
  }

MOE_UP_MMA(1, moe_up_mma_n8)
MOE_UP_MMA(2, moe_up_mma_n16)
MOE_DOWN_MMA(1, moe_down_mma_n8)
MOE_DOWN_MMA(2, moe_down_mma_n16)
