// Lists of work that is grouped by expert.
#pragma once
#include "ptx.cuh"

namespace haast {

// Experts that the searches and the tables in shared memory are made for.
constexpr int MAX_EXPERTS = 256;

// One warp: first[e] for e = 0 .. num_experts, the prefix sum of count(rows of expert e). Reads offs
// in L2, as moe_down does so before griddepcontrol.wait.
template <class Count>
__device__ void list_work(const int* offs, int num_experts, int* first, int lane, Count count) {
  int before = 0;
  for (int base = 0; base < num_experts; base += 32) {
    const int e = base + lane;
    int sum = e < num_experts ? count(__ldcg(offs + e + 1) - __ldcg(offs + e)) : 0;
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(~0u, sum, step);
      if (lane >= step) sum += other;
    }
    if (e < num_experts) first[e + 1] = before + sum;
    before += __shfl_sync(~0u, sum, 31);
  }
  if (lane == 0) first[0] = 0;
}

// The expert that piece `at` of the list belongs to.
__device__ __forceinline__ int expert_of(const int* first, int num_experts, int at) {
  int expert = 0;
  for (int step = MAX_EXPERTS / 2; step; step /= 2)
    if (expert + step < num_experts && first[expert + step] <= at) expert += step;
  return expert;
}

__device__ __forceinline__ int divide_up(int a, int b) { return (a + b - 1) / b; }

}  // namespace haast
