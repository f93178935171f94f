// The twelve warps of a decode step that multiply: each has its blocks of 64 of the residual, and of
// what is made of it, in registers.
#pragma once
#include "step_attention.cuh"
#include "step_products.cuh"

namespace haast {

template <int RANKS>
struct Math {
  Memory& m;
  const Step& s;
  int warp, lane;
  uint32_t tag;             // of the layer
  uint32_t taken = 0;       // slots, each with its sums
  Vector<H_BLOCKS> x{};     // the residual
  Vector<H_BLOCKS> norm{};  // weights of the next one

  // What follows from them is worked out anew: kept in registers from layer to layer, it would push
  // others out to local memory, for which shared memory leaves no cache.
  __device__ __forceinline__ void forget() { asm volatile("" : "+r"(warp), "+r"(lane)); }

  __device__ int blocks_of_h() const { return static_cast<int>(m.net.hidden) / BLOCK_K; }
  __device__ __forceinline__ int element(int i) const {
    return (warp + i * STEP_WARPS) * BLOCK_K + 2 * lane;
  }
  static constexpr int STRIDE = STEP_WARPS * BLOCK_K;  // between a warp's blocks
  __device__ __forceinline__ uint32_t pair_at(const bf16* row, int i) const {
    return load_early(row + element(0) + i * STRIDE);
  }

  // ---- slots

  __device__ __forceinline__ uint32_t await(uint32_t slot) const {
    wait(smem_u32(&m.full[slot % SLOTS]), slot / SLOTS & 1);
    return smem_u32(m.ring[slot % SLOTS]);
  }

  // So many slots in turn; the next one comes to registers while one is multiplied. After the last one
  // it comes once more, for nothing: a load under a condition would take other registers' place.
  template <class Slots, class Operand>
  __device__ __forceinline__ void each(const Slots slots, int count, const Operand& x) {
    forget();
    if (count == 0) return;
    const uint32_t first = taken, last = first + count - 1;
    typename Slots::Slot slot;
    slots.load(slot, await(first), 0, warp, lane);
#pragma unroll 1
    for (;;) {
      const bool is_last = taken == last;
      const uint32_t after = taken + !is_last;
      const uint32_t at = await(after);
      typename Slots::Slot next;
      slots.load(next, at, static_cast<int>(after - first), warp, lane);
      const typename Slots::Slot::Product product(slot, x);
      put(product);
      if (is_last) return;
      slot = next;
    }
  }

  // The slot has been read; its finisher gives it back when it has the sums.
  template <class Product>
  __device__ __forceinline__ void put(const Product& product) {
    product.put(m.sums[taken % SLOTS].of_warp[warp], lane);
    say_summed(taken++);
  }

  template <int BLOCKS>
  __device__ __forceinline__ void dense(const Vector<BLOCKS>& v, const Rows& r) {
    each(DenseSlots<BLOCKS>{r}, r.slots, DenseOperand<BLOCKS>(v, lane));
  }

  template <bool PAIRED, int BLOCKS>
  __device__ __forceinline__ void tiles(const TileOperand<BLOCKS>& x, const Tiles& t, int count) {
    each(TileSlots<BLOCKS, PAIRED>{t.blocks}, count, x);
  }

  // ---- vectors

  // The last block may be a half.
  template <int BLOCKS>
  __device__ __forceinline__ void take(const uint32_t* words, int blocks, Vector<BLOCKS>& v,
                                       bool is_cut = false) {
    forget();
    const uint32_t* from = words + element(0);
    uint2 w[BLOCKS];
#pragma unroll
    for (int i = 0; i < BLOCKS; ++i) {
      const bool is_there = RANKS == 1 || !is_cut || element(i) < static_cast<int>(m.net.intermediate);
      w[i] = unread2(warp + i * STEP_WARPS < blocks && is_there, tag);
    }
    poll_step<RANKS>([&] {
      uint32_t bad = 0;
#pragma unroll
      for (int i = 0; i < BLOCKS; ++i) reload(w[i], from + i * STRIDE, wrong(w[i], tag));
#pragma unroll
      for (int i = 0; i < BLOCKS; ++i) bad |= wrong(w[i], tag);
      return bad;
    });
#pragma unroll
    for (int i = 0; i < BLOCKS; ++i) v.pair[i] = pair_of(w[i].x, w[i].y);
  }

