// A whole decode step of one request in one kernel that stays on all SMs (one CTA each).
//
// One warp streams weights through a ring, in the order in which they are needed, whatever the others
// wait for; only the experts' wait for the router. Twelve warps have a vector in registers, each its
// blocks of 64, and multiply every slot of the ring with it; two warps add their sums, finish a result
// and publish it as tagged words (tagged.cuh), which whoever needs it polls. No barrier is ever
// passed by all CTAs: a word is written again only after all who read it have published something
// that its writer needs.
#include "step_finish.cuh"
#include "step_math.cuh"
#include "step_stream.cuh"

namespace haast {
namespace {

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
  for (Rows* r : {&m.qkv, &m.out})
    r->under_way = slots_under_way<RANKS>(r->at_once * r->row_bytes);
  for (Tiles* t : {&m.up, &m.down}) t->under_way = slots_under_way<RANKS>(t->blocks * BLOCK_BYTES);
  m.first_split = blockIdx.x / static_cast<int>(net.num_kv_heads);
  m.first_head = blockIdx.x % static_cast<int>(net.num_kv_heads);
}

// Where the request's keys are, and how far its position turns them; one warp.
__device__ void read_request(Memory& m, const Step& s, int lane) {
  if (lane == 0) {
    const int* table = s.page_tables + static_cast<int64_t>(*s.table_row) * s.max_pages;
    const int window = static_cast<int>(max(m.layers[0].window, m.layers[1].window));
    m.all_keys.set(table, *s.kv_len, 0, m.first_split);
    m.window_keys.set(table + static_cast<int64_t>(s.max_requests) * s.max_pages, *s.kv_len, window,
                      m.first_split);
    m.slot = *s.slot;
    m.window_slot = *s.window_slot;
  }
  const int64_t angle = static_cast<int64_t>(*s.position) * (HEAD_DIM / 2) + lane;
  m.angles[0][lane] = m.net.cos[angle];
  m.angles[1][lane] = m.net.sin[angle];
  __syncwarp();
  const Spans& spans = lane < 16 ? m.all_keys : m.window_keys;
  const int warp = lane % 16, strip = spans.own.begin + warp;
  if (warp < STEP_WARPS && strip < spans.own.end) m.pages[lane / 16][warp] = spans.page_of(strip);
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
      barrier_init(smem_u32(&m.empty[i]), 1);
    }
    m.sent = 0;
    barrier_init(smem_u32(&m.routed), 1);
    barrier_init(smem_u32(&m.weighed), 1);
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

// Logits of all ranks are in rank 0's memory when its step ends.
template <int RANKS>
__device__ void hand_in_logits(const Memory& m, uint32_t tag) {
  const int h = static_cast<int>(m.net.hidden), ctas = gridDim.x, words = (RANKS - 1) * ctas;
  if (m.rank != 0) {
    if (threadIdx.x) return;
    __threadfence_system();
    send_word(m.inboxes[0] + Inbox<RANKS>::done(m.rank, blockIdx.x, h), tagged_bits(0, tag));
  } else if (blockIdx.x == 0) {
    for (int first = 0; first < words; first += STEP_THREADS) {
      const int i = first + threadIdx.x;
      const uint32_t* at = m.inboxes[0] + Inbox<RANKS>::done(1 + i / ctas, i % ctas, h);
      uint32_t word = unread(i < words, tag);
      poll_step<RANKS>([&] {
        reload<true>(word, at, wrong(word, tag));
        return wrong(word, tag);
      });
    }
    __threadfence_system();
  }
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
    if (warp == 0) read_request(m, s, lane);
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
      const Fetch fetch{m, lane};
      fetch.ahead(fetch.weights(m.layer(0)));
      fetch.biases(s.layers, 0);
      wait_for_previous_kernel();
      route<RANKS>(m, s.layers, lane, load_word(m.net.state));
    }
    __syncwarp();
  }
  wait_for_previous_kernel();  // long over; the warp that streams has not asked
  __syncthreads();
  if constexpr (RANKS > 1) {
    if (s.logits) hand_in_logits<RANKS>(m, load_word(m.net.state) + 1);  // 0 is of no step
    __syncthreads();  // all have read the state
  }
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

// On one of several ranks: heads, intermediate size and vocabulary are its own; logits are those of its
// tokens, in rank 0's memory. state goes with the inboxes (Inbox in step.cuh), all zeros at first.
#define HAAST_STEP_OF_RANKS(RANKS)                                                                \
  extern "C" __global__ void __launch_bounds__(haast::STEP_THREADS, 1) decode_step_##RANKS(       \
      HAAST_STEP, uint32_t* const* inboxes, int max_requests, int max_pages, int rank) {          \
    haast::run_step<RANKS>(net,                                                                   \
                           {layers, input_id, input_row, samples, position, kv_len, slot,         \
                            window_slot, table_row, page_tables, max_requests, max_pages, logits, \
                            hidden, stamps},                                                      \
                           inboxes, rank);                                                        \
  }

HAAST_STEP_OF_RANKS(2)
HAAST_STEP_OF_RANKS(4)
HAAST_STEP_OF_RANKS(8)
