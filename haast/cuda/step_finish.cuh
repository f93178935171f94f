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

  // Of so many sums, once they are there, each lane's of number lane % ROWS.
  template <int ROWS>
  __device__ __forceinline__ float total() const {
    constexpr int PARTS = 32 / ROWS, WARPS = STEP_WARPS / PARTS;
    const Sums& sums = m.sums[slot % SLOTS];
    await_sums(slot);
    float v = 0;
#pragma unroll
    for (int w = 0; w < WARPS; ++w) v += sums.of_warp[lane / ROWS * WARPS + w][lane % ROWS];
#pragma unroll
    for (int step = ROWS; step < 32; step *= 2) v += __shfl_xor_sync(~0u, v, step);
    __syncwarp();
    if (lane == 0) arrive(smem_u32(&m.empty[slot % SLOTS]));
    return v;
  }

  // put(row, sum) by the lane of each row; a sum with its bias, if there are any.
  template <class Put>
  __device__ __forceinline__ void dense(const Rows& r, const Content& c, const float* biases,
                                        Put put) const {
    const int row = c.index + lane;
    const bool is_own = lane < r.at_once && row < r.rows.end;
    const float bias = biases && is_own ? biases[row - r.rows.begin] : 0;
    const float halves = total<2 * DENSE_ROWS>();
    const float sum = halves + __shfl_xor_sync(~0u, halves, DENSE_ROWS);
    if (is_own) put(row, sum + bias);
  }

  __device__ __forceinline__ void qkv(const Content& c, uint32_t tag) const {
    dense(m.qkv, c, m.biases[c.layer % 2][0],
          [&](int row, float sum) { store_word(m.net.qkv + row, tagged(sum, tag)); });
  }

  __device__ __forceinline__ void out(const Content& c, uint32_t tag) const {
    dense(m.out, c, m.biases[c.layer % 2][1], [&](int row, float sum) {
      if constexpr (RANKS > 1) {
        send(Inbox<RANKS>::middle(tag, m.rank, hidden()) + row, tagged(sum, tag));
        return;
      }
      const float own = m.own_x[row - m.out.rows.begin];
      store_word(m.net.middle + row, tagged(own + rounded(sum), tag));
    });
  }

  __device__ __forceinline__ void up(const Content& c, uint32_t tag) const {
    uint32_t* to = m.net.gated + c.choice * m.net.intermediate + c.index * 8;
    const float gate = total<16>(), up = __shfl_down_sync(~0u, gate, 8);
    if (lane < 8)
      store_word(to + lane, tagged(swiglu(gate, up, static_cast<float>(m.net.limit)), tag));
  }

  __device__ __forceinline__ void down(const Content& c, uint32_t tag) const {
    wait(smem_u32(&m.weighed), c.layer & 1);
    const float weight = m.weights[c.layer % 2][c.choice];
    const int row = c.index * TILE_ROWS + lane;
    const float sum = total<16>() * weight;
    if (lane >= TILE_ROWS) return;
    if constexpr (RANKS > 1)
      send(Inbox<RANKS>::terms(m.rank, c.choice, hidden()) + row, tagged(sum, tag));
    else
      store_word(m.net.terms + c.choice * hidden() + row, tagged(sum, tag));
  }

  __device__ __forceinline__ void head(const Content& c) const {
    dense(m.head, c, nullptr, [&](int row, float sum) { s.logits[row] = __float2bfloat16_rn(sum); });
  }

  // Every second slot, whatever it holds; what that is, it knows as soon as it is on its way.
  __device__ void run() {
    for (;; slot += FINISHERS) {
      delay_some();
      while (load_acquire_shared(&m.sent) <= slot) continue;
      __syncwarp();
      const Content c = m.contents[slot % SLOTS];
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

// The experts of the token, by their scores; then their weights, which nobody needs as soon.
template <int RANKS>
__device__ void choose_experts(Memory& m, int layer, int lane, uint32_t tag) {
  constexpr int PARTS = MAX_STEP_EXPERTS / 32;
  uint32_t keys[PARTS];
  const int experts = static_cast<int>(m.net.num_experts);
#pragma unroll
  for (int i = 0; i < PARTS; ++i) keys[i] = unread(i * 32 + lane < experts, tag);
  poll_step<RANKS>([&] {
    uint32_t bad = 0;
#pragma unroll
    for (int i = 0; i < PARTS; ++i) {
      reload(keys[i], m.net.scores + i * 32 + lane, wrong(keys[i], tag));
      bad |= wrong(keys[i], tag);
    }
    return bad;
  });
#pragma unroll
  for (int i = 0; i < PARTS; ++i) {
    const int e = i * 32 + lane;
    keys[i] = e < experts ? key_of_bf16(value_of_word(keys[i]), e) : 0;
  }
  const uint32_t key = choose_of_bf16_keys<PARTS, CHOICES>(keys, lane);
  if (lane < CHOICES) m.experts[layer % 2][lane] = expert_of_key(key);
  __syncwarp();
  if (lane == 0) arrive(smem_u32(&m.routed));
  const float weight = choice_weight(key_without_expert(key), CHOICES, lane);
  if (lane < CHOICES) m.weights[layer % 2][lane] = weight;
  __syncwarp();
  if (lane == 0) arrive(smem_u32(&m.weighed));
}

// Routes a layer, then has fetched what the next one will wait for, before the experts' weights come.
template <int RANKS>
__device__ void route(Memory& m, const Layer* all, int lane, uint32_t first_tag) {
  const Fetch fetch{m, lane};
  const int layers = static_cast<int>(m.net.num_layers);
#pragma unroll 1
  for (int l = 0; l < layers; ++l) {
    choose_experts<RANKS>(m, l, lane, first_tag + l + 1);
    if (l + 1 == layers) return;
    const Layer& next = m.layer(l + 1);
    fetch.ahead(lane < Fetch::WEIGHT_LANES ? fetch.weights(next) : fetch.keys(next));
    fetch.biases(all, l + 1);
  }
}

}  // namespace haast