  // Of the step's token: what was sampled is known to rank 0 only, which tells the others; in every
  // step, so that none finds a token of long ago whose tag has come again.
  __device__ __forceinline__ int token_id() const {
    const int row = *s.input_row;
    const int at = RANKS == 1 ? 0 : Inbox<RANKS>::token(static_cast<int>(m.net.hidden));
    if (RANKS == 1 || m.rank == 0 || row < 0) {
      const int id = row >= 0 ? static_cast<int>(s.samples[row]) : *s.input_id;
      if (RANKS > 1 && m.rank == 0 && blockIdx.x == 0 && threadIdx.x == 0)
        for (int r = 1; r < RANKS; ++r) {
          send_word(m.inboxes[r] + at, tagged_bits(id & 0xFFFF, tag));
          send_word(m.inboxes[r] + at + 1, tagged_bits(id >> 16, tag));
        }
      return id;
    }
    uint2 halves = unread2(true, tag);
    poll_step<RANKS>([&] {
      reload<true>(halves, m.inboxes[m.rank] + at, wrong(halves, tag));
      return wrong(halves, tag);
    });
    return static_cast<int>(halves.x >> 16 | halves.y >> 16 << 16);
  }

  __device__ __forceinline__ void embed() {
    const int64_t id = token_id();
#pragma unroll
    for (int i = 0; i < H_BLOCKS; ++i)
      x.pair[i] = warp + i * STEP_WARPS < blocks_of_h()
                      ? pair_at(m.net.embedding + id * m.net.hidden, i)
                      : 0;
  }

  // Sums, in this order, of vectors that lie one after the other, from words() on: put(i, low, high).
  template <int PARTS, class Words, class Put>
  __device__ __forceinline__ void sum_up(Words words, Put put) {
    forget();
    const int blocks = blocks_of_h(), h = static_cast<int>(m.net.hidden);
    const uint32_t* from[PARTS];
    from[0] = words() + element(0);
#pragma unroll
    for (int p = 1; p < PARTS; ++p) from[p] = from[p - 1] + h;
    uint2 w[H_BLOCKS][PARTS];
#pragma unroll
    for (int i = 0; i < H_BLOCKS; ++i)
#pragma unroll
      for (int p = 0; p < PARTS; ++p) w[i][p] = unread2(warp + i * STEP_WARPS < blocks, tag);
    poll_step<RANKS>([&] {
      uint32_t bad = 0;
#pragma unroll
      for (int p = 0; p < PARTS; ++p)
#pragma unroll
        for (int i = 0; i < H_BLOCKS; ++i)
          reload<RANKS != 1>(w[i][p], from[p] + i * STRIDE, wrong(w[i][p], tag));
#pragma unroll
      for (int i = 0; i < H_BLOCKS; ++i)
#pragma unroll
        for (int p = 0; p < PARTS; ++p) bad |= wrong(w[i][p], tag);
      return bad;
    });
#pragma unroll
    for (int i = 0; i < H_BLOCKS; ++i) {
      float low = 0, high = 0;
#pragma unroll
      for (int p = 0; p < PARTS; ++p) {
        low += value_of_word(w[i][p].x);
        high += value_of_word(w[i][p].y);
      }
      put(i, low, high);
    }
  }

  // To the residual.
  __device__ __forceinline__ void add(int i, float low, float high) {
    const uint32_t delta = pack_bf16(low, high);
    x.pair[i] = pack_bf16(low_of(x.pair[i]) + low_of(delta), high_of(x.pair[i]) + high_of(delta));
  }

  // TIMES sums of PARTS vectors, the i-th from at(i) on in this rank's inbox, to the residual.
  template <int PARTS, int TIMES, class At>
  __device__ __forceinline__ void add_sent(At at) {
    float2 sum[H_BLOCKS] = {};
#pragma unroll 1
    for (int time = 0; time < TIMES; ++time)
      sum_up<PARTS>([&] { return m.inboxes[m.rank] + at(time); },
                    [&](int i, float low, float high) {
                      sum[i].x += low;
                      sum[i].y += high;
                    });
#pragma unroll
    for (int i = 0; i < H_BLOCKS; ++i) add(i, sum[i].x, sum[i].y);
  }

