// What one persistent kernel needs to compute a whole decode step of one request.
#pragma once
#include "attention.cuh"
#include "lanes.cuh"
#include "mxfp4.cuh"
#include "tagged.cuh"

namespace haast {

constexpr int STEP_WARPS = 12;  // that multiply; four more finish, stream and fetch
constexpr int STEP_THREADS = 32 * (STEP_WARPS + 4);
constexpr int MATH_REGISTERS = 152;  // of 128 that all begin with
constexpr int OTHER_REGISTERS = 56;
constexpr int FINISHERS = 2;

constexpr int SLOTS = 8;
constexpr int SLOT_BYTES = 24576;
constexpr int DENSE_ROWS = 4;  // in a slot, at most
constexpr int ROW_GAP = 64;    // between them, so that neighbours are in other banks
constexpr int BIAS_BYTES = TILE_ROWS * 2;
constexpr int STRIP = 16;  // keys of a warp at a time
constexpr int MOST_SPLITS = 16;

constexpr int CHOICES = 4;
constexpr int MAX_LAYERS = 64;
constexpr int LAYERS_AT_HAND = 4;
constexpr int MAX_OWN_ROWS = 40;
constexpr int MAX_STEP_EXPERTS = 128;
constexpr int MAX_TILE_BLOCKS = 45;   // of 64: H and I up to 2880
constexpr int MAX_DENSE_BLOCKS = 72;  // Hq D up to 4608
constexpr int MAX_SHARE_TILE_BLOCKS = 24;   // of one of several ranks: I up to 1536
constexpr int MAX_SHARE_DENSE_BLOCKS = 48;  // Hq D up to 3072
constexpr int MOST_RANKS = 8;
constexpr int MOST_CTAS = 160;  // more than any Hopper GPU has SMs
constexpr int STAMPS = 8;

// Written once by the host (haast/ops/decode_step); letters as in ARCHITECTURE.md.
struct Layer {
  const bf16 *attn_norm, *qkv_weight, *qkv_bias, *sinks, *out_weight, *out_bias, *mlp_norm,
      *router_weight, *router_bias;
  const uint8_t* up_weight;  // swizzled, paired
  const bf16* up_bias;
  const uint8_t* down_weight;  // swizzled
  const bf16* down_bias;
  bf16 *k_cache, *v_cache;  // [num_pages, Hkv, 128, 64]
  int64_t window;           // 0: none
};

struct Network {
  const bf16 *embedding, *norm, *head;  // [V, H], [H], [V, H]
  const float *cos, *sin;               // [positions, 32]
  // Tagged words: [(Hq + 2 Hkv) 64], [Hq 64], [H], [E], [A, I], [A, H].
  uint32_t *qkv, *attended, *middle, *scores, *gated, *terms;
  uint2* parts;     // {fp32, tag} [splits, Hq, 64] of attention
  uint2* part_lse;  // [splits, Hq]
  uint32_t* state;  // {tag before the first layer, CTAs that have ended}
  int64_t num_layers, hidden, num_heads, num_kv_heads, intermediate, num_experts, vocab;
  double eps, limit;
};

// Of this step: one request, one token; where they are on the device.
struct Step {
  const Layer* layers;
  const int *input_id, *input_row;  // the row of `samples` if >= 0
  const int64_t* samples;
  const int *position, *kv_len, *slot, *window_slot, *table_row;
  const int* page_tables;  // [2, max_requests, max_pages]
  int max_requests, max_pages;
  bf16 *logits, *hidden;  // [V], or [H]: normalised, for another head
  uint64_t* stamps;  // [CTAs, MAX_LAYERS + 1, STAMPS] ns, or null
};

struct Run {
  int begin, end;
};

// The share of this CTA of so many equal things.
__device__ __forceinline__ Run share_of(int things) {
  const int64_t cta = blockIdx.x, ctas = gridDim.x;
  return {static_cast<int>(things * cta / ctas), static_cast<int>(things * (cta + 1) / ctas)};
}

// A dense weight's rows of this CTA, and how they lie in slots.
struct Rows {
  Run rows;
  int at_once, row_bytes, slots, under_way;

