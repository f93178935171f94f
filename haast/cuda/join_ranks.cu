// What each GPU of a host has of a row, added up on all of them, then a residual, then the sum's
// normalisation. A CTA a row, eight elements a thread.
//
// Every GPU writes its part into the memory of all others and waits for theirs in its own: one way
// over NVLink, no barrier. Eight bytes, which arrive together, are half data and half the epoch of
// the row: how many times it was joined. So whoever finds this epoch has the data too. Two slots
// take turns: a GPU writes epoch n + 2 after it has had n + 1 of all others, which began that after
// they had read n.
#include "row.cuh"

namespace haast {
namespace {

constexpr int MAX_ROW = 512;  // threads, of eight elements: with more there are too few registers

__device__ __forceinline__ void send(uint4* to, uint32_t a, uint32_t b, uint32_t epoch) {
  asm volatile("st.volatile.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(a), "r"(epoch),
               "r"(b), "r"(epoch)
               : "memory");
}

__device__ __forceinline__ uint4 look(const uint4* at) {
  uint4 v;
  asm volatile("ld.volatile.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at)
               : "memory");
  return v;
}

__device__ __forceinline__ bool has_come(uint4 v, uint32_t epoch) {
  return v.y == epoch && v.w == epoch;
}

// What a rank has of these eight elements, once it is here.
__device__ __forceinline__ uint4 receive(const uint4* at, int chunks, uint4 low, uint4 high,
                                         uint32_t epoch) {
  while (!has_come(low, epoch)) low = look(at);
  while (!has_come(high, epoch)) high = look(at + chunks);
  return make_uint4(low.x, low.z, high.x, high.z);
}

// inboxes  of each rank: [2 slots, RANKS senders, max_rows, 2 halves, chunks] of 16 bytes
// epochs   of each row, on this GPU
template <int RANKS>
__device__ __forceinline__ void join(const uint4* x, const uint4* delta, const uint4* weight,
                                     uint4* sum, uint4* out, float eps, int chunks,
                                     uint4* const* inboxes, uint32_t* epochs, int rank,
                                     int max_rows) {
  const int row = blockIdx.x, chunk = threadIdx.x;
  const bool is_inside = chunk < chunks;
  const long at = static_cast<long>(row) * chunks + chunk;
  uint4 weights = make_uint4(0, 0, 0, 0), mine = weights, residual = weights;
  if (is_inside) weights = weight[chunk];  // before the wait: no kernel writes weights, or these:
  uint4* inbox[RANKS];
#pragma unroll
  for (int r = 0; r < RANKS; ++r) inbox[r] = inboxes[r];
  const uint4* own = inboxes[rank];
  let_next_kernel_start();
  wait_for_previous_kernel();
  const uint32_t epoch = epochs[row] + 1;
  const auto place = [&](int sender) {
    const long line = (static_cast<long>(epoch & 1) * RANKS + sender) * max_rows + row;
    return line * 2 * chunks + chunk;
  };
  float v[8] = {};
  if (is_inside) {
    mine = delta[at];
#pragma unroll
    for (int r = 0; r < RANKS; ++r) {
      if (r == rank) continue;
      send(inbox[r] + place(rank), mine.x, mine.y, epoch);
      send(inbox[r] + place(rank) + chunks, mine.z, mine.w, epoch);
    }
    residual = x[at];
    uint4 low[RANKS], high[RANKS];
#pragma unroll
    for (int r = 0; r < RANKS; ++r) {  // a first look at all, since each takes its time
      low[r] = look(own + place(r));
      high[r] = look(own + place(r) + chunks);
    }
#pragma unroll
    for (int r = 0; r < RANKS; ++r) {
      const uint4 part =
          r == rank ? mine : receive(own + place(r), chunks, low[r], high[r], epoch);
      float d[8];
      unpack(part, d);
#pragma unroll
      for (int i = 0; i < 8; ++i) v[i] += d[i];
    }
    float d[8];
    unpack(pack(v), d);
    unpack(residual, v);
#pragma unroll
    for (int i = 0; i < 8; ++i) v[i] += d[i];
    const uint4 rounded = pack(v);
    sum[at] = rounded;
    unpack(rounded, v);
  }
  const uint4 normed = normalised(v, weights, eps, chunks);
  if (is_inside) out[at] = normed;
  if (chunk == 0) epochs[row] = epoch;  // all have read it: they have met in `normalised`
}

}  // namespace
}  // namespace haast

#define HAAST_JOIN_RANKS(RANKS)                                                                   \
  extern "C" __global__ void __launch_bounds__(haast::MAX_ROW) join_ranks_##RANKS(                \
      const uint4* x, const uint4* delta, const uint4* weight, uint4* sum, uint4* out, float eps, \
      int chunks, uint4* const* inboxes, uint32_t* epochs, int rank, int max_rows) {              \
    haast::join<RANKS>(x, delta, weight, sum, out, eps, chunks, inboxes, epochs, rank, max_rows); \
  }

HAAST_JOIN_RANKS(2)
HAAST_JOIN_RANKS(4)
HAAST_JOIN_RANKS(8)
