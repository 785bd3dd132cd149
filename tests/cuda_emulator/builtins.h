// CUDA's language in C++: what kernels, and cluda.h of libgpuarray, use of it.
//
// kernel_builder.cpp puts this before the kernel text. __shared__, __global__ and __launch_bounds__ are not defined here:
// it rewrites them after preprocessing.
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <type_traits>
#include <utility>

#include "runtime.h"

#define CUDA_EMULATOR 1
#define __CUDACC_RTC__ 1
#define __device__
#define __host__
#define __constant__ const
#define __restrict__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define warpSize 32

typedef EmulatorIndex uint3;

struct dim3 : uint3 {
  dim3(const uint3 &index) : uint3(index) {}
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : uint3{x_, y_, z_} {}
};

#define threadIdx (emulator_thread()->thread)
#define blockIdx (emulator_thread()->block)
#define blockDim (emulator_thread()->block_size)
#define gridDim (emulator_thread()->grid_size)

// ---- vectors

#define EMULATOR_VECTORS(type, name, align2, align4)                                                             \
  struct alignas(align2) name##2 { type x, y; };                                                                 \
  struct name##3 { type x, y, z; };                                                                              \
  struct alignas(align4) name##4 { type x, y, z, w; };                                                           \
  static inline name##2 make_##name##2(type x, type y) { return name##2{x, y}; }                                 \
  static inline name##3 make_##name##3(type x, type y, type z) { return name##3{x, y, z}; }                      \
  static inline name##4 make_##name##4(type x, type y, type z, type w) { return name##4{x, y, z, w}; }
EMULATOR_VECTORS(float, float, 8, 16)
EMULATOR_VECTORS(double, double, 16, 16)
EMULATOR_VECTORS(int, int, 8, 16)
EMULATOR_VECTORS(unsigned char, uchar, 2, 4)

struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
static inline uint2 make_uint2(unsigned x, unsigned y) { return uint2{x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return uint4{x, y, z, w}; }

// ---- barriers, votes and shuffles

#define __syncthreads() emulator_barrier(__FILE__, __LINE__)
#define EMULATOR_FIRST(first, ...) first
#define __syncwarp(...) emulator_warp_barrier(EMULATOR_FIRST(__VA_ARGS__ __VA_OPT__(,) 0xffffffffu), __FILE__, __LINE__)
#define __trap() emulator_trap(__FILE__, __LINE__)
#define __ballot_sync(mask, predicate) emulator_ballot(mask, (predicate) != 0, __FILE__, __LINE__)
#define __any_sync(mask, predicate) (int)(__ballot_sync(mask, predicate) != 0)
#define __all_sync(mask, predicate) (int)(__ballot_sync(mask, !(predicate)) == 0)
#define __shfl_sync(mask, value, lane, ...) \
  emulator_shuffle(mask, value, emulator_shuffle_lane(lane, ##__VA_ARGS__), __FILE__, __LINE__)
#define __shfl_up_sync(mask, value, delta, ...) \
  emulator_shuffle(mask, value, emulator_up_lane(delta, ##__VA_ARGS__), __FILE__, __LINE__)
#define __shfl_down_sync(mask, value, delta, ...) \
  emulator_shuffle(mask, value, emulator_down_lane(delta, ##__VA_ARGS__), __FILE__, __LINE__)
#define __shfl_xor_sync(mask, value, bits, ...) \
  emulator_shuffle(mask, value, emulator_xor_lane(bits, ##__VA_ARGS__), __FILE__, __LINE__)

template <typename T>
static inline T emulator_shuffle(unsigned mask, T value, int source, const char *file, int line) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof(T));
  bits = emulator_exchange(mask, bits, source, file, line);
  memcpy(&value, &bits, sizeof(T));
  return value;
}
// Within segments of `width` lanes; a lane outside its segment is replaced by the caller's own.
static inline int emulator_shuffle_lane(int lane, int width = 32) {
  return (emulator_thread()->lane & ~(width - 1)) + (lane & (width - 1));
}
static inline int emulator_up_lane(unsigned delta, int width = 32) {
  const int own = emulator_thread()->lane;
  return (int)delta <= (own & (width - 1)) ? own - (int)delta : own;
}
static inline int emulator_down_lane(unsigned delta, int width = 32) {
  const int own = emulator_thread()->lane;
  return (own & (width - 1)) + (int)delta < width ? own + (int)delta : own;
}
static inline int emulator_xor_lane(int bits, int width = 32) {
  const int own = emulator_thread()->lane, other = own ^ bits;
  return other < (own & ~(width - 1)) + width ? other : own;
}

static inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
static inline void __threadfence_block() { __threadfence(); }

// ---- atomics: whole, so that they never race

#define EMULATOR_ATOMIC template <typename T, typename V> __attribute__((no_sanitize("thread"))) static inline T

template <typename T, typename F>
__attribute__((no_sanitize("thread"))) static inline T emulator_atomic(T *address, F change) {
  typedef typename std::conditional<sizeof(T) == 8, uint64_t, uint32_t>::type Bits;
  Bits *bits = (Bits *)address, before = __atomic_load_n(bits, __ATOMIC_SEQ_CST), after;
  T value;
  do {
    memcpy(&value, &before, sizeof(T));
    const T changed = change(value);
    memcpy(&after, &changed, sizeof(T));
  } while (!__atomic_compare_exchange_n(bits, &before, after, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
  return value;
}
EMULATOR_ATOMIC atomicAdd(T *a, V b) { return emulator_atomic(a, [b](T v) { return (T)(v + (T)b); }); }
EMULATOR_ATOMIC atomicSub(T *a, V b) { return emulator_atomic(a, [b](T v) { return (T)(v - (T)b); }); }
EMULATOR_ATOMIC atomicExch(T *a, V b) { return emulator_atomic(a, [b](T) { return (T)b; }); }
EMULATOR_ATOMIC atomicMax(T *a, V b) { return emulator_atomic(a, [b](T v) { return v > (T)b ? v : (T)b; }); }
EMULATOR_ATOMIC atomicMin(T *a, V b) { return emulator_atomic(a, [b](T v) { return v < (T)b ? v : (T)b; }); }
EMULATOR_ATOMIC atomicAnd(T *a, V b) { return emulator_atomic(a, [b](T v) { return (T)(v & (T)b); }); }
EMULATOR_ATOMIC atomicOr(T *a, V b) { return emulator_atomic(a, [b](T v) { return (T)(v | (T)b); }); }
EMULATOR_ATOMIC atomicXor(T *a, V b) { return emulator_atomic(a, [b](T v) { return (T)(v ^ (T)b); }); }
template <typename T, typename C, typename V>
__attribute__((no_sanitize("thread"))) static inline T atomicCAS(T *address, C compare, V value) {
  return emulator_atomic(address, [=](T v) { return v == (T)compare ? (T)value : v; });
}

// ---- arithmetic

template <typename To, typename From>
static inline To emulator_bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "the same bits");
  To result;
  memcpy(&result, &value, sizeof(To));
  return result;
}
static inline float __int_as_float(int v) { return emulator_bits<float>(v); }
static inline int __float_as_int(float v) { return emulator_bits<int>(v); }
static inline float __uint_as_float(unsigned v) { return emulator_bits<float>(v); }
static inline unsigned __float_as_uint(float v) { return emulator_bits<unsigned>(v); }
static inline double __longlong_as_double(long long v) { return emulator_bits<double>(v); }
static inline long long __double_as_longlong(double v) { return emulator_bits<long long>(v); }

static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((uint64_t)a * b) >> 32); }
static inline int __mulhi(int a, int b) { return (int)(((int64_t)a * b) >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
static inline int __clz(int v) { return v == 0 ? 32 : __builtin_clz((unsigned)v); }
static inline int __clzll(long long v) { return v == 0 ? 64 : __builtin_clzll((unsigned long long)v); }
// Byte i of the result is the one of the eight in (b, a) that hexadecimal digit i of `selector` names.
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const uint64_t bytes = (uint64_t)b << 32 | a;
  unsigned result = 0;
  for (int i = 0; i < 4; ++i) result |= (unsigned)(bytes >> 8 * (selector >> 4 * i & 7) & 0xFF) << 8 * i;
  return result;
}
static inline int __ffs(int v) { return __builtin_ffs(v); }
static inline int __popc(unsigned v) { return __builtin_popcount(v); }
static inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }

// Half precision by scaling: 2^112 moves a half's exponent to a float's, subnormals included.
static inline float emulator_half_to_float(unsigned short half) {
  const unsigned magnitude = (half & 0x7FFFu) << 13;
  const float value = (half & 0x7C00) == 0x7C00 ? __uint_as_float(magnitude | 0x7F800000u)
                                                : __uint_as_float(magnitude) * 0x1p112f;
  return half & 0x8000 ? -value : value;
}
static inline unsigned short emulator_float_to_half(float value) {
  const unsigned sign = __float_as_uint(value) >> 16 & 0x8000;
  const float size = fabsf(value);
  if (size != size) return (unsigned short)(sign | 0x7FFF);
  if (size >= 65520.f) return (unsigned short)(sign | 0x7C00);
  // Adding a power of two rounds to the nearest half, ties to even: the sum's last bit is the half's.
  int exponent;
  frexpf(size, &exponent);
  const float unit = ldexpf(1.f, (exponent < -13 ? -13 : exponent) - 11 + 23);
  const float rounded = size + unit - unit;
  return (unsigned short)(sign | __float_as_uint(rounded * 0x1p-112f) >> 13);
}

#define EMULATOR_MIN_MAX(type)                                          \
  static inline type min(type a, type b) { return b < a ? b : a; }      \
  static inline type max(type a, type b) { return a < b ? b : a; }
EMULATOR_MIN_MAX(int)
EMULATOR_MIN_MAX(unsigned)
EMULATOR_MIN_MAX(long)
EMULATOR_MIN_MAX(unsigned long)
EMULATOR_MIN_MAX(long long)
EMULATOR_MIN_MAX(unsigned long long)
// Of a number and a NaN, CUDA takes the number.
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

static inline float rsqrtf(float v) { return 1.f / sqrtf(v); }
static inline double rsqrt(double v) { return 1. / sqrt(v); }
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __frcp_rn(float v) { return 1.f / v; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fsqrt_rn(float v) { return sqrtf(v); }
static inline float __saturatef(float v) { return fminf(fmaxf(v, 0.f), 1.f); }
static inline float __uint2float_rn(unsigned v) { return (float)v; }
static inline float __int2float_rn(int v) { return (float)v; }
// The quick forms, to full precision: <cmath> has names of its own for some of them.
#define __expf(v) expf(v)
#define __exp2f(v) exp2f(v)
#define __logf(v) logf(v)
#define __log2f(v) log2f(v)
#define __powf(a, b) powf(a, b)
#define __sinf(v) sinf(v)
#define __cosf(v) cosf(v)
#define __tanf(v) tanf(v)

template <typename T>
static inline T __ldg(const T *address) {
  return *address;
}

// ---- how the emulator calls a kernel

namespace emulator {

template <typename... A, size_t... I>
inline void call(void (*kernel)(A...), void **arguments, std::index_sequence<I...>) {
  kernel(*(typename std::remove_reference<A>::type *)arguments[I]...);
}

template <typename F, F *kernel>
struct Caller;

template <typename... A, void (*kernel)(A...)>
struct Caller<void(A...), kernel> {
  static constexpr int count = sizeof...(A);
  static inline const size_t sizes[sizeof...(A) + 1] = {sizeof(A)..., 0};
  static void run(void **arguments) { call(kernel, arguments, std::index_sequence_for<A...>()); }
};

}  // namespace emulator