  // The experts' terms, added choice by choice; then rank by rank, where of two the own one, which
  // comes first, is first, as it is all the same.
  __device__ __forceinline__ void add_terms() {
    if constexpr (RANKS == 1)
      sum_up<CHOICES>([&] { return m.net.terms; },
                      [&](int i, float low, float high) { add(i, low, high); });
    else
      add_sent<CHOICES, RANKS>([&](int time) {
        const int rank = RANKS == 2 ? time ^ m.rank : time;
        return Inbox<RANKS>::terms(rank, 0, static_cast<int>(m.net.hidden));
      });
  }

  // x with o's results; of more than four ranks as many have their words read at once.
  __device__ __forceinline__ void add_attention() {
    constexpr int AT_ONCE = RANKS < 4 ? RANKS : 4;
    if constexpr (RANKS == 1)
      take(m.net.middle, blocks_of_h(), x);
    else
      add_sent<AT_ONCE, RANKS / AT_ONCE>([&](int time) {
        return Inbox<RANKS>::middle(tag, time * AT_ONCE, static_cast<int>(m.net.hidden));
      });
  }

  // What o's results of this CTA are added to.
  __device__ __forceinline__ void keep_own(const Run& rows) {
    forget();
#pragma unroll
    for (int i = 0; i < H_BLOCKS; ++i) {
      const int at = element(i) - rows.begin;
      if (at >= 0 && at < rows.end - rows.begin) m.own_x[at] = low_of(x.pair[i]);
      if (at + 1 >= 0 && at + 1 < rows.end - rows.begin) m.own_x[at + 1] = high_of(x.pair[i]);
    }
  }

  __device__ __forceinline__ void load_weight(const bf16* weight, Vector<H_BLOCKS>& w) {
    forget();
#pragma unroll
    for (int i = 0; i < H_BLOCKS; ++i)
      w.pair[i] = warp + i * STEP_WARPS < blocks_of_h() ? pair_at(weight, i) : 0;
  }

  __device__ __forceinline__ void put(const Vector<H_BLOCKS>& v, bf16* row) const {
#pragma unroll
    for (int i = 0; i < H_BLOCKS; ++i)
      if (warp + i * STEP_WARPS < blocks_of_h())
        *reinterpret_cast<uint32_t*>(row + element(i)) = v.pair[i];
  }

  __device__ __forceinline__ float sum_of_math(float v, int which) {
    v = sum_of_lanes(v);
    if (lane == 0) m.warp_sums[which][warp] = v;
    sync_math();
    return sum_of_lanes(lane < STEP_WARPS ? m.warp_sums[which][lane] : 0.0f);
  }

  __device__ __forceinline__ Vector<H_BLOCKS> normed(int which) {
    float squares = 0;
#pragma unroll
    for (int i = 0; i < H_BLOCKS; ++i)
      squares += low_of(x.pair[i]) * low_of(x.pair[i]) + high_of(x.pair[i]) * high_of(x.pair[i]);
    const float mean = sum_of_math(squares, which) / static_cast<float>(m.net.hidden);
    const float scale = rsqrtf(mean + static_cast<float>(m.net.eps));
    Vector<H_BLOCKS> out;
#pragma unroll
    for (int i = 0; i < H_BLOCKS; ++i)
      out.pair[i] = pack_bf16(low_of(x.pair[i]) * scale * low_of(norm.pair[i]),
                              high_of(x.pair[i]) * scale * high_of(norm.pair[i]));
    return out;
  }

  // CTA e has the score of expert e.
  __device__ __forceinline__ void score(const Vector<H_BLOCKS>& v, const Vector<H_BLOCKS>& row,
                                        float bias) {
    float dot = 0;
#pragma unroll
    for (int i = 0; i < H_BLOCKS; ++i)
      dot += low_of(v.pair[i]) * low_of(row.pair[i]) + high_of(v.pair[i]) * high_of(row.pair[i]);
    const float all = sum_of_math(dot, 2);
    if (threadIdx.x == 0) store_word(m.net.scores + blockIdx.x, tagged(all + bias, tag));
  }

