// Attention of the one query of a decode step: each warp of a split takes strips of 16 keys, whose keys
// and values come to registers; those of the first while the query is still being computed.
#pragma once
#include "mma.cuh"
#include "rope.cuh"
#include "step.cuh"

namespace haast {

constexpr int TILES = STRIP / 8;

struct Strip {
  int first_key, page;
};

__device__ __forceinline__ uint4 load_once(const bf16* at) {
  uint4 v;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at));
  return v;
}

// Eight tagged words as eight bf16; those that nobody wants are there, and zeros.
struct Eight {
  uint4 a, b;

  __device__ __forceinline__ Eight(bool is_wanted, uint32_t tag) {
    const uint32_t word = unread(is_wanted, tag);
    a = b = make_uint4(word, word, word, word);
  }
  __device__ __forceinline__ uint32_t load(const uint32_t* at, uint32_t tag) {
    reload(a, at, wrong(a, tag));
    reload(b, at + 4, wrong(b, tag));
    return wrong(a, tag) | wrong(b, tag);
  }
  __device__ __forceinline__ uint4 packed() const {
    return make_uint4(pair_of(a.x, a.y), pair_of(a.z, a.w), pair_of(b.x, b.y), pair_of(b.z, b.w));
  }
};

// Of a lane: of the key, rotated, dimensions 8 t and 32 + 8 t on; of the value those from 8 g on.
struct Newest {
  uint4 low, high, value;
};

// A lane's of head g: columns 2 t and 2 t + 1 of each tile.
struct Running {
  float out[8][4] = {};  // the last two are of no head
  float top = -INFINITY, total = 0;

  __device__ __forceinline__ void rescale(float scale) {
    total *= scale;
#pragma unroll
    for (auto& tile : out) tile[0] *= scale, tile[1] *= scale;
  }
};

// Lane (g, t) of a warp and its strip of a kv head.
template <int RANKS>
struct Strips {
  const Memory& m;
  const Network& net;
  int g, t;
  // K: of key 8 n + g, dimensions 8 t and 32 + 8 t on; V: of keys 8 n + 2 t and the next one,
  // dimensions from 8 g on.
  uint4 k[TILES][2], v[TILES][2];

  __device__ Strips(const Memory& mem, int lane) : m(mem), net(mem.net), g(lane / 4), t(lane % 4) {}

  // Of a cache, where a position lies in its page.
  __device__ __forceinline__ int64_t row_of(int page, int head, int at) const {
    return (static_cast<int64_t>(page) * net.num_kv_heads + head) * PAGE_SIZE + at % PAGE_SIZE;
  }

  __device__ __forceinline__ void bring(const Layer& layer, Strip s, int head) {
    const int64_t row = row_of(s.page, head, s.first_key);
    const bf16* from = layer.k_cache + (row + g) * HEAD_DIM + 8 * t;
    const bf16* values = layer.v_cache + (row + 2 * t) * HEAD_DIM + 8 * g;
#pragma unroll
    for (int n = 0; n < TILES; ++n) {
      k[n][0] = load_once(from + n * 8 * HEAD_DIM);
      k[n][1] = load_once(from + n * 8 * HEAD_DIM + 32);
    }
#pragma unroll
    for (int n = 0; n < TILES; ++n) {
      v[n][0] = load_once(values + n * 8 * HEAD_DIM);
      v[n][1] = load_once(values + (n * 8 + 1) * HEAD_DIM);
    }
  }

  __device__ __forceinline__ void rotate(uint4& first, uint4& second) const {
    const float4* c = reinterpret_cast<const float4*>(m.angles[0] + 8 * t);
    const float4* s = reinterpret_cast<const float4*>(m.angles[1] + 8 * t);
    const float4 cos[2] = {c[0], c[1]}, sin[2] = {s[0], s[1]};
    rotate_eight(first, second, cos, sin);
  }

