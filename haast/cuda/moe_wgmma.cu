// Grouped MXFP4 matmul for many rows an expert: wgmma with the decoded weights in registers.
//
// A tile is (expert, M x 192 weight rows, up to ROWS routed rows). Three warpgroups hold M x 64
// weight rows each; one warp fills the ring by tensor copies. Each CTA takes every gridDim-th tile.
#include "experts.cuh"
#include "mxfp4.cuh"
#include "swiglu.cuh"
#include "wgmma.cuh"

namespace haast {
namespace {

constexpr int MATH_GROUPS = 3;
constexpr int GROUP_THREADS = 128;
constexpr int THREADS = (MATH_GROUPS + 1) * GROUP_THREADS;
constexpr int MATH_WARPS = MATH_GROUPS * 4;
constexpr int MATH_REGISTERS = 160;
constexpr int FILL_REGISTERS = 24;

constexpr int BOX_ROWS = 16;  // of a copy of x, which has 64 k

struct Problem {
  const TensorMap* x;       // [R, K] bf16, rows sorted by expert
  const TensorMap* weight;  // [E * row_tiles, blocks, 544 bytes]
  const bf16* bias;         // [E, N] or null
  const int* offs;          // [E + 1]
  int num_experts;
  int k;
  int row_tiles;  // N / 16
  int max_rows;   // of a tile
};

// Where a routed row's result goes in moe_down, and its weight there.
struct Term {
  int slot;
  float weight;
};

// M_ m64 tiles a warpgroup and at most ROWS_ routed rows: what the registers hold. Groups of wgmmas
// are committed together: a block of all its tiles where that leaves room for the sums, else half.
template <int M_, int ROWS_>
struct Shape {
  static constexpr int M = M_;
  static constexpr int ROWS = ROWS_;
  static constexpr int PARTS = M * ROWS > 96 && M > 1 ? 2 : 1;  // of a block
  static constexpr int STEPS = 4 / PARTS;                       // k16 steps of a part
  static constexpr int ROW_TILES = MATH_WARPS * M;              // of a CTA's tile
  static constexpr int X_BYTES = ROWS * 128;
  static constexpr int W_BYTES = ROW_TILES * BLOCK_BYTES;
  static constexpr int STAGES = M == 1 ? 7 : 8;
  static constexpr int BARRIERS = STAGES * (X_BYTES + W_BYTES);
  static constexpr int TERMS = BARRIERS + STAGES * 16;
  static constexpr int FIRST_TILE = TERMS + MATH_GROUPS * ROWS * sizeof(Term);
};

struct Shared {
  uint32_t x, w, full, empty;
  Term* terms;      // [ROWS] of this warpgroup
  int* first_tile;  // [E + 1]
};

template <class S>
__device__ Shared carve(uint8_t* memory) {
  const uint32_t at = smem_u32(memory);
  return Shared{at,
                at + S::STAGES * S::X_BYTES,
                at + S::BARRIERS,
                at + S::BARRIERS + 8 * S::STAGES,
                reinterpret_cast<Term*>(memory + S::TERMS) + threadIdx.x / GROUP_THREADS * S::ROWS,
                reinterpret_cast<int*>(memory + S::FIRST_TILE)};
}

// A lane's accumulators.
template <class S>
struct Sums {
  float d[S::M][S::ROWS / 2];
};

// Volatile: as constants, the zeros would be kept in uniform registers, of which there are few.
template <class S>
__device__ __forceinline__ void clear(Sums<S>& acc) {
#pragma unroll
  for (int m = 0; m < S::M; ++m)
#pragma unroll
    for (int i = 0; i < S::ROWS / 2; ++i)
      asm volatile("mov.f32 %0, 0f00000000;" : "=f"(acc.d[m][i]));
}

struct Tile {
  int expert, row_tile, first_row, num_rows;
};

// Tile `at` of the list: experts in order, then weight rows, then chunks of routed rows of equal size.
template <class S>
__device__ Tile find_tile(const Problem& p, const int* first_tile, int at) {
  const int expert = expert_of(first_tile, p.num_experts, at);
  const int begin = p.offs[expert], rows = p.offs[expert + 1] - begin;
  const int chunks = divide_up(rows, p.max_rows);
  const int chunk_rows = divide_up(divide_up(rows, chunks), 8) * 8;
  const int local = at - first_tile[expert];
  const int first = local % chunks * chunk_rows;
  return Tile{expert, local / chunks * S::ROW_TILES, begin + first,
              min(chunk_rows, rows - first)};
}

// One warp. Row tiles beyond the expert's and routed rows beyond the chunk come along unused.
template <class S>
__device__ void fill(const Problem& p, const Shared& s, int lane) {
  const int blocks = divide_up(p.k, BLOCK_K);
  Ring<S::STAGES> ring(1);
  for (int at = blockIdx.x; at < s.first_tile[p.num_experts]; at += gridDim.x) {
    const Tile tile = find_tile<S>(p, s.first_tile, at);
    const int boxes = divide_up(tile.num_rows, BOX_ROWS);
    const int weight_row = tile.expert * p.row_tiles + tile.row_tile;
    const int row = tile.first_row + lane * BOX_ROWS;
    for (int block = 0; block < blocks; ++block, ring.next()) {
      const uint32_t full = s.full + 8 * ring.stage;
      const uint32_t x = s.x + ring.stage * S::X_BYTES;
      wait(s.empty + 8 * ring.stage, ring.phase);
      if (lane == 0) {
        arrive_expect(full, S::W_BYTES + boxes * BOX_ROWS * 128);
        tensor_load(s.w + ring.stage * S::W_BYTES, p.weight, 0, block, weight_row, full);
      }
      __syncwarp();
      if (lane < boxes)
        tensor_load(x + lane * BOX_ROWS * 128, p.x, block * BLOCK_K, row, full);
    }
  }
}

// Of one warpgroup.
__device__ __forceinline__ void sync_threads(int barrier) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "n"(GROUP_THREADS) : "memory");
}