  __device__ void set(int num_rows, int k) {
    rows = share_of(num_rows);
    row_bytes = 2 * k;
    at_once = min(DENSE_ROWS, SLOT_BYTES / (row_bytes + ROW_GAP));
    slots = divide_up(rows.end - rows.begin, at_once);
  }
};

// Tiles of 16 rows of the chosen experts, one a slot: unit is tile unit % tiles of choice unit / tiles.
struct Tiles {
  Run units;  // of this CTA, where it has a run of them
  int dealt;  // of this CTA, where they are dealt out one by one
  int tiles, blocks, first_choice, last_choice, under_way;

  __device__ void set(int n, int k) {
    tiles = n / TILE_ROWS;
    blocks = k / BLOCK_K;
    const int all = CHOICES * tiles, ctas = gridDim.x, cta = blockIdx.x;
    units = share_of(all);
    dealt = all > cta ? divide_up(all - cta, ctas) : 0;
    first_choice = units.begin / tiles;
    last_choice = units.end > units.begin ? (units.end - 1) / tiles : first_choice - 1;
  }
};

static_assert(MAX_TILE_BLOCKS * BLOCK_BYTES + BIAS_BYTES <= SLOT_BYTES);

// The strips of keys that one kind of layer sees, and how splits, then their warps, share them.
struct Spans {
  const int* table;
  int kv_len, first_visible, first_strip, strips, splits;
  Run own;  // strips of the CTA's first split

  __device__ void set(const int* pages, int kv_length, int window, int split) {
    table = pages;
    kv_len = kv_length;
    first_visible = window ? max(0, kv_len - window) : 0;
    first_strip = first_visible / STRIP;
    strips = divide_up(kv_len, STRIP) - first_strip;
    splits = min(MOST_SPLITS, divide_up(strips, STEP_WARPS));
    own = split < splits ? run_of(split) : Run{0, 0};
  }
  // Those of a split, counted from first_strip.
  __device__ Run run_of(int split) const {
    return {strips * split / splits, strips * (split + 1) / splits};
  }
  __device__ int page_of(int strip) const { return table[(first_strip + strip) * STRIP / PAGE_SIZE]; }
};

struct Merge {
  float sums[STEP_WARPS][GROUP_HEADS][HEAD_DIM + 2];  // + 2: other banks
  float tops[STEP_WARPS][GROUP_HEADS], totals[STEP_WARPS][GROUP_HEADS];
};

// What a slot of the ring holds, and whose result it is a part of.
enum class Part : int { QKV, OUT, UP, DOWN, HEAD, NONE };

struct Content {
  Part part;
  int layer, index;  // its first row, or its tile
  int choice;
};

struct Sums {
  float of_warp[STEP_WARPS][TILE_ROWS];
};

struct alignas(128) Memory {
  uint8_t ring[SLOTS][SLOT_BYTES];
  Merge merge;
  Sums sums[SLOTS];
  float warp_sums[3][STEP_WARPS];  // of the two norms and of the router
  float own_x[MAX_OWN_ROWS];       // the sums that this CTA's rows of o are added to
  float biases[2][2][MAX_OWN_ROWS];  // by the parity of the layer: of this CTA's rows of qkv and o
  Content contents[SLOTS];
  int experts[2][CHOICES];         // by the parity of the layer
  float weights[2][CHOICES];
  uint32_t sent;  // slots that are on their way, or were
  uint64_t full[SLOTS], empty[SLOTS], routed, weighed, fetched;
  // What the roles need again and again; registers are for what they multiply.
  Rows qkv, out, head;
  Tiles up, down;
  Spans all_keys, window_keys;
  int first_split, first_head;  // of attention
  int slot, window_slot;
  alignas(16) float angles[2][HEAD_DIM / 2];  // cos and sin of the position
  int pages[2][STEP_WARPS];  // of the warps' strips in the CTA's first split: all keys, window
  Network net;
  Layer layers[LAYERS_AT_HAND];  // this one, those around it
  uint32_t* inboxes[MOST_RANKS];  // if there are several: everyone's
  int rank;                       // this one's number