  // Rotated query of head g, dimensions 8 t and 32 + 8 t on; and the newest key and value, if wanted.
  __device__ __forceinline__ void query(int head, uint32_t tag, bool wants_newest, uint4 (&q)[2],
                                        Newest& newest) const {
    const uint32_t* at = net.qkv + (head * GROUP_HEADS + g) * HEAD_DIM + 8 * t;
    const uint32_t* keys = net.qkv + (net.num_heads + head) * HEAD_DIM + 8 * t;
    const uint32_t* values =
        net.qkv + (net.num_heads + net.num_kv_heads + head) * HEAD_DIM + 8 * g;
    Eight first(true, tag), second(true, tag);
    Eight low(wants_newest, tag), high(wants_newest, tag), value(wants_newest, tag);
    poll_step<RANKS>([&] {
      return (first.load(at, tag) | second.load(at + 32, tag)) |
             (low.load(keys, tag) | high.load(keys + 32, tag) | value.load(values, tag));
    });
    q[0] = first.packed();
    q[1] = second.packed();
    rotate(q[0], q[1]);
    newest = {low.packed(), high.packed(), value.packed()};
    rotate(newest.low, newest.high);
  }

  // To the cache, and to the lanes that multiply them.
  __device__ __forceinline__ void append(const Layer& layer, Strip s, int head, int slot, int key,
                                         const Newest& newest) {
    const int in_strip = key - s.first_key;
#pragma unroll
    for (int n = 0; n < TILES; ++n) {
      if (8 * n + g == in_strip) k[n][0] = newest.low, k[n][1] = newest.high;
      if (8 * n + 2 * t == in_strip) v[n][0] = newest.value;
      if (8 * n + 2 * t + 1 == in_strip) v[n][1] = newest.value;
    }
    if (slot < 0) return;
    const int64_t row = row_of(slot / PAGE_SIZE, head, slot);
    if (g == 0) {
      uint4* to = reinterpret_cast<uint4*>(layer.k_cache + row * HEAD_DIM);
      to[t] = newest.low;
      to[t + 4] = newest.high;
    }
    if (t == 0) reinterpret_cast<uint4*>(layer.v_cache + row * HEAD_DIM)[g] = newest.value;
  }

  __device__ __forceinline__ void multiply_keys(const uint4 (&q)[2],
                                                float (&scores)[TILES][4]) const {
#pragma unroll
    for (int n = 0; n < TILES; ++n) {
      scores[n][0] = scores[n][1] = scores[n][2] = scores[n][3] = 0;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        mma(scores[n], {q[half].x, 0, q[half].y, 0}, k[n][half].x, k[n][half].y);
        mma(scores[n], {q[half].z, 0, q[half].w, 0}, k[n][half].z, k[n][half].w);
      }
    }
  }

  // Scores to weights of the visible keys, relative to the largest so far.
  __device__ __forceinline__ void weigh(int first_key, int first, int last,
                                        float (&scores)[TILES][4], Running& r) const {
    float top = r.top;
#pragma unroll
    for (int n = 0; n < TILES; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int key = first_key + 8 * n + 2 * t + i;
        if (key < first || key >= last) scores[n][i] = -INFINITY;
        top = fmaxf(top, scores[n][i]);
      }
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
    top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
    const float held = top == -INFINITY ? 0 : top;
    r.rescale(exp2_fast((r.top - held) * SCORE_SCALE));
    r.top = top;
    const float base = held * SCORE_SCALE;
#pragma unroll
    for (int n = 0; n < TILES; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        scores[n][i] = exp2_fast(scores[n][i] * SCORE_SCALE - base);
        r.total += scores[n][i];
      }
  }

  // Values of keys that nobody sees may be anything, NaN too.
  __device__ __forceinline__ void hide_values(int first_key, int first, int last) {
#pragma unroll
    for (int n = 0; n < TILES; ++n)
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int key = first_key + 8 * n + 2 * t + i;
        if (key < first || key >= last) v[n][i] = make_uint4(0, 0, 0, 0);
      }
  }

  // Column g of tile c is dimension 8 g + c.
  __device__ __forceinline__ void multiply_values(const float (&weights)[TILES][4],
                                                  Running& r) const {
#pragma unroll
    for (int n = 0; n < TILES; n += 2) {
      const uint32_t a0 = pack_bf16(weights[n][0], weights[n][1]);
      const uint32_t a2 = pack_bf16(weights[n + 1][0], weights[n + 1][1]);
#pragma unroll
      for (int c = 0; c < 8; ++c)
        mma(r.out[c], {a0, 0, a2, 0}, pick(v[n], c), pick(v[n + 1], c));
    }
  }

  static __device__ __forceinline__ uint32_t pick(const uint4 (&keys)[2], int c) {
    const uint32_t a[4] = {keys[0].x, keys[0].y, keys[0].z, keys[0].w};
    const uint32_t b[4] = {keys[1].x, keys[1].y, keys[1].z, keys[1].w};
    return __byte_perm(a[c / 2], b[c / 2], c % 2 ? 0x7632 : 0x5410);
  }
};