// ---- multiplying

// A lane's weights of one block, of all its m64 tiles.
template <class S>
struct Weights {
  uint4 words[S::M];
  uint32_t scales[S::M];

  __device__ __forceinline__ void load(uint32_t at, uint32_t lane) {
#pragma unroll
    for (int m = 0; m < S::M; ++m, at += MATH_WARPS * BLOCK_BYTES) {
      words[m] = load_shared16(at + lane * 16);
      scales[m] = load_shared4(at + SCALES_AT + lane / 4 * 4);
    }
  }
};

template <class S>
using Fragments = uint32_t[S::M][S::STEPS][4];

template <int PART, class S>
__device__ __forceinline__ void decode_part(const Weights<S>& weights, Fragments<S>& a) {
#pragma unroll
  for (int m = 0; m < S::M; ++m) {
    const uint4& words = weights.words[m];
    const Scales scales(weights.scales[m]);
    if constexpr (PART == 0) {
      decode<0>(words.x, scales, a[m][0]);
      decode<0>(words.y, scales, a[m][1]);
    }
    if constexpr (PART == S::PARTS - 1) {
      decode<1>(words.z, scales, a[m][S::STEPS - 2]);
      decode<1>(words.w, scales, a[m][S::STEPS - 1]);
    }
  }
}

template <int N, class S>
__device__ __forceinline__ void issue_columns(const Fragments<S>& a, uint32_t x, Sums<S>& acc) {
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < S::STEPS; ++step)
#pragma unroll
    for (int m = 0; m < S::M; ++m) Wgmma<N>::run(acc.d[m], a[m][step], x + 2 * step);
  wgmma_commit();
}

