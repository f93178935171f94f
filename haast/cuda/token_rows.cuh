// Rows in shared memory, of tokens and of weights, for products of few tokens.
#pragma once
#include "ptx.cuh"

namespace haast {

// Rows lie so that those of two neighbours, 64 bytes of each, are in all banks.
__device__ __forceinline__ int pitch_of(int bytes) { return bytes + (bytes % 128 ? 0 : 64); }

// Tokens come with the whole row each, of so many T; the barrier is full once all are there.
template <class T>
__device__ __forceinline__ void bring_tokens(const T* x, int num_tokens, int row, uint32_t to,
                                             int pitch, uint32_t full, int lane) {
  constexpr int SIZE = sizeof(T);
  if (lane == 0) arrive_expect(full, num_tokens * SIZE * row);
  __syncwarp();
  if (lane < num_tokens) bulk_load(to + lane * pitch, x + lane * row, SIZE * row, full);
}

}  // namespace haast