// Two dimensions of a head, summed over the warps, relative to their top.
struct Merged {
  float2 sum = make_float2(0, 0);
  float top = -INFINITY, total = 0;

  __device__ __forceinline__ Merged(const Merge& m, int head, int dim) {
#pragma unroll
    for (int w = 0; w < STEP_WARPS; ++w) top = fmaxf(top, m.tops[w][head]);
    top = top == -INFINITY ? 0 : top;
#pragma unroll
    for (int w = 0; w < STEP_WARPS; ++w) {
      const float scale = exp2_fast((m.tops[w][head] - top) * SCORE_SCALE);
      const float2 v = *reinterpret_cast<const float2*>(&m.sums[w][head][dim]);
      total += m.totals[w][head] * scale;
      sum.x += v.x * scale;
      sum.y += v.y * scale;
    }
  }
};

template <int RANKS>
struct Attention {
  Memory& m;
  const Layer& layer;
  const Spans& spans;
  int warp, lane;
  uint32_t tag;

  // All units of this CTA; `pages` are those of the first one's first strips.
  __device__ void run(const int* pages) {
    asm volatile("" : "+r"(warp), "+r"(lane));  // as Math::forget in step_math.cuh
    const int heads = static_cast<int>(m.net.num_kv_heads), units = heads * spans.splits;
    for (int unit = blockIdx.x; unit < units; unit += gridDim.x) {
      const bool is_first = unit == static_cast<int>(blockIdx.x);
      int split = m.first_split, head = m.first_head;
      Run strips = spans.own;
      if (!is_first) {
        split = unit / heads, head = unit % heads;
        strips = spans.run_of(split);
      }
      const float sink =
          load_early_bf16(layer.sinks + head * GROUP_HEADS + warp % GROUP_HEADS) * LOG2_E;
      Running r;
      if (strips.begin + warp < strips.end) attend(head, strips, is_first ? pages[warp] : -1, r);
      if (!is_first) sync_math();  // the unit before has been read
      put(r);
      sync_math();
      publish(head, split, sink);
    }
    if (spans.splits > 1)
      for (int head = blockIdx.x; head < heads; head += gridDim.x) merge_splits(head);
  }

 private:
  __device__ __forceinline__ void attend(int head, const Run& strips, int page, Running& r) const {
    Strips<RANKS> s(m, lane);
    uint4 q[2];
    Newest newest;
    const int key = spans.kv_len - 1, begin = strips.begin + warp;
    const int from_begin = key / STRIP - spans.first_strip - begin;
    const bool has_newest =
        begin + from_begin < strips.end && from_begin >= 0 && from_begin % STEP_WARPS == 0;
    for (int at = begin; at < strips.end; at += STEP_WARPS) {
      const bool is_first = at == begin;
      if (!is_first || page < 0) page = spans.page_of(at);
      const Strip strip{(spans.first_strip + at) * STRIP, page};
      s.bring(layer, strip, head);
      if (is_first) s.query(head, tag, has_newest, q, newest);
      if (key - strip.first_key < STRIP)
        s.append(layer, strip, head, layer.window ? m.window_slot : m.slot, key, newest);
      float scores[TILES][4];
      s.multiply_keys(q, scores);
      s.weigh(strip.first_key, spans.first_visible, spans.kv_len, scores, r);
      s.hide_values(strip.first_key, spans.first_visible, spans.kv_len);
      s.multiply_values(scores, r);
    }
  }

