// Numbers that say themselves when they are there: a word holds a bf16 and the tag of its moment, so
// that whoever needs it reads until the tag is right, and neither fence nor barrier is needed.
#pragma once
#include "ptx.cuh"

namespace haast {

// A second or more: nobody waits as long unless something is broken.
constexpr uint32_t MOST_POLLS = 1u << 21;

__device__ __forceinline__ uint32_t load_word(const uint32_t* at) {
  uint32_t v;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(at));
  return v;
}

__device__ __forceinline__ uint2 load_words2(const uint32_t* at) {
  uint2 v;
  asm volatile("ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(at));
  return v;
}

__device__ __forceinline__ uint4 load_words4(const uint32_t* at) {
  uint4 v;
  asm volatile("ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at));
  return v;
}

// Where `bad` is not zero; what is there already is not read again, and its reader gets less to wait for.
// SENT: another GPU writes it.
template <bool SENT = false>
__device__ __forceinline__ void reload(uint32_t& v, const uint32_t* at, uint32_t bad) {
  if constexpr (SENT)
    asm volatile("{\n.reg .pred p;\nsetp.ne.u32 p, %2, 0;\n@p ld.relaxed.sys.global.u32 %0, [%1];\n}\n"
                 : "+r"(v)
                 : "l"(at), "r"(bad));
  else
    asm volatile("{\n.reg .pred p;\nsetp.ne.u32 p, %2, 0;\n@p ld.relaxed.gpu.global.u32 %0, [%1];\n}\n"
                 : "+r"(v)
                 : "l"(at), "r"(bad));
}

template <bool SENT = false>
__device__ __forceinline__ void reload(uint2& v, const uint32_t* at, uint32_t bad) {
  if constexpr (SENT)
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.u32 p, %3, 0;\n"
        "@p ld.relaxed.sys.global.v2.u32 {%0, %1}, [%2];\n}\n"
        : "+r"(v.x), "+r"(v.y)
        : "l"(at), "r"(bad));
  else
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.u32 p, %3, 0;\n"
        "@p ld.relaxed.gpu.global.v2.u32 {%0, %1}, [%2];\n}\n"
        : "+r"(v.x), "+r"(v.y)
        : "l"(at), "r"(bad));
}

__device__ __forceinline__ void reload(uint4& v, const uint32_t* at, uint32_t bad) {
  asm volatile(
      "{\n.reg .pred p;\nsetp.ne.u32 p, %5, 0;\n"
      "@p ld.relaxed.gpu.global.v4.u32 {%0, %1, %2, %3}, [%4];\n}\n"
      : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)
      : "l"(at), "r"(bad));
}

// Of weights, here and now: the compiler would put it off until after the polls that it is to overlap.
__device__ __forceinline__ uint32_t load_early(const void* at) {
  uint32_t v;
  asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(v) : "l"(at));
  return v;
}

__device__ __forceinline__ float load_early_bf16(const bf16* at) {
  uint16_t v;
  asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(v) : "l"(at));
  return __bfloat162float(__ushort_as_bfloat16(v));
}

__device__ __forceinline__ void store_word(uint32_t* at, uint32_t v) {
  asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(at), "r"(v) : "memory");
}

__device__ __forceinline__ void store_words2(uint32_t* at, uint2 v) {
  asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1, %2};" ::"l"(at), "r"(v.x), "r"(v.y)
               : "memory");
}

// Each half, of a number and its tag, is written whole.
__device__ __forceinline__ void store_words4(uint32_t* at, uint4 v) {
  asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(at), "r"(v.x), "r"(v.y),
               "r"(v.z), "r"(v.w)
               : "memory");
}

// To the memory of another GPU, or of this one, for it to find.
__device__ __forceinline__ void send_word(uint32_t* at, uint32_t v) {
  asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(at), "r"(v) : "memory");
}

__device__ __forceinline__ uint32_t tagged_bits(uint32_t bits, uint32_t tag) {
  return bits << 16 | (tag & 0xFFFFu);
}
__device__ __forceinline__ uint32_t tagged(float value, uint32_t tag) {
  return tagged_bits(__bfloat16_as_ushort(__float2bfloat16_rn(value)), tag);
}

// Before they are read: wrong if they are wanted, else there, and zeros.
__device__ __forceinline__ uint32_t unread(bool is_wanted, uint32_t tag) {
  return tagged_bits(0, is_wanted ? ~tag : tag);
}
__device__ __forceinline__ uint2 unread2(bool is_wanted, uint32_t tag) {
  const uint32_t word = unread(is_wanted, tag);
  return make_uint2(word, word);
}

// Not zero if one of the words has another tag.
__device__ __forceinline__ uint32_t wrong(uint32_t word, uint32_t tag) {
  return (word ^ tag) & 0xFFFFu;
}
__device__ __forceinline__ uint32_t wrong(uint2 words, uint32_t tag) {
  return wrong(words.x, tag) | wrong(words.y, tag);
}
__device__ __forceinline__ uint32_t wrong(uint4 words, uint32_t tag) {
  return (wrong(words.x, tag) | wrong(words.y, tag)) | (wrong(words.z, tag) | wrong(words.w, tag));
}

__device__ __forceinline__ float value_of_word(uint32_t word) {
  return __uint_as_float(word & 0xFFFF0000u);
}

// The numbers of two words as a pair of bf16, the first in the low half.
__device__ __forceinline__ uint32_t pair_of(uint32_t first, uint32_t second) {
  return __byte_perm(first, second, 0x7632);
}

// A warp reads until what it has read is all there: read() loads and says what is wrong.
template <uint32_t MOST = MOST_POLLS, class Read>
__device__ __forceinline__ void poll(Read read) {
  delay_some();
  for (uint32_t polls = 0; __any_sync(~0u, read() != 0);)
    if (++polls == MOST) __trap();
}

}  // namespace haast
