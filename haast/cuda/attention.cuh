// What the attention kernels share: sizes, pages, lists of work over requests.
#pragma once
#include "ptx.cuh"

namespace haast {

constexpr int HEAD_DIM = 64;
constexpr int GROUP_HEADS = 8;   // query heads that share a kv head
constexpr int PAGE_SIZE = 128;   // positions
constexpr int PAGE_BYTES = PAGE_SIZE * HEAD_DIM * 2;  // of one head
constexpr int MAX_REQUESTS = 512;
constexpr int MAX_SPLITS = 32;  // of a head, one a lane of the warp that joins them
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float SCORE_SCALE = 0.125f * LOG2_E;  // of scores in the exponent of 2

__device__ constexpr int divide_up(int a, int b) { return (a + b - 1) / b; }

// One warp: first[i] for i = 0 .. n, the prefix sum of weight(0), weight(1), ...
template <class Weight>
__device__ void list_requests(int n, int* first, int lane, Weight weight) {
  const int each = divide_up(n, 32), begin = min(lane * each, n), end = min(begin + each, n);
  int own = 0;
  for (int i = begin; i < end; ++i) own += weight(i);
  int sum = own;
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(~0u, sum, step);
    if (lane >= step) sum += other;
  }
  if (lane == 31) first[n] = sum;
  sum -= own;
  for (int i = begin; i < end; ++i) {
    first[i] = sum;
    sum += weight(i);
  }
}

// The request that piece `at` of the list belongs to.
__device__ __forceinline__ int request_of(const int* first, int n, int at) {
  int request = 0;
  for (int step = MAX_REQUESTS / 2; step; step /= 2)
    if (request + step < n && first[request + step] <= at) request += step;
  return request;
}

// The pages of a request that its one query reads.
struct Span {
  int first_page, num_pages;

  __device__ Span(int kv_len, int window) {
    first_page = max(0, kv_len - window) / PAGE_SIZE;
    num_pages = divide_up(kv_len, PAGE_SIZE) - first_page;
  }

  __device__ Span() {}

  // In the list of work; a request without keys has a part too, which writes zeros.
  __device__ int listed() const { return max(1, num_pages); }
};

}  // namespace haast
