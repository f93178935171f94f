// What a decode step brings ahead: one warp streams all weights through the ring; what is small the
// warp that routes (step_finish.cuh) has fetched to L2 before it is needed.
#pragma once
#include "step.cuh"

namespace haast {

// Slots on their way. Whatever else is read of memory takes its turn behind them: with two, that is
// two microseconds; with all of them it would be seven. While the head streams nobody else reads.
constexpr uint32_t SLOTS_UNDER_WAY = 2;

// Slots of a share may hold less: as many more are on their way.
template <int RANKS>
__device__ __forceinline__ int slots_under_way(int slot_bytes) {
  constexpr int BYTES = SLOTS_UNDER_WAY * SLOT_BYTES;
  return RANKS == 1 ? SLOTS_UNDER_WAY : min(SLOTS, (BYTES + slot_bytes / 2) / slot_bytes);
}

struct Stream {
  Memory& m;
  uint32_t sent = 0;  // slots
  uint32_t most_under_way = SLOTS_UNDER_WAY;

  // The next slot, once it is free: its barrier, which is to wait for so many bytes, and where it is.
  __device__ uint32_t open(const Content& content, int bytes, uint32_t& to) {
    if (sent >= most_under_way) {
      const uint32_t before = sent - most_under_way;
      wait(smem_u32(&m.full[before % SLOTS]), before / SLOTS & 1);
    }
    const uint32_t slot = sent % SLOTS;
    wait(smem_u32(&m.empty[slot]), ~(sent / SLOTS) & 1);
    to = smem_u32(m.ring[slot]);
    m.contents[sent++ % SLOTS] = content;
    store_release_shared(&m.sent, sent);
    const uint32_t full = smem_u32(&m.full[slot]);
    arrive_expect(full, bytes);
    return full;
  }

  __device__ void dense(const bf16* weight, const Rows& r, Part part, int layer) {
#pragma unroll 1
    for (int row = r.rows.begin; row < r.rows.end; row += r.at_once) {
      const char* from =
          reinterpret_cast<const char*>(weight) + static_cast<int64_t>(row) * r.row_bytes;
      const int count = min(r.at_once, r.rows.end - row);
      uint32_t to;
      const uint32_t full = open({part, layer, row}, count * r.row_bytes, to);
#pragma unroll 1
      for (int i = 0; i < count; ++i)
        bulk_load_once(to + i * (r.row_bytes + ROW_GAP), from + i * r.row_bytes, r.row_bytes, full);
    }
  }

  __device__ void tile(const uint8_t* weight, const bf16* bias, const Tiles& t,
                       const Content& content) {
    constexpr int PIECE = 15 * BLOCK_BYTES;
    const int bytes = t.blocks * BLOCK_BYTES;
    const int expert = m.experts[content.layer % 2][content.choice];
    const int64_t tile = static_cast<int64_t>(expert) * t.tiles + content.index;
    uint32_t to;
    const uint32_t full = open(content, bytes + BIAS_BYTES, to);
#pragma unroll 1
    for (int at = 0; at < bytes; at += PIECE)
      bulk_load_once(to + at, weight + tile * bytes + at, min(PIECE, bytes - at), full);
    bulk_load(to + bytes, bias + tile * TILE_ROWS, BIAS_BYTES, full);
  }

  // Tiles of up are dealt out one by one, so that no CTA has two more than another.
  __device__ void up(const Layer& layer, int index) {
    const int tiles = m.up.tiles;
    int at = blockIdx.x;
#pragma unroll 1
    for (int choice = 0; choice < CHOICES; ++choice, at -= tiles) {
#pragma unroll 1
      for (; at < tiles; at += gridDim.x)
        tile(layer.up_weight, layer.up_bias, m.up, {Part::UP, index, at, choice});
    }
  }

  __device__ void down(const Layer& layer, int index) {
    const int tiles = m.down.tiles;
    int choice = m.down.first_choice, at = m.down.units.begin - choice * tiles;
#pragma unroll 1
    for (int unit = m.down.units.begin; unit < m.down.units.end; ++unit, ++at) {
      if (at == tiles) at = 0, ++choice;
      tile(layer.down_weight, layer.down_bias, m.down, {Part::DOWN, index, at, choice});
    }
  }

