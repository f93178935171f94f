// Logits in place: penalties of tokens seen before, masks of allowed tokens, biases of single ones.
#include "ptx.cuh"

namespace haast {
namespace {

constexpr int THREADS = 256;
constexpr int GROUP = 8;  // consecutive tokens of a thread, within one word of a mask
constexpr int COUNT = 0x7FFF;  // bits of a history's element; the sign: it occurs in the prompt
constexpr float INF = __builtin_inff();

struct Penalties {
  const int16_t* history;  // [S, V], or null
  const int* row;          // [B], -1 = none
  const float *repetition, *presence, *frequency;
};

struct Masks {
  const uint32_t* bits;  // [M, words], or null
  const int* row;        // [B], -1 = none
  int words;
};

__device__ __forceinline__ float get(float v) { return v; }
__device__ __forceinline__ float get(bf16 v) { return __bfloat162float(v); }
__device__ __forceinline__ void set(float& to, float v) { to = v; }
__device__ __forceinline__ void set(bf16& to, float v) { to = __float2bfloat16(v); }

template <class V>
union Pack {
  V values[GROUP];
  uint4 words[sizeof(V) * GROUP / sizeof(uint4)];
};

// Eight elements, or those that there are.
template <class V>
__device__ __forceinline__ Pack<V> load(const V* at, int count, bool is_aligned) {
  Pack<V> pack{};
  if (is_aligned) {
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(pack) / sizeof(uint4)); ++i)
      pack.words[i] = reinterpret_cast<const uint4*>(at)[i];
  } else {
#pragma unroll
    for (int j = 0; j < GROUP; ++j)
      if (j < count) pack.values[j] = at[j];
  }
  return pack;
}

// Rounded as in the reference: no product is fused with a sum.
__device__ __forceinline__ float penalised(float x, int history, float repetition, float presence,
                                           float frequency) {
  const int count = history & COUNT;
  if (history) x = x > 0.0f ? x / repetition : x * repetition;
  x = __fsub_rn(x, __fmul_rn(frequency, static_cast<float>(count)));
  return __fsub_rn(x, count ? presence : 0.0f);
}

template <class T>
__device__ void adjust(T* logits, const Penalties& p, const Masks& m, int vocab) {
  const int row = blockIdx.y;
  const int first = (blockIdx.x * THREADS + threadIdx.x) * GROUP;
  let_next_kernel_start();
  wait_for_previous_kernel();
  const int history_row = p.history ? p.row[row] : -1;
  const int mask_row = m.bits ? m.row[row] : -1;
  if (first >= vocab || (history_row < 0 && mask_row < 0)) return;
  const int count = min(vocab - first, GROUP);
  const bool is_aligned = vocab % GROUP == 0;
  T* at = logits + static_cast<long>(row) * vocab + first;
  Pack<T> x = load(at, count, is_aligned);
  bool is_changed = false;
  if (history_row >= 0) {
    const auto history =
        load(p.history + static_cast<long>(history_row) * vocab + first, count, is_aligned);
    const float repetition = p.repetition[row], presence = p.presence[row];
    const float frequency = p.frequency[row];
#pragma unroll
    for (int j = 0; j < GROUP; ++j) {
      const int seen = history.values[j];
      set(x.values[j], penalised(get(x.values[j]), seen, repetition, presence, frequency));
      is_changed |= seen != 0;
    }
  }
  if (mask_row >= 0) {
    const uint32_t word = m.bits[static_cast<long>(mask_row) * m.words + first / 32];
    const uint32_t allowed = word >> (first % 32);
#pragma unroll
    for (int j = 0; j < GROUP; ++j)
      if (!(allowed >> j & 1)) set(x.values[j], -INF), is_changed = true;
  }
  if (!is_changed) return;
  if (is_aligned) {
#pragma unroll
    for (int i = 0; i < static_cast<int>(sizeof(x) / sizeof(uint4)); ++i)
      reinterpret_cast<uint4*>(at)[i] = x.words[i];
  } else {
#pragma unroll
    for (int j = 0; j < GROUP; ++j)
      if (j < count) at[j] = x.values[j];
  }
}

template <class T>
__device__ void bias(T* logits, const int* rows, const int* token_ids, const float* values,
                     int num_biases, int vocab) {
  const int i = blockIdx.x * THREADS + threadIdx.x;
  let_next_kernel_start();
  wait_for_previous_kernel();
  if (i >= num_biases || rows[i] < 0) return;
  T& x = logits[static_cast<long>(rows[i]) * vocab + token_ids[i]];
  set(x, get(x) + values[i]);
}

}  // namespace
}  // namespace haast

#define HAAST_ADJUST(T, NAME)                                                                     \
  extern "C" __global__ void __launch_bounds__(haast::THREADS) adjust_logits_##NAME(              \
      T* logits, const int16_t* history, const int* history_row, const float* repetition,         \
      const float* presence, const float* frequency, const uint32_t* mask, const int* mask_row,   \
      int words, int vocab) {                                                                     \
    haast::adjust(logits,                                                                         \
                  haast::Penalties{history, history_row, repetition, presence, frequency},        \
                  haast::Masks{mask, mask_row, words}, vocab);                                    \
  }                                                                                               \
  extern "C" __global__ void __launch_bounds__(haast::THREADS)                                    \
      bias_logits_##NAME(T* logits, const int* rows, const int* token_ids, const float* values,   \
                         int num_biases, int vocab) {                                             \
    haast::bias(logits, rows, token_ids, values, num_biases, vocab);                              \
  }

HAAST_ADJUST(haast::bf16, bf16)
HAAST_ADJUST(float, fp32)

// history [S, vocab]: one more of each row's token, as far as 15 bits can count.
extern "C" __global__ void __launch_bounds__(haast::THREADS)
    count_tokens(int16_t* history, const int* history_row, const int64_t* token_ids, int num_rows,
                 int vocab) {
  const int i = blockIdx.x * haast::THREADS + threadIdx.x;
  haast::let_next_kernel_start();
  haast::wait_for_previous_kernel();
  if (i >= num_rows || history_row[i] < 0) return;
  int16_t& seen = history[static_cast<long>(history_row[i]) * vocab + token_ids[i]];
  if ((seen & haast::COUNT) != haast::COUNT) ++seen;
}
