// Kernels that follow the rule of programmatic dependent launch, and that break it: out[i] = 3 in[n - 1 -
// i] + i, so that a CTA reads what another one of the kernel before wrote.
#include "ptx.cuh"

namespace haast {
namespace {

template <bool READS_EARLY, bool WRITES_EARLY>
__device__ __forceinline__ void run(const uint32_t* in, uint32_t* out, int n) {
  const int at = blockIdx.x * blockDim.x + threadIdx.x;
  const volatile uint32_t* from = in + (n - 1 - at);
  uint32_t value = 0;
  let_next_kernel_start();
  if (READS_EARLY && at < n) value = *from;
  if (WRITES_EARLY && at < n) *const_cast<volatile uint32_t*>(out + at) = 0xDEAD;
  wait_for_previous_kernel();
  if (!READS_EARLY && at < n) value = *from;
  if (at < n) out[at] = 3 * value + at;
}

}  // namespace
}  // namespace haast

#define PLANTED(NAME, READS_EARLY, WRITES_EARLY)                                       \
  extern "C" __global__ void NAME(const uint32_t* in, uint32_t* out, int n) {          \
    haast::run<READS_EARLY, WRITES_EARLY>(in, out, n);                                 \
  }

PLANTED(planted_right, false, false)
PLANTED(planted_reads_early, true, false)
PLANTED(planted_writes_early, false, true)