// With as many columns as the tile's routed rows need, in units of 16. The choice is made here, not
// around the loop over K: with one loop for each size, ptxas serialises the wgmmas (C7512).
template <class S>
__device__ __forceinline__ void issue(const Fragments<S>& a, uint32_t x, int columns,
                                      Sums<S>& acc) {
#define HAAST_IF(CONDITION, N)                            \
  if constexpr (N <= S::ROWS) {                           \
    if (CONDITION) return issue_columns<N, S>(a, x, acc); \
  }
  HAAST_IF(columns == 11, 176)  // the usual sizes first
  HAAST_IF(columns > 11, 192)
  HAAST_IF(columns == 10, 160)
  HAAST_IF(columns == 9, 144)
  HAAST_IF(columns == 8, 128)
  HAAST_IF(columns == 7, 112)
  HAAST_IF(columns == 2, 32)
  HAAST_IF(columns == 3, 48)
  HAAST_IF(columns == 4, 64)
  HAAST_IF(columns == 5, 80)
  HAAST_IF(columns == 6, 96)
#undef HAAST_IF
  issue_columns<16, S>(a, x, acc);
}

// A warp's way through the blocks of one tile, in groups of four wgmmas.
template <class S>
struct Walk {
  const Shared& s;
  Ring<S::STAGES>& ring;
  Weights<S> weights;  // of the current block
  uint32_t lane, own_weights;
  uint32_t previous = 0;  // barrier of the stage that wgmmas may still read

  __device__ __forceinline__ Walk(const Shared& shared, Ring<S::STAGES>& its_ring)
      : s(shared), ring(its_ring), lane(threadIdx.x % 32) {
    own_weights = s.w + threadIdx.x / 32 * BLOCK_BYTES;
    load();
  }

  __device__ __forceinline__ void load() {
    wait(s.full + 8 * ring.stage, ring.phase);
    weights.load(own_weights + ring.stage * S::W_BYTES, lane);
  }

  // PART of the current block: decoded into `a` while the group before runs, then issued. After the
  // last part the next block is loaded. Leaves this group in flight, and no other.
  template <int PART>
  __device__ __forceinline__ void group(Fragments<S>& a, int columns, bool has_next,
                                        Sums<S>& acc) {
    const uint32_t empty = s.empty + 8 * ring.stage;
    const uint32_t x = s.x + ring.stage * S::X_BYTES;
    decode_part<PART, S>(weights, a);
    issue<S>(a, b_descriptor(x) + 4 * PART, columns, acc);
    if constexpr (PART == S::PARTS - 1) {
      ring.next();
      if (has_next) load();
    }
    wgmma_wait<1>();
    if (PART == 0 && previous && lane == 0) arrive(previous);
    previous = empty;
  }

  __device__ __forceinline__ void finish() {
    wgmma_wait<0>();
    if (lane == 0) arrive(previous);
  }
};

// All of K for one tile. The fragments of one group are decoded while wgmmas read the other's.
template <class S>
__device__ __forceinline__ void multiply_tile(const Shared& s, Ring<S::STAGES>& ring,
                                              int blocks, int columns, Sums<S>& acc) {
  Fragments<S> a[2];
  Walk<S> walk(s, ring);
  for (int left = blocks; left;) {
    --left;
    walk.template group<0>(a[0], columns, left, acc);
    if constexpr (S::PARTS == 1) {
      if (!left) break;
      --left;
    }
    walk.template group<S::PARTS - 1>(a[1], columns, left, acc);
  }
  walk.finish();
}

template <class S, class Finish>
__device__ void multiply(const Problem& p, const Shared& s, Finish finish) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int blocks = divide_up(p.k, BLOCK_K);
  Ring<S::STAGES> ring(0);
  for (int at = blockIdx.x; at < s.first_tile[p.num_experts]; at += gridDim.x) {
    const Tile tile = find_tile<S>(p, s.first_tile, at);
    const int columns = broadcast(divide_up(tile.num_rows, 16));
    finish.enter_tile(tile, s.terms);
    ring.make_uniform();
    Sums<S> acc;
    clear(acc);
    multiply_tile<S>(s, ring, blocks, columns, acc);
#pragma unroll
    for (int m = 0; m < S::M; ++m) {
      const int row_tile = tile.row_tile + m * MATH_WARPS + warp;
      if (row_tile < p.row_tiles) finish.run(p, tile, row_tile, lane, s.terms, acc.d[m]);
    }
  }
}