  // ---- a layer

  __device__ __forceinline__ void attention(const Layer& layer, int index) {
    dense(normed(0), m.qkv);
    stamp(s, index, 1);
    Attention<RANKS>{m, layer, layer.window ? m.window_keys : m.all_keys, warp, lane, tag}.run(
        m.pages[layer.window != 0]);
    Vector<O_BLOCKS<RANKS>> attended;
    take(m.net.attended, static_cast<int>(m.net.num_heads), attended);
    stamp(s, index, 2);
    dense(attended, m.out);
  }

  __device__ __forceinline__ void experts(const Layer& layer, int index) {
    Vector<H_BLOCKS> router{};
    float bias = 0;
    const bool is_scoring = blockIdx.x < m.net.num_experts;
    load_weight(layer.mlp_norm, norm);
    if (is_scoring) {
      load_weight(layer.router_weight + blockIdx.x * m.net.hidden, router);
      bias = load_early_bf16(layer.router_bias + blockIdx.x);
    }
    add_attention();
    stamp(s, index, 3);
    const Vector<H_BLOCKS> v = normed(1);
    if (is_scoring) score(v, router, bias);
    forget();
    TileOperand<H_BLOCKS> operand;
    operand.set(v, lane);
    wait(smem_u32(&m.routed), index & 1);
    stamp(s, index, 4);
    tiles<true>(operand, m.up, m.up.dealt);
    stamp(s, index, 5);
    down(index);
    stamp(s, index, 7);
  }

  // A run of tiles is of two choices at most, unless they are few.
  __device__ __forceinline__ void down(int index) {
    const Tiles& t = m.down;
    const auto gated = [&](int choice) { return m.net.gated + choice * m.net.intermediate; };
    int choice = t.first_choice, unit = t.units.begin;
    const int last = t.last_choice;
    if (last < choice) return;
    Vector<I_BLOCKS<RANKS>> now{}, next{};
    take(gated(choice), t.blocks, now, true);
    if (last != choice) take(gated(choice + 1), t.blocks, next, true);
    stamp(s, index, 6);
    forget();
    TileOperand<I_BLOCKS<RANKS>> operand;
    operand.set(now, lane);
#pragma unroll 1
    for (;;) {
      const int end = min(t.units.end, (choice + 1) * t.tiles);
      tiles<false>(operand, t, end - unit);
      unit = end;
      if (++choice > last) return;
      operand.set(next, lane);
      if (choice < last) take(gated(choice + 1), t.blocks, next, true);
    }
  }
};

template <int RANKS>
__device__ void multiply(Memory& m, const Step& s, int warp, int lane, uint32_t first_tag) {
  Math<RANKS> math{m, s, warp, lane, first_tag + 1};
  math.load_weight(m.layer(0).attn_norm, math.norm);
  math.embed();
  const int layers = static_cast<int>(m.net.num_layers);
  // Of several ranks read anew: there is no register left to keep it.
  const auto end = [&] { return RANKS == 1 ? layers : static_cast<int>(m.net.num_layers); };
#pragma unroll 1
  for (int l = 0; l < end(); ++l) {
    math.tag = first_tag + l + 1;
    if constexpr (RANKS == 1) math.keep_own(m.out.rows);
    stamp(s, l, 0);
    math.attention(m.layer(l), l);
    math.experts(m.layer(l), l);
    math.load_weight(l + 1 < end() ? m.layer(l + 1).attn_norm : m.net.norm, math.norm);
    math.add_terms();
  }
  let_next_kernel_start();
  stamp(s, end(), 0);
  const Vector<H_BLOCKS> hidden = math.normed(0);
  if (s.logits) {
    math.dense(hidden, m.head);
    stamp(s, end(), 1);
  } else if (blockIdx.x == 0) {
    math.put(hidden, s.hidden);
  }
}

}  // namespace haast
