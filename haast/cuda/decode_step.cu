// A whole decode step of one request in one kernel that stays on all SMs (one CTA each).
//
// One warp streams weights through a ring, in the order in which they are needed, whatever the others
// wait for; only the experts' wait for the router. Twelve warps have a vector in registers, each its
// blocks of 64, and multiply every slot of the ring with it; two warps add their sums, finish a result
// and publish it as tagged words (tagged.cuh), which whoever needs it polls. No barrier is ever
// passed by all CTAs: a word is written again only after all who read it have published something
// that its writer needs.
#include "step_attention.cuh"
#include "step_finish.cuh"
#include "step_products.cuh"
#include "step_stream.cuh"

namespace haast {
namespace {

// ---- twelve warps multiply

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
  __device__ __forceinline__ uint32_t pair_at(const bf16* row, int i) const {
    return load_early(row + element(i));
  }

  // ---- slots

  __device__ __forceinline__ uint32_t await(uint32_t slot) const {
    wait(smem_u32(&m.full[slot % SLOTS]), slot / SLOTS & 1);
    return smem_u32(m.ring[slot % SLOTS]);
  }

  // Two slots, or one, have been read; their sums may be put down in turn.
  __device__ __forceinline__ void release(bool two) {
    __syncwarp();
    if (lane < (two ? 2 : 1)) arrive(smem_u32(&m.empty[(taken + lane) % SLOTS]));
  }

  template <class Slot>
  __device__ __forceinline__ void put_sums(const Slot& slot) {
    const uint32_t at = taken++ % SUM_SLOTS, round = (taken - 1) / SUM_SLOTS;
    wait(smem_u32(&m.sum_empty[at]), ~round & 1);
    slot.put(m.sums[at].of_warp[warp], lane);
    __syncwarp();
    if (lane == 0) arrive(smem_u32(&m.sum_full[at]));
  }

  template <int BLOCKS>
  __device__ __forceinline__ void dense(const DenseOperand<BLOCKS>& x, const Rows& r) {
    forget();
    const int blocks = r.row_bytes / 128;
    const auto load = [&](DenseSlot<BLOCKS>& slot, uint32_t index, int row) {
      const int own = min(lane / 4 % 4, min(r.at_once, r.rows.end - row) - 1);
      slot.load(await(index) + own * (r.row_bytes + ROW_GAP), blocks, warp, lane);
    };
#pragma unroll 1
    for (int row = r.rows.begin; row < r.rows.end; row += 2 * r.at_once) {
      const bool two = row + r.at_once < r.rows.end;
      DenseSlot<BLOCKS> first, second;
      load(first, taken, row);
      load(second, taken + two, two ? row + r.at_once : row);
      first.multiply(x);
      second.multiply(x);
      release(two);
      put_sums(first);
      if (two) put_sums(second);
    }
  }

  // The end to both finishers: slots that hold nothing.
  __device__ __forceinline__ void pass_on() {
    for (int i = 0; i < FINISHERS; ++i, ++taken) {
      await(taken);
      wait(smem_u32(&m.sum_empty[taken % SUM_SLOTS]), ~(taken / SUM_SLOTS) & 1);
      __syncwarp();
      if (lane == 0) arrive(smem_u32(&m.sum_full[taken % SUM_SLOTS]));
    }
  }

  // The slot's, once it is full.
  __device__ __forceinline__ Content content(uint32_t slot) const {
    await(slot);
    return m.contents[slot % CONTENTS];
  }

  // Tiles of this part and of these units, as long as they come.
  template <bool PAIRED, int BLOCKS>
  __device__ __forceinline__ void tiles(const TileOperand<BLOCKS>& x, int blocks, Part part,
                                        int end) {
    forget();
    const auto is_one = [&](uint32_t slot) {
      const Content c = content(slot);
      return c.part == part && c.index < end;
    };
    const auto load = [&](TileSlot<BLOCKS>& tile, uint32_t index) {
      const uint32_t slot = await(index);
      tile.load(slot, blocks, warp, lane);
      if (warp == STEP_WARPS - 1) tile.template add_bias<PAIRED>(slot + blocks * BLOCK_BYTES, lane);
    };
#pragma unroll 1
    while (is_one(taken)) {
      const bool two = is_one(taken + 1);
      TileSlot<BLOCKS> first, second;
      load(first, taken);
      load(second, taken + two);
      first.multiply(x);
      second.multiply(x);
      release(two);
      put_sums(first);
      if (two) put_sums(second);
    }
  }

  // ---- vectors