  __device__ const Layer& layer(int index) const { return layers[index % LAYERS_AT_HAND]; }
};
static_assert(sizeof(Memory) <= 227 * 1024);

// Several ranks compute a network together, each its heads and its part of the intermediate axis: what
// they have of o's and of down's results are parts of sums. A rank sends its parts to all, to itself
// too, and all add up the same words in the same order: x is the same bits on all ranks, and so is
// what follows from it. This is where, in words: [2, RANKS, H] of o by the parity of the tag, then
// [RANKS, A, H] of down.
//
// Why none is overwritten that a rank has yet to read, however far ahead another one is. A CTA sends
// results of a slot after all its warps have multiplied it, and together they have waited for every
// part of all that came before, of all ranks. Every CTA of every rank sends parts of o (H >= CTAs),
// and has then read down's and o's of the layer before.
// - Who sends down's of this layer has had o's of this layer from all CTAs: they have read down's of
//   the layer before, whose place it takes.
// - Who sends o's of this layer has had o's of the layer before from all CTAs: they have read o's of
//   two layers before, whose place it takes. One place would not do: down's of the layer before come
//   from CTAs with tiles of the experts, and say nothing of one that has none and still reads o's.
// The first layer of a step is no other: tags count on, all ranks run the same steps, and a rank's step
// ends before its next one begins.
//
// Before the first layer rank 0 sends the token, in two halves: nobody has parts of o of a step before it
// has read that step's. After the head a CTA of another rank tells rank 0 that its logits are there:
// rank 0 waits for all of them before its step ends, and only then begins another, without which no rank
// comes to its end again. The word has the tag of the first layer, as that of before it may be 0.
template <int RANKS>
struct Inbox {
  static __device__ __forceinline__ int middle(uint32_t tag, int rank, int hidden) {
    return (static_cast<int>(tag & 1) * RANKS + rank) * hidden;
  }
  static __device__ __forceinline__ int terms(int rank, int choice, int hidden) {
    return (2 * RANKS + rank * CHOICES + choice) * hidden;
  }
  static __device__ __forceinline__ int token(int hidden) { return terms(RANKS, 0, hidden); }
  static __device__ __forceinline__ int done(int rank, int cta, int hidden) {
    return token(hidden) + 2 + rank * MOST_CTAS + cta;
  }
};

// As poll. Who waits for a rank which hangs is to be told of it (haast/parallel/followers.py) before
// the kernel gives up: it polls for a minute or more.
template <int RANKS, class Read>
__device__ __forceinline__ void poll_step(Read read) {
  poll<RANKS == 1 ? MOST_POLLS : 1u << 28>(read);
}

// Of the warps that multiply.
__device__ __forceinline__ void sync_math() {
  asm volatile("bar.sync 1, %0;" ::"n"(32 * STEP_WARPS) : "memory");
}

// Of a slot's sums: every warp that multiplies says that its own are there, the finisher waits for all.
// Barriers 2 to 9 of the CTA: so many arrivals at one in shared memory take longer.
__device__ __forceinline__ void say_summed(uint32_t slot) {
  asm volatile("bar.arrive %0, %1;" ::"r"(2 + slot % SLOTS), "n"(32 * (STEP_WARPS + 1)) : "memory");
}
__device__ __forceinline__ void await_sums(uint32_t slot) {
  delay_some();
  asm volatile("bar.sync %0, %1;" ::"r"(2 + slot % SLOTS), "n"(32 * (STEP_WARPS + 1)) : "memory");
}

// When this CTA has got to the end of a phase of a layer.
__device__ __forceinline__ void stamp(const Step& s, int layer, int phase) {
  if (!s.stamps || threadIdx.x) return;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (MAX_LAYERS + 1) + layer;
  s.stamps[row * STAMPS + phase] = nanoseconds();
}

}  // namespace haast
