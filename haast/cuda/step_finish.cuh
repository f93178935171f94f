// The warps of a decode step that make results of sums: two finish what lies in slots, one routes.
#pragma once
#include "choose.cuh"
#include "rope.cuh"
#include "step.cuh"
#include "step_stream.cuh"
#include "swiglu.cuh"

namespace haast {

template <int RANKS>
struct Finisher {
  Memory& m;
  const Step& s;
  int lane;
  uint32_t first_tag, slot;

  __device__ int hidden() const { return static_cast<int>(m.net.hidden); }

  // To everyone's inbox, this rank's too.
  __device__ __forceinline__ void send(int at, uint32_t word) const {
#pragma unroll
    for (int r = 0; r < RANKS; ++r) send_word(m.inboxes[r] + at, word);
  }

  // Of so many sums, each lane's of number lane % ROWS.
  template <int ROWS>
  __device__ __forceinline__ float total() const {
    constexpr int PARTS = 32 / ROWS, WARPS = STEP_WARPS / PARTS;
    const Sums& sums = m.sums[slot % SUM_SLOTS];
    float v = 0;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) v += sums.of_warp[lane / ROWS * WARPS + w][lane % ROWS];
#pragma unroll
    for (int step = ROWS; step < 32; step *= 2) v += __shfl_xor_sync(~0u, v, step);
    __syncwarp();
    if (lane == 0) arrive(smem_u32(&m.sum_empty[slot % SUM_SLOTS]));
    return v;
  }

  // put(row, sum) by the lane of each row.
  template <class Put>
  __device__ __forceinline__ void dense(const Rows& r, const Content& c, Put put) const {
    const float halves = total<2 * DENSE_ROWS>();
    const float sum = halves + __shfl_xor_sync(~0u, halves, DENSE_ROWS);
    if (lane < r.at_once && c.index + lane < r.rows.end) put(c.index + lane, sum);
  }

  __device__ __forceinline__ void qkv(const Content& c, uint32_t tag) const {
    dense(m.qkv, c, [&](int row, float sum) {
      const float bias = m.biases[c.layer % 2][0][row - m.qkv.rows.begin];
      store_word(m.net.qkv + row, tagged(sum + bias, tag));
    });
  }

  __device__ __forceinline__ void out(const Content& c, uint32_t tag) const {
    dense(m.out, c, [&](int row, float sum) {
      const int at = row - m.out.rows.begin;
      if constexpr (RANKS > 1) {
        const float part = sum + m.biases[c.layer % 2][1][at];
        send(Inbox<RANKS>::middle(tag, m.rank, hidden()) + row, tagged(part, tag));
        return;
      }
      const float delta = rounded(sum + m.biases[c.layer % 2][1][at]);
      store_word(m.net.middle + row, tagged(m.own_x[at] + delta, tag));
    });
  }

  __device__ __forceinline__ void up(const Content& c, uint32_t tag) const {
    const Tiles& t = m.up;
    const float gate = total<16>(), up = __shfl_down_sync(~0u, gate, 8);
    uint32_t* to = m.net.gated + c.index / t.tiles * m.net.intermediate + c.index % t.tiles * 8;
    if (lane < 8)
      store_word(to + lane, tagged(swiglu(gate, up, static_cast<float>(m.net.limit)), tag));
  }

  __device__ __forceinline__ void down(const Content& c, uint32_t tag) const {
    const Tiles& t = m.down;
    const int choice = c.index / t.tiles;
    const float sum = total<16>() * m.weights[c.layer % 2][choice];
    if constexpr (RANKS > 1) {
      const int to = Inbox<RANKS>::terms(m.rank, choice, hidden()) + c.index % t.tiles * TILE_ROWS;
      if (lane < TILE_ROWS) send(to + lane, tagged(sum, tag));
      return;
    }
    uint32_t* to = m.net.terms + choice * m.net.hidden + c.index % t.tiles * TILE_ROWS;
    if (lane < TILE_ROWS) store_word(to + lane, tagged(sum, tag));
  }

  __device__ __forceinline__ void head(const Content& c) const {
    dense(m.head, c, [&](int row, float sum) { s.logits[row] = __float2bfloat16_rn(sum); });
  }

  // Every second slot, whatever it holds.
  __device__ void run() {
    for (;; slot += FINISHERS) {
      wait(smem_u32(&m.sum_full[slot % SUM_SLOTS]), slot / SUM_SLOTS & 1);
      const Content c = m.contents[slot % CONTENTS];
      const uint32_t tag = first_tag + c.layer + 1;
      if (c.part == Part::QKV) qkv(c, tag);
      if (c.part == Part::OUT) out(c, tag);
      if (c.part == Part::UP) up(c, tag);
      if (c.part == Part::DOWN) down(c, tag);
      if (c.part == Part::HEAD) head(c);
      if (c.part == Part::NONE) return;
    }
  }
};

// ---- one warp routes

// The experts of the token, by their scores.
template <int RANKS>
__device__ void choose_experts(Memory& m, int layer, int lane, uint32_t tag) {
  uint32_t keys[MAX_STEP_EXPERTS / 32];
  const int experts = static_cast<int>(m.net.num_experts);
  poll_step<RANKS>([&] {
    uint32_t bad = 0;
#pragma unroll
    for (int i = 0; i < MAX_STEP_EXPERTS / 32; ++i) {
      const int e = i * 32 + lane;
      keys[i] = e < experts ? load_word(m.net.scores + e) : tag;
      bad |= wrong(keys[i], tag);
    }
    return bad;
  });
#pragma unroll
  for (int i = 0; i < MAX_STEP_EXPERTS / 32; ++i)
    keys[i] = i * 32 + lane < experts ? key_of(value_of_word(keys[i])) : 0;
  int expert = 0;
  uint32_t key = 0;
  if (experts <= 32) {
    uint32_t few[1] = {keys[0]};
    choose_of_keys(few, CHOICES, lane, expert, key);
  } else {
    choose_of_keys(keys, CHOICES, lane, expert, key);
  }
  const float weight = choice_weight(key, CHOICES, lane);
  if (lane < CHOICES) {
    m.experts[layer % 2][lane] = expert;
    m.weights[layer % 2][lane] = weight;
  }
  __syncwarp();
  if (lane == 0) arrive(smem_u32(&m.routed));
}

// Routes a layer, then has fetched what the next one will wait for, before the experts' weights come.
template <int RANKS>
__device__ void route(Memory& m, const Layer* all, int lane, uint32_t first_tag) {
  const Fetch fetch{m, lane};
  const int layers = static_cast<int>(m.net.num_layers);
  for (int l = 0; l < layers; ++l) {
    choose_experts<RANKS>(m, l, lane, first_tag + l + 1);
    if (l + 1 == layers) return;
    fetch.weights(m.layer(l + 1));
    fetch.keys(m.layer(l + 1));
    fetch.biases(all, l + 1);
  }
}

}  // namespace haast