  // The last block may be a half.
  template <int BLOCKS>
  __device__ __forceinline__ void take(const uint32_t* words, int blocks, uint32_t of,
                                       Vector<BLOCKS>& v, bool is_cut = false) {
    forget();
    uint2 w[BLOCKS] = {};
    poll_step<RANKS>([&] {
      uint32_t bad = 0;
#pragma unroll
      for (int i = 0; i < BLOCKS; ++i)
        if (warp + i * STEP_WARPS < blocks &&
            (RANKS == 1 || !is_cut || element(i) < static_cast<int>(m.net.intermediate))) {
          w[i] = load_words2(words + element(i));
          bad |= wrong(w[i], of);
        }
      return bad;
    });
#pragma unroll
    for (int i = 0; i < BLOCKS; ++i) v.pair[i] = pair_of(w[i].x, w[i].y);
  }

  __device__ __forceinline__ void embed() {
    const int row = *s.input_row;
    const int64_t id = row >= 0 ? s.samples[row] : *s.input_id;
#pragma unroll
    for (int i = 0; i < H_BLOCKS; ++i)
      x.pair[i] = warp + i * STEP_WARPS < blocks_of_h()
                      ? pair_at(m.net.embedding + id * m.net.hidden, i)
                      : 0;
  }

  // Sums, in this order, of vectors that lie one after the other, from words() on: put(i, low, high).
  template <int PARTS, class Words, class Put>
  __device__ __forceinline__ void sum_up(Words words, uint32_t of, Put put) {
    forget();
    uint2 w[H_BLOCKS][PARTS] = {};
    const int blocks = blocks_of_h(), h = static_cast<int>(m.net.hidden);
    poll_step<RANKS>([&] {
      uint32_t bad = 0;
#pragma unroll
      for (int i = 0; i < H_BLOCKS; ++i)
        if (warp + i * STEP_WARPS < blocks)
#pragma unroll
          for (int p = 0; p < PARTS; ++p) {
            w[i][p] = load_part(words() + p * h + element(i));
            bad |= wrong(w[i][p], of);
          }
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

  static __device__ __forceinline__ uint2 load_part(const uint32_t* at) {
    return RANKS == 1 ? load_words2(at) : load_sent2(at);
  }

  // To the residual.
  __device__ __forceinline__ void add(int i, float low, float high) {
    const uint32_t delta = pack_bf16(low, high);
    x.pair[i] = pack_bf16(low_of(x.pair[i]) + low_of(delta), high_of(x.pair[i]) + high_of(delta));
  }

  // TIMES sums of PARTS vectors, the i-th from at(i) on in this rank's inbox, to the residual.
  template <int PARTS, int TIMES, class At>
  __device__ __forceinline__ void add_sent(uint32_t of, At at) {
    float2 sum[H_BLOCKS] = {};
#pragma unroll 1
    for (int time = 0; time < TIMES; ++time)
      sum_up<PARTS>([&] { return m.inboxes[m.rank] + at(time); }, of,
                    [&](int i, float low, float high) {
                      sum[i].x += low;
                      sum[i].y += high;
                    });
#pragma unroll
    for (int i = 0; i < H_BLOCKS; ++i) add(i, sum[i].x, sum[i].y);
  }

  // The terms of the layer before, added choice by choice; then rank by rank, where of two the own
  // one, which comes first, is first, as it is all the same.
  __device__ __forceinline__ void add_terms(uint32_t of) {
    if constexpr (RANKS == 1)
      sum_up<CHOICES>([&] { return m.net.terms; }, of,
                      [&](int i, float low, float high) { add(i, low, high); });
    else
      add_sent<CHOICES, RANKS>(of, [&](int time) {
        const int rank = RANKS == 2 ? time ^ m.rank : time;
        return Inbox<RANKS>::terms(rank, 0, static_cast<int>(m.net.hidden));
      });
  }

  // x with o's results; of more than four ranks as many have their words read at once.
  __device__ __forceinline__ void add_attention() {
    constexpr int AT_ONCE = RANKS < 4 ? RANKS : 4;
    if constexpr (RANKS == 1)
      take(m.net.middle, blocks_of_h(), tag, x);
    else
      add_sent<AT_ONCE, RANKS / AT_ONCE>(tag, [&](int time) {
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
    dense(DenseOperand<H_BLOCKS>(normed(0), lane), m.qkv);
    stamp(s, index, 1);
    Attention<RANKS>{m, layer, layer.window ? m.window_keys : m.all_keys, warp, lane, tag}.run(
        m.pages[layer.window != 0]);
    Vector<O_BLOCKS<RANKS>> attended;
    take(m.net.attended, static_cast<int>(m.net.num_heads), tag, attended);
    stamp(s, index, 2);
    dense(DenseOperand<O_BLOCKS<RANKS>>(attended, lane), m.out);
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
    tiles<true>(operand, m.up.blocks, Part::UP, CHOICES * m.up.tiles);
    stamp(s, index, 5);
    down(index);
    stamp(s, index, 7);
  }

  // A run of tiles is of two choices at most, unless they are few.
  __device__ __forceinline__ void down(int index) {
    const Tiles& t = m.down;
    const auto gated = [&](int choice) { return m.net.gated + choice * m.net.intermediate; };
    if (t.units.begin == t.units.end) return;
    int choice = t.units.begin / t.tiles;
    const int last = (t.units.end - 1) / t.tiles;
    Vector<I_BLOCKS<RANKS>> now{}, next{};
    take(gated(choice), t.blocks, tag, now, true);
    if (last != choice) take(gated(choice + 1), t.blocks, tag, next, true);
    stamp(s, index, 6);
    forget();
    TileOperand<I_BLOCKS<RANKS>> operand;
    operand.set(now, lane);
    for (;;) {
      tiles<false>(operand, t.blocks, Part::DOWN, (choice + 1) * t.tiles);
      if (++choice > last) return;
      operand.set(next, lane);
      if (choice < last) take(gated(choice + 1), t.blocks, tag, next, true);
    }
  }
};

template <int RANKS>
__device__ void multiply(Memory& m, const Step& s, int warp, int lane, uint32_t first_tag) {
  Math<RANKS> math{m, s, warp, lane, first_tag};
  math.embed();
  const int layers = static_cast<int>(m.net.num_layers);
  // Of several ranks read anew: there is no register left to keep it.
  const auto end = [&] { return RANKS == 1 ? layers : static_cast<int>(m.net.num_layers); };
  for (int l = 0; l < end(); ++l) {
    math.load_weight(m.layer(l).attn_norm, math.norm);
    if (l) math.add_terms(math.tag);
    math.tag = first_tag + l + 1;
    if constexpr (RANKS == 1) math.keep_own(m.out.rows);
    stamp(s, l, 0);
    math.attention(m.layer(l), l);
    math.experts(m.layer(l), l);
  }
  let_next_kernel_start();
  math.load_weight(m.net.norm, math.norm);
  math.add_terms(math.tag);
  stamp(s, end(), 0);
  const Vector<H_BLOCKS> hidden = math.normed(0);
  if (s.logits) {
    math.dense(DenseOperand<H_BLOCKS>(hidden, lane), m.head);
    stamp(s, end(), 1);
  } else if (blockIdx.x == 0) {
    math.put(hidden, s.hidden);
  }
  math.pass_on();
}

// ---- all

// This CTA's shares of a layer. Swizzled weights fill up the last block.
template <int RANKS>
__device__ void share_out(Memory& m) {
  const Network& net = m.net;
  const int h = static_cast<int>(net.hidden), i = static_cast<int>(net.intermediate);
  m.qkv.set(static_cast<int>(net.num_heads + 2 * net.num_kv_heads) * HEAD_DIM, h);
  m.out.set(h, static_cast<int>(net.num_heads) * HEAD_DIM);
  m.head.set(static_cast<int>(net.vocab), h);
  m.up.set(2 * i, h);
  m.down.set(h, RANKS == 1 ? i : divide_up(i, BLOCK_K) * BLOCK_K);
}

// Where the request's keys are; one warp.
__device__ void find_keys(Memory& m, const Step& s, int lane) {
  if (lane == 0) {
    const int* table = s.page_tables + static_cast<int64_t>(*s.table_row) * s.max_pages;
    const int window = static_cast<int>(max(m.layers[0].window, m.layers[1].window));
    m.all_keys.set(table, *s.kv_len, 0);
    m.window_keys.set(table + static_cast<int64_t>(s.max_requests) * s.max_pages, *s.kv_len, window);
    m.position = *s.position;
    m.slot = *s.slot;
    m.window_slot = *s.window_slot;
  }
  __syncwarp();
  const Spans& spans = lane < 16 ? m.all_keys : m.window_keys;
  const int warp = lane % 16, split = blockIdx.x / static_cast<int>(m.net.num_kv_heads);
  if (split >= spans.splits) return;
  const Run strips = spans.run_of(split);
  if (warp < STEP_WARPS && strips.begin + warp < strips.end)
    m.pages[lane / 16][warp] = spans.page_of(strips.begin + warp);
}

__device__ void copy_words(void* to, const void* from, int bytes) {
  for (int i = threadIdx.x; i < bytes / 8; i += STEP_THREADS)
    static_cast<uint64_t*>(to)[i] = static_cast<const uint64_t*>(from)[i];
}

template <int RANKS>
__device__ void begin(Memory& m, const Network* net, const Step& s, uint32_t* const* inboxes,
                      int rank) {
  copy_words(&m.net, net, sizeof(Network));
  if (threadIdx.x == 0) {
    for (int i = 0; i < SLOTS; ++i) {
      barrier_init(smem_u32(&m.full[i]), 1);
      barrier_init(smem_u32(&m.empty[i]), STEP_WARPS);
    }
    for (int i = 0; i < SUM_SLOTS; ++i) {
      barrier_init(smem_u32(&m.sum_full[i]), STEP_WARPS);
      barrier_init(smem_u32(&m.sum_empty[i]), 1);
    }
    barrier_init(smem_u32(&m.routed), 1);
    barrier_init(smem_u32(&m.fetched), 1);
    barrier_init_fence();
  }
  __syncthreads();
  copy_words(m.layers, s.layers, 2 * sizeof(Layer));
  if constexpr (RANKS > 1) {
    copy_words(m.inboxes, inboxes, RANKS * sizeof(uint32_t*));
    m.rank = rank;
  }
  if (threadIdx.x == 0) share_out<RANKS>(m);
  __syncthreads();
}

template <int RANKS>
__device__ __forceinline__ void run_step(const Network* net, const Step& s,
                                       uint32_t* const* inboxes, int rank) {
  extern __shared__ __align__(128) uint8_t bytes[];
  Memory& m = *reinterpret_cast<Memory*>(bytes);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  begin<RANKS>(m, net, s, inboxes, rank);
  if (warp < STEP_WARPS) {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(MATH_REGISTERS));
    wait_for_previous_kernel();
    if (warp == 0) find_keys(m, s, lane);
    multiply<RANKS>(m, s, warp, lane, load_word(m.net.state));
  } else {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(OTHER_REGISTERS));
    const int which = warp - STEP_WARPS;
    if (which < FINISHERS) {
      wait_for_previous_kernel();
      Finisher<RANKS>{m, s, lane, load_word(m.net.state), static_cast<uint32_t>(which)}.run();
    } else if (which == FINISHERS) {
      if (lane == 0) stream_weights<RANKS>(m, s.logits != nullptr);
    } else {
      Fetch{m, lane}.weights(m.layer(0));
      Fetch{m, lane}.biases(s.layers, 0);
      wait_for_previous_kernel();
      route<RANKS>(m, s.layers, lane, load_word(m.net.state));
    }
    __syncwarp();
  }
  wait_for_previous_kernel();  // long over; the warp that streams has not asked
  __syncthreads();
  if (threadIdx.x == 0 && atomicAdd(m.net.state + 1, 1) == gridDim.x - 1) {
    m.net.state[0] = load_word(m.net.state) + static_cast<uint32_t>(m.net.num_layers);
    m.net.state[1] = 0;
  }
}

}  // namespace
}  // namespace haast

// Everything of `net` and `layers` is written once, by the host; state is {0, 0} at first. One of logits
// and hidden is null.
#define HAAST_STEP                                                                                \
  const haast::Network *net, const haast::Layer *layers, const int *input_id,                     \
      const int *input_row, const int64_t *samples, const int *position, const int *kv_len,       \
      const int *slot, const int *window_slot, const int *table_row, const int *page_tables,      \
      haast::bf16 *logits, haast::bf16 *hidden, uint64_t *stamps

extern "C" __global__ void __launch_bounds__(haast::STEP_THREADS, 1)
    decode_step(HAAST_STEP, int max_requests, int max_pages) {
  haast::run_step<1>(net,
                   {layers, input_id, input_row, samples, position, kv_len, slot, window_slot,
                    table_row, page_tables, max_requests, max_pages, logits, hidden, stamps},
                   nullptr, 0);
}

// On one of several ranks: heads, intermediate size and vocabulary are its own, logits are of its
// tokens. state goes with the inboxes (Inbox in step.cuh), which are all zeros at first.
#define HAAST_STEP_OF_RANKS(RANKS)                                                                \
  extern "C" __global__ void __launch_bounds__(haast::STEP_THREADS, 1) decode_step_##RANKS(       \
      HAAST_STEP, uint32_t* const* inboxes, int max_requests, int max_pages, int rank) {          \
    haast::run_step<RANKS>(net,                                                                     \
                         {layers, input_id, input_row, samples, position, kv_len, slot,           \
                          window_slot, table_row, page_tables, max_requests, max_pages, logits,   \
                          hidden, stamps},                                                        \
                         inboxes, rank);                                                          \
  }

HAAST_STEP_OF_RANKS(2)
HAAST_STEP_OF_RANKS(4)
HAAST_STEP_OF_RANKS(8)
