// wgmma m64 nN k16, bf16 x bf16 -> fp32, with B in shared memory and A (weights) in registers, but
// where its name says otherwise.
#pragma once
#include "ptx.cuh"

namespace haast {

// Orders the warpgroup's register writes before the wgmmas that read them.
__device__ __forceinline__ void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Until at most PENDING committed groups are in flight; the A registers of the others are free.
template <int PENDING>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// B tile [n][64] bf16, K contiguous, 128-byte swizzle, 1024-byte aligned: rows of 128 bytes, groups
// of 8 rows 1024 bytes apart. This is the low half of its descriptor; the k16 step j is 2 j more.
__device__ __forceinline__ uint32_t b_descriptor(uint32_t addr) {
  return (1u << 16) | ((addr & 0x3FFFF) >> 4);
}

// Swizzle mode 1 (128 bytes) and the stride of groups, 1024 >> 4: the high half.
#define HAAST_B_HIGH "0x40000040"

// D[64, N] += A[64, 16] B[N, 16]^T, asynchronously.
template <int N>
struct Wgmma;

#define HAAST_D8(i)                                                                            \
  "+f"(d[8 * i]), "+f"(d[8 * i + 1]), "+f"(d[8 * i + 2]), "+f"(d[8 * i + 3]), "+f"(d[8 * i + 4]), \
      "+f"(d[8 * i + 5]), "+f"(d[8 * i + 6]), "+f"(d[8 * i + 7])
#define HAAST_R0 "%0, %1, %2, %3, %4, %5, %6, %7"
#define HAAST_R1 HAAST_R0 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define HAAST_R2 HAAST_R1 ", %16, %17, %18, %19, %20, %21, %22, %23"
#define HAAST_R3 HAAST_R2 ", %24, %25, %26, %27, %28, %29, %30, %31"
#define HAAST_R4 HAAST_R3 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define HAAST_R5 HAAST_R4 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define HAAST_R6 HAAST_R5 ", %48, %49, %50, %51, %52, %53, %54, %55"
#define HAAST_R7 HAAST_R6 ", %56, %57, %58, %59, %60, %61, %62, %63"
#define HAAST_R8 HAAST_R7 ", %64, %65, %66, %67, %68, %69, %70, %71"
#define HAAST_R9 HAAST_R8 ", %72, %73, %74, %75, %76, %77, %78, %79"
#define HAAST_R10 HAAST_R9 ", %80, %81, %82, %83, %84, %85, %86, %87"
#define HAAST_R11 HAAST_R10 ", %88, %89, %90, %91, %92, %93, %94, %95"
#define HAAST_D16 HAAST_D8(0)
#define HAAST_D32 HAAST_D16, HAAST_D8(1)
#define HAAST_D48 HAAST_D32, HAAST_D8(2)
#define HAAST_D64 HAAST_D48, HAAST_D8(3)
#define HAAST_D80 HAAST_D64, HAAST_D8(4)
#define HAAST_D96 HAAST_D80, HAAST_D8(5)
#define HAAST_D112 HAAST_D96, HAAST_D8(6)
#define HAAST_D128 HAAST_D112, HAAST_D8(7)
#define HAAST_D144 HAAST_D128, HAAST_D8(8)
#define HAAST_D160 HAAST_D144, HAAST_D8(9)
#define HAAST_D176 HAAST_D160, HAAST_D8(10)
#define HAAST_D192 HAAST_D176, HAAST_D8(11)

#define HAAST_WGMMA(N, D, R, A0, A1, A2, A3, B)                                                    \
  template <>                                                                                      \
  struct Wgmma<N> {                                                                                \
    template <int SIZE>                                                                            \
    static __device__ __forceinline__ void run(float (&d)[SIZE], const uint32_t (&a)[4],           \
                                               uint32_t b) {                                       \
      asm volatile("{\n.reg .pred p;\n.reg .b64 b;\nsetp.eq.u32 p, 0, 0;\n"                        \
                   "mov.b64 b, {%" #B ", " HAAST_B_HIGH "};\n"                                     \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" R "}, {%" #A0      \
                   ", %" #A1 ", %" #A2 ", %" #A3 "}, b, p, 1, 1, 0;\n}\n"                          \
                   : D                                                                             \
                   : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b));                          \
    }                                                                                              \
  };

HAAST_WGMMA(16, HAAST_D16, HAAST_R0, 8, 9, 10, 11, 12)
HAAST_WGMMA(32, HAAST_D32, HAAST_R1, 16, 17, 18, 19, 20)
HAAST_WGMMA(48, HAAST_D48, HAAST_R2, 24, 25, 26, 27, 28)
HAAST_WGMMA(64, HAAST_D64, HAAST_R3, 32, 33, 34, 35, 36)
HAAST_WGMMA(80, HAAST_D80, HAAST_R4, 40, 41, 42, 43, 44)
HAAST_WGMMA(96, HAAST_D96, HAAST_R5, 48, 49, 50, 51, 52)
HAAST_WGMMA(112, HAAST_D112, HAAST_R6, 56, 57, 58, 59, 60)
HAAST_WGMMA(128, HAAST_D128, HAAST_R7, 64, 65, 66, 67, 68)
HAAST_WGMMA(144, HAAST_D144, HAAST_R8, 72, 73, 74, 75, 76)
HAAST_WGMMA(160, HAAST_D160, HAAST_R9, 80, 81, 82, 83, 84)
HAAST_WGMMA(176, HAAST_D176, HAAST_R10, 88, 89, 90, 91, 92)
HAAST_WGMMA(192, HAAST_D192, HAAST_R11, 96, 97, 98, 99, 100)

// D[64, 128] = or += A[64, 16] B[128, 16]^T, both in shared memory as `b_descriptor` says.
template <bool ADD>
__device__ __forceinline__ void wgmma_shared_n128(float (&d)[64], uint32_t a, uint32_t b) {
  asm volatile("{\n.reg .pred p;\n.reg .b64 a, b;\nsetp.ne.u32 p, %66, 0;\n"
               "mov.b64 a, {%64, " HAAST_B_HIGH "};\nmov.b64 b, {%65, " HAAST_B_HIGH "};\n"
               "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" HAAST_R7
               "}, a, b, p, 1, 1, 0, 0;\n}\n"
               : HAAST_D128
               : "r"(a), "r"(b), "n"(ADD));
}

// D[64, 64] += A[64, 16] B[16, 64] with B's rows of 64, which is not contiguous in K: the tile of
// `b_descriptor` read the other way round. The k16 step j is 128 j more: 16 rows.
__device__ __forceinline__ void wgmma_rows_n64(float (&d)[32], const uint32_t (&a)[4], uint32_t b) {
  asm volatile("{\n.reg .pred p;\n.reg .b64 b;\nsetp.eq.u32 p, 0, 0;\n"
               "mov.b64 b, {%36, " HAAST_B_HIGH "};\n"
               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" HAAST_R3
               "}, {%32, %33, %34, %35}, b, p, 1, 1, 1;\n}\n"
               : HAAST_D64
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b));
}

// Keeps the compiler from moving what is done with these values to the other side: from before a
// wait for accumulators, or to after a wait for others.
template <int SIZE>
__device__ __forceinline__ void settle(float (&d)[SIZE]) {
#pragma unroll
  for (int i = 0; i < SIZE; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

}  // namespace haast
