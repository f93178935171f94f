// What a decode step brings ahead: one warp streams all weights through the ring; what is small the
// warp that routes (step_finish.cuh) has fetched to L2 before it is needed.
#pragma once
#include "step.cuh"

namespace haast {

// Slots on their way. Whatever else is read of memory takes its turn behind them: with two, that is
// two microseconds; with all of them it would be seven. While the head streams nobody else reads.
constexpr uint32_t SLOTS_UNDER_WAY = 2;

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
    m.contents[sent++ % CONTENTS] = content;
    const uint32_t full = smem_u32(&m.full[slot]);
    arrive_expect(full, bytes);
    return full;
  }

  __device__ void dense(const bf16* weight, const Rows& r, Part part, int layer) {
    for (int row = r.rows.begin; row < r.rows.end; row += r.at_once) {
      const char* from =
          reinterpret_cast<const char*>(weight) + static_cast<int64_t>(row) * r.row_bytes;
      const int count = min(r.at_once, r.rows.end - row);
      uint32_t to;
      const uint32_t full = open({part, layer, row}, count * r.row_bytes, to);
      for (int i = 0; i < count; ++i)
        bulk_load_once(to + i * (r.row_bytes + ROW_GAP), from + i * r.row_bytes, r.row_bytes, full);
    }
  }

  __device__ void tile(const uint8_t* weight, const bf16* bias, const Tiles& t,
                       const Content& content) {
    constexpr int PIECE = 15 * BLOCK_BYTES;
    const int bytes = t.blocks * BLOCK_BYTES;
    const int expert = m.experts[content.layer % 2][content.index / t.tiles];
    const int64_t tile = static_cast<int64_t>(expert) * t.tiles + content.index % t.tiles;
    uint32_t to;
    const uint32_t full = open(content, bytes + BIAS_BYTES, to);
    for (int at = 0; at < bytes; at += PIECE)
      bulk_load_once(to + at, weight + tile * bytes + at, min(PIECE, bytes - at), full);
    bulk_load(to + bytes, bias + tile * TILE_ROWS, BIAS_BYTES, full);
  }

  // Tiles of up are dealt out one by one, so that no CTA has two more than another.
  __device__ void up(const Layer& layer, int index) {
    for (int unit = blockIdx.x; unit < CHOICES * m.up.tiles; unit += gridDim.x)
      tile(layer.up_weight, layer.up_bias, m.up, {Part::UP, index, unit});
  }

  __device__ void down(const Layer& layer, int index) {
    for (int unit = m.down.units.begin; unit < m.down.units.end; ++unit)
      tile(layer.down_weight, layer.down_bias, m.down, {Part::DOWN, index, unit});
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

// Slots of a share may hold less: as many more are on their way.
template <int RANKS>
__device__ __forceinline__ void pace(Stream& s, int slot_bytes) {
  if constexpr (RANKS > 1) {
    constexpr int BYTES = SLOTS_UNDER_WAY * SLOT_BYTES;
    s.most_under_way = min(SLOTS, (BYTES + slot_bytes / 2) / slot_bytes);
  }
}

template <int RANKS>
__device__ void stream_weights(Memory& m, bool has_head) {
  Stream s{m};
  const int layers = static_cast<int>(m.net.num_layers);
  for (int l = 0; l < layers; ++l) {
    const Layer& layer = m.layer(l);
    wait(smem_u32(&m.fetched), l & 1);  // with it, the next layer is at hand
    pace<RANKS>(s, m.qkv.at_once * m.qkv.row_bytes);
    s.dense(layer.qkv_weight, m.qkv, Part::QKV, l);
    pace<RANKS>(s, m.out.at_once * m.out.row_bytes);
    s.dense(layer.out_weight, m.out, Part::OUT, l);
    if (l + 1 < layers) fill_gap(s, m.layer(l + 1).qkv_weight, m.qkv, l);
    wait(smem_u32(&m.routed), l & 1);
    pace<RANKS>(s, m.up.blocks * BLOCK_BYTES);
    s.up(layer, l);
    pace<RANKS>(s, m.down.blocks * BLOCK_BYTES);
    s.down(layer, l);
  }
  s.most_under_way = SLOTS;
  if (has_head) s.dense(m.net.head, m.head, Part::HEAD, layers);
  for (int i = 0; i < FINISHERS; ++i) s.stop();
}

struct Fetch {
  Memory& m;
  int lane;

  __device__ static void range(const void* from, int64_t bytes) {
    const uint64_t at = reinterpret_cast<uint64_t>(from), first = at & ~15ull;
    const int size = static_cast<int>((at + bytes - first + 15) & ~15ull);
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

  __device__ void weights(const Layer& layer) const {
    const Network& net = m.net;
    if (lane == 0) range(layer.attn_norm, net.hidden * sizeof(bf16));
    if (lane == 1) range(layer.mlp_norm, net.hidden * sizeof(bf16));
    if (lane == 2) range(layer.sinks, net.num_heads * sizeof(bf16));
    if (blockIdx.x >= net.num_experts) return;
    if (lane == 3) range(layer.router_weight + blockIdx.x * net.hidden, net.hidden * sizeof(bf16));
    if (lane == 4) range(layer.router_bias, net.num_experts * sizeof(bf16));
  }

  // Of the CTA's first split, each warp's first strip.
  __device__ void keys(const Layer& layer) const {
    const int heads = static_cast<int>(m.net.num_kv_heads), split = blockIdx.x / heads;
    const Spans& spans = layer.window ? m.window_keys : m.all_keys;
    if (split >= spans.splits || lane >= STEP_WARPS) return;
    const int strip = spans.run_of(split).begin + lane;
    if (strip >= spans.run_of(split).end) return;
    const int64_t line =
        static_cast<int64_t>(m.pages[layer.window != 0][lane]) * heads + blockIdx.x % heads;
    const int64_t row = line * PAGE_SIZE + (spans.first_strip + strip) * STRIP % PAGE_SIZE;
    range(layer.k_cache + row * HEAD_DIM, STRIP * HEAD_DIM * sizeof(bf16));
    range(layer.v_cache + row * HEAD_DIM, STRIP * HEAD_DIM * sizeof(bf16));
  }
};

}  // namespace haast