template <class S, class Finish>
__device__ void run(const Problem& p, Finish finish) {
  extern __shared__ __align__(1024) uint8_t memory[];
  const Shared s = carve<S>(memory);
  if (threadIdx.x == 0) {
    for (int i = 0; i < S::STAGES; ++i) {
      barrier_init(s.full + 8 * i, 1);
      barrier_init(s.empty + 8 * i, MATH_WARPS);
    }
    barrier_init_fence();
  }
  wait_for_previous_kernel();
  let_next_kernel_start();  // now that the routing is there, for moe_down by mma.sync
  if (threadIdx.x < 32) {
    const int columns = divide_up(p.row_tiles, S::ROW_TILES);
    list_work(p.offs, p.num_experts, s.first_tile, threadIdx.x,
              [&](int rows) { return divide_up(rows, p.max_rows) * columns; });
  }
  __syncthreads();
  if (threadIdx.x >= MATH_GROUPS * GROUP_THREADS) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(FILL_REGISTERS));
    const int thread = threadIdx.x - MATH_GROUPS * GROUP_THREADS;
    if (thread < 32) fill<S>(p, s, thread);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(MATH_REGISTERS));
    multiply<S>(p, s, finish);
  }
}

// ---- what becomes of a tile's sums. Lane (g, t) has, of routed rows 8 j + 2 t and + 1, weight row
// g in d[4 j], d[4 j + 1] and weight row g + 8 in d[4 j + 2], d[4 j + 3].

// Values of weight row g for two routed rows -> of one routed row, weight rows (even, odd), packed.
__device__ __forceinline__ uint32_t pair_up(float first, float second, bool is_odd) {
  const float other = __shfl_xor_sync(~0u, is_odd ? first : second, 4);
  const __nv_bfloat162 pair =
      is_odd ? __floats2bfloat162_rn(other, second) : __floats2bfloat162_rn(first, other);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

struct FinishUp {
  bf16* out;  // [R, N / 2]
  float limit;

  __device__ void enter_tile(const Tile&, Term*) const {}

  template <int N>
  __device__ __forceinline__ void run(const Problem& p, const Tile& tile, int row_tile, int lane,
                                      const Term* terms, const float (&d)[N]) const {
    const int g = lane / 4, t = lane % 4;
    const bool is_odd = g % 2;
    const long first = (static_cast<long>(tile.expert) * p.row_tiles + row_tile) * TILE_ROWS;
    const __nv_bfloat162 bias = reinterpret_cast<const __nv_bfloat162*>(p.bias + first)[g];
    const float gate_bias = __low2float(bias), up_bias = __high2float(bias);
    const int width = p.row_tiles * 8;
    bf16* at = out + static_cast<long>(tile.first_row) * width + row_tile * 8 + g - is_odd;
#pragma unroll
    for (int j = 0; j < N / 4; ++j) {
      if (8 * j >= tile.num_rows) break;
      const float first_row = swiglu(d[4 * j] + gate_bias, d[4 * j + 2] + up_bias, limit);
      const float second_row = swiglu(d[4 * j + 1] + gate_bias, d[4 * j + 3] + up_bias, limit);
      const uint32_t pair = pair_up(first_row, second_row, is_odd);
      const int row = 8 * j + 2 * t + is_odd;
      if (row < tile.num_rows)
        *reinterpret_cast<uint32_t*>(at + static_cast<long>(row) * width) = pair;
    }
  }
};

// Terms by slot, for moe_combine to add.
struct FinishDown {
  bf16* out;             // [R, N]
  const float* weights;  // [R] by slot
  const int* scatter;    // [R] slot of each routed row

  // Before the product, whose time hides these reads.
  __device__ void enter_tile(const Tile& tile, Term* terms) const {
    sync_threads(1 + threadIdx.x / GROUP_THREADS);
    for (int row = threadIdx.x % GROUP_THREADS; row < tile.num_rows; row += GROUP_THREADS) {
      const int slot = scatter[tile.first_row + row];
      terms[row] = Term{slot, weights[slot]};
    }
    sync_threads(1 + threadIdx.x / GROUP_THREADS);
  }

  template <int N>
  __device__ __forceinline__ void run(const Problem& p, const Tile& tile, int row_tile, int lane,
                                      const Term* terms, const float (&d)[N]) const {
    const int g = lane / 4, t = lane % 4;
    const bf16* bias =
        p.bias + (static_cast<long>(tile.expert) * p.row_tiles + row_tile) * TILE_ROWS + g;
    const float bias_a = __bfloat162float(bias[0]), bias_b = __bfloat162float(bias[8]);
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      const int row = i / 2 * 8 + 2 * t + i % 2;
      if (row >= tile.num_rows) continue;
      const Term term = terms[row];
      bf16* at = out + (static_cast<long>(term.slot) * p.row_tiles + row_tile) * TILE_ROWS + g;
      at[0] = __float2bfloat16_rn((d[i / 2 * 4 + i % 2] + bias_a) * term.weight);
      at[8] = __float2bfloat16_rn((d[i / 2 * 4 + i % 2 + 2] + bias_b) * term.weight);
    }
  }
};