  // Nothing: a finisher that comes to it has done.
  __device__ void stop() {
    uint32_t to;
    open({Part::NONE, 0, 0}, 0, to);
  }
};

// Memory would rest from the last slot of o until the experts are known. What the next layer begins
// with comes to L2 meanwhile, no faster than memory can bring it: polls would wait behind it.
__device__ void fill_gap(const Stream& s, const bf16* weight, const Rows& r, int layer) {
  constexpr int PIECE = 24 * 1024, PIECE_NS = 1200;
  const uint32_t last = s.sent - 1, routed = smem_u32(&s.m.routed);
  wait(smem_u32(&s.m.full[last % SLOTS]), last / SLOTS & 1);
  const char* from =
      reinterpret_cast<const char*>(weight) + static_cast<int64_t>(r.rows.begin) * r.row_bytes;
  const int bytes = (r.rows.end - r.rows.begin) * r.row_bytes;
  uint64_t due = nanoseconds();
  for (int at = 0; at < bytes && !is_complete(routed, layer & 1);) {
    if (nanoseconds() < due) continue;
    prefetch_l2(from + at, min(PIECE, bytes - at));
    at += PIECE;
    due += PIECE_NS;
  }
}

template <int RANKS>
__device__ void stream_weights(Memory& m, bool has_head) {
  Stream s{m};
  const int layers = static_cast<int>(m.net.num_layers);
#pragma unroll 1
  for (int l = 0; l < layers; ++l) {
    const Layer& layer = m.layer(l);
    wait(smem_u32(&m.fetched), l & 1);  // with it, the next layer is at hand
    s.most_under_way = m.qkv.under_way;
    s.dense(layer.qkv_weight, m.qkv, Part::QKV, l);
    s.most_under_way = m.out.under_way;
    s.dense(layer.out_weight, m.out, Part::OUT, l);
    if (l + 1 < layers) fill_gap(s, m.layer(l + 1).qkv_weight, m.qkv, l);
    wait(smem_u32(&m.routed), l & 1);
    s.most_under_way = m.up.under_way;
    s.up(layer, l);
    s.most_under_way = m.down.under_way;
    s.down(layer, l);
  }
  s.most_under_way = SLOTS;
  if (has_head) s.dense(m.net.head, m.head, Part::HEAD, layers);
  for (int i = 0; i < FINISHERS; ++i) s.stop();
}

struct Fetch {
  Memory& m;
  int lane;

  // Of weights or of the cache, a lane's; nothing if `from` is null.
  struct Piece {
    const bf16* from;
    int64_t count;
  };

  // Lanes in turn: few instructions come by here, or what all warps need of them would not stay at hand.
  __device__ void ahead(const Piece& piece) const {
    if (!piece.from) return;
    const uint64_t at = reinterpret_cast<uint64_t>(piece.from), first = at & ~15ull;
    const int size = static_cast<int>((at + piece.count * sizeof(bf16) - first + 15) & ~15ull);
    prefetch_l2(reinterpret_cast<const void*>(first), size);
  }

  __device__ void biases(const bf16* from, const Run& r, float* to) const {
    for (int i = lane; i < r.end - r.begin; i += 32) to[i] = load_early_bf16(from + r.begin + i);
  }

  // To shared memory: biases of a layer, and what the one after it consists of.
  __device__ void biases(const Layer* layers, int index) const {
    const Layer& layer = m.layer(index);
    biases(layer.qkv_bias, m.qkv.rows, m.biases[index % 2][0]);
    biases(layer.out_bias, m.out.rows, m.biases[index % 2][1]);
    if (index + 1 < m.net.num_layers && lane < sizeof(Layer) / 8)
      reinterpret_cast<uint64_t*>(m.layers + (index + 1) % LAYERS_AT_HAND)[lane] =
          reinterpret_cast<const uint64_t*>(layers + index + 1)[lane];
    __syncwarp();
    if (lane == 0) arrive(smem_u32(&m.fetched));
  }

  // Norms and sinks, and where the CTA has a score, what that takes.
  __device__ Piece weights(const Layer& layer) const {
    const Network& net = m.net;
    if (lane == 0) return {layer.attn_norm, net.hidden};
    if (lane == 1) return {layer.mlp_norm, net.hidden};
    if (lane == 2) return {layer.sinks, net.num_heads};
    if (blockIdx.x < net.num_experts) {
      if (lane == 3) return {layer.router_weight + blockIdx.x * net.hidden, net.hidden};
      if (lane == 4) return {layer.router_bias, net.num_experts};
    }
    return {nullptr, 0};
  }

  static constexpr int WEIGHT_LANES = 5;
  static_assert(WEIGHT_LANES + 2 * STEP_WARPS <= 32);

  // Of the CTA's first split, each warp's first strip, of keys and of values.
  __device__ Piece keys(const Layer& layer) const {
    const Spans& spans = layer.window ? m.window_keys : m.all_keys;
    const int which = (lane - WEIGHT_LANES) / STEP_WARPS, warp = (lane - WEIGHT_LANES) % STEP_WARPS;
    const int strip = spans.own.begin + warp;
    if (which > 1 || strip >= spans.own.end) return {nullptr, 0};
    const int64_t page = m.pages[layer.window != 0][warp];
    const int64_t row = (page * m.net.num_kv_heads + m.first_head) * PAGE_SIZE +
                        (spans.first_strip + strip) * STRIP % PAGE_SIZE;
    return {(which ? layer.v_cache : layer.k_cache) + row * HEAD_DIM, STRIP * HEAD_DIM};
  }
};

}  // namespace haast