  __device__ __forceinline__ void put(const Running& r) const {
    const int g = lane / 4, t = lane % 4;
    float total = r.total + __shfl_xor_sync(~0u, r.total, 1);
    total += __shfl_xor_sync(~0u, total, 2);
    float* to = &m.merge.sums[warp][g][16 * t];
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
      for (int d = 0; d < 8; d += 2)
        *reinterpret_cast<float2*>(to + 8 * i + d) = make_float2(r.out[d][i], r.out[d + 1][i]);
    if (t == 0) {
      m.merge.tops[warp][g] = r.top;
      m.merge.totals[warp][g] = total;
    }
  }

  // A warp a head, two dimensions a lane.
  __device__ __forceinline__ void publish(int kv_head, int split, float sink) const {
    if (warp >= GROUP_HEADS) return;
    const int head = kv_head * GROUP_HEADS + warp, dim = 2 * lane;
    const Merged own(m.merge, warp, dim);
    const float base = own.top * SCORE_SCALE;
    if (spans.splits == 1) {
      const float scale = 1 / (own.total + exp2f(sink - base));
      store_words2(m.net.attended + head * HEAD_DIM + dim,
                   make_uint2(tagged(own.sum.x * scale, tag), tagged(own.sum.y * scale, tag)));
      return;
    }
    const int64_t row = static_cast<int64_t>(split) * m.net.num_heads + head;
    const float scale = 1 / own.total;
    store_words4(&m.net.parts[row * HEAD_DIM + dim].x,
                 make_uint4(__float_as_uint(own.sum.x * scale), tag,
                            __float_as_uint(own.sum.y * scale), tag));
    if (lane == 0)
      store_words2(&m.net.part_lse[row].x,
                   make_uint2(__float_as_uint(base + log2f(own.total)), tag));
  }

  // Joins the splits of a kv head's heads, in their order, with the sinks.
  __device__ __forceinline__ void merge_splits(int kv_head) const {
    if (warp >= GROUP_HEADS) return;
    constexpr int AT_ONCE = 4;
    const int head = kv_head * GROUP_HEADS + warp, dim = 2 * lane;
    const int num_heads = static_cast<int>(m.net.num_heads), last = spans.splits - 1;
    float top = load_early_bf16(layer.sinks + head) * LOG2_E, total = 1;
    float2 sum = make_float2(0, 0);
    for (int first = 0; first <= last; first += AT_ONCE) {
      uint2 lse[AT_ONCE];
      uint4 value[AT_ONCE];
      poll_step<RANKS>([&] {
        uint32_t bad = 0;
#pragma unroll
        for (int i = 0; i < AT_ONCE; ++i) {
          const int64_t row = static_cast<int64_t>(min(first + i, last)) * num_heads + head;
          lse[i] = load_words2(&m.net.part_lse[row].x);
          value[i] = load_words4(&m.net.parts[row * HEAD_DIM + dim].x);
          bad |= (lse[i].y ^ tag) | (value[i].y ^ tag) | (value[i].w ^ tag);
        }
        return bad;
      });
#pragma unroll
      for (int i = 0; i < AT_ONCE; ++i) {
        if (first + i > last) continue;
        const float own = __uint_as_float(lse[i].x), above = fmaxf(top, own);
        const float old = exp2f(top - above), weight = exp2f(own - above);
        sum.x = sum.x * old + __uint_as_float(value[i].x) * weight;
        sum.y = sum.y * old + __uint_as_float(value[i].z) * weight;
        total = total * old + weight;
        top = above;
      }
    }
    store_words2(m.net.attended + head * HEAD_DIM + dim,
                 make_uint2(tagged(sum.x / total, tag), tagged(sum.y / total, tag)));
  }
};

}  // namespace haast