// The bare product.
template <class T>
struct FinishPlain {
  T* out;  // [R, N]

  __device__ void enter_tile(const Tile&, Term*) const {}

  template <int N>
  __device__ __forceinline__ void run(const Problem& p, const Tile& tile, int row_tile, int lane,
                                      const Term* terms, const float (&d)[N]) const {
    const int g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
      const int row = i / 2 * 8 + 2 * t + i % 2;
      if (row >= tile.num_rows) continue;
      T* at = out + (static_cast<long>(tile.first_row + row) * p.row_tiles + row_tile) * TILE_ROWS + g;
      at[0] = static_cast<T>(d[i / 2 * 4 + i % 2]);
      at[8] = static_cast<T>(d[i / 2 * 4 + i % 2 + 2]);
    }
  }
};

}  // namespace
}  // namespace haast

#define HAAST_PROBLEM                                                                          \
  const __grid_constant__ haast::TensorMap x, const __grid_constant__ haast::TensorMap weight, \
      const haast::bf16 *bias, const int *offs, int num_experts, int k, int row_tiles, int max_rows
#define HAAST_PROBLEM_VALUES \
  haast::Problem{&x, &weight, bias, offs, num_experts, k, row_tiles, max_rows}
#define HAAST_KERNEL extern "C" __global__ void __launch_bounds__(haast::THREADS, 1)

#define HAAST_KERNELS(M, ROWS, SUFFIX)                                                           \
  HAAST_KERNEL moe_up_wgmma_##SUFFIX(HAAST_PROBLEM, haast::bf16* out, float limit) {             \
    haast::run<haast::Shape<M, ROWS>>(HAAST_PROBLEM_VALUES, haast::FinishUp{out, limit});        \
  }                                                                                              \
  HAAST_KERNEL moe_down_wgmma_##SUFFIX(HAAST_PROBLEM, haast::bf16* out,                         \
                                       const float* expert_weights, const int* scatter) {        \
    haast::run<haast::Shape<M, ROWS>>(HAAST_PROBLEM_VALUES,                                      \
      haast::FinishDown{out, expert_weights, scatter});                                          \
  }                                                                                              \
  HAAST_KERNEL grouped_wgmma_##SUFFIX##_bf16(HAAST_PROBLEM, haast::bf16* out) {                  \
    haast::run<haast::Shape<M, ROWS>>(HAAST_PROBLEM_VALUES,                                      \
      haast::FinishPlain<haast::bf16>{out});                                                     \
  }                                                                                              \
  HAAST_KERNEL grouped_wgmma_##SUFFIX##_fp32(HAAST_PROBLEM, float* out) {                        \
    haast::run<haast::Shape<M, ROWS>>(HAAST_PROBLEM_VALUES, haast::FinishPlain<float>{out});     \
  }

HAAST_KERNELS(1, 192, n192)
HAAST_KERNELS(2, 96, n96)
HAAST_KERNELS(2, 48, n48)
