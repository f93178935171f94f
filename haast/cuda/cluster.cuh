// CTAs of one cluster: who they are, when all have arrived, and each other's shared memory.
#pragma once
#include "ptx.cuh"

namespace haast {

__device__ __forceinline__ int cluster_rank() {
  int rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// Where another CTA of the cluster keeps what this one has at a shared address. That CTA has to
// have begun (a barrier passed) and must not have ended.
template <class T>
__device__ __forceinline__ T* in_cta(T* own, int rank) {
  T* there;
  asm volatile("mapa.u64 %0, %1, %2;" : "=l"(there) : "l"(own), "r"(rank));
  return there;
}

// Says that this CTA has begun; nothing it wrote is seen by that.
__device__ __forceinline__ void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

__device__ __forceinline__ void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}

// All threads of all its CTAs; what they wrote before is seen after. The CTA's own barrier shows
// the first warp what the others wrote, so that one warp alone pays for a fence of the whole GPU.
__device__ __forceinline__ void cluster_sync() {
  __syncthreads();
  if (threadIdx.x < 32)
    asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
  else
    cluster_arrive();
  cluster_wait();
}

}  // namespace haast
