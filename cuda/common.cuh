// What all kernels share. Sources are joined as text before compilation: NVRTC finds no header of ours or of CUDA's.

template <typename T>
__device__ __forceinline__ T *offset_pointer(T *base, size_t bytes) {
  return (T *)((char *)base + bytes);
}

// Division by a number that the host knows: one multiplication and a shift, for dividends in [0, 2^31).
// make_divisor() in c_code/divisor.h computes the constants; device_divisor() does so in the kernel.
struct Divisor {
  int value;
  unsigned multiplier;
  int shift;

  __device__ __forceinline__ int quotient(int dividend) const {
    return value == 1 ? dividend : (int)(__umulhi((unsigned)dividend, multiplier) >> shift);
  }

  __device__ __forceinline__ int divide(int dividend, int &remainder) const {
    const int result = quotient(dividend);
    remainder = dividend - result * value;
    return result;
  }
};

// As make_divisor: some 70 instructions, for what only a block knows.
__device__ __forceinline__ Divisor device_divisor(int value) {
  Divisor divisor = {value, 0, 0};
  if (value > 1) {
    const int log = 32 - __clz(value - 1);
    divisor.multiplier = (unsigned)(((1ull << (31 + log)) + value - 1) / value);
    divisor.shift = log - 1;
  }
  return divisor;
}

// kVec (1 or 4) adjacent floats or ints, moved at once; 4 of them want an address divisible by 16.
template <int kVec, typename T = float>
struct Values {
  T value[kVec];
};

template <int kVec, typename T>
__device__ __forceinline__ Values<kVec, T> load_values(const T *source) {
  Values<kVec, T> result;
  if (kVec == 4) {
    *(float4 *)result.value = *(const float4 *)source;
  } else {
    result.value[0] = *source;
  }
  return result;
}

template <int kVec, typename T>
__device__ __forceinline__ void store_values(T *target, const Values<kVec, T> &values) {
  if (kVec == 4) {
    *(float4 *)target = *(const float4 *)values.value;
  } else {
    *target = values.value[0];
  }
}

template <int kVec>
__device__ __forceinline__ Values<kVec> all_values(float value) {
  Values<kVec> result;
#pragma unroll
  for (int j = 0; j < kVec; ++j) result.value[j] = value;
  return result;
}

// Copies kFloats (1 or 4) floats from global to shared memory, or stores zeros where `valid` is false. Both addresses
// are aligned to the size of the copy. Where `wanted` is false nothing happens, without a branch, so that the compiler may move
// instructions past the copy. Asynchronous from compute capability 8.0 on; complete after wait_for_copies().
// Inline PTX stays in this file: under CUDA_EMULATOR (docs/testing.md) these functions call the emulator instead.
template <int kFloats>
__device__ __forceinline__ void copy_or_zero(float *shared, const float *global, bool valid, bool wanted = true) {
#if defined(CUDA_EMULATOR) && __CUDA_ARCH__ >= 800
  if (wanted) emulator_copy_async(shared, global, 4 * kFloats, valid);
#elif __CUDA_ARCH__ >= 800
  const unsigned address = (unsigned)__cvta_generic_to_shared(shared);
  const int bytes = valid ? 4 * kFloats : 0;
  if (kFloats == 4)
    asm volatile("{.reg .pred p; setp.ne.s32 p, %3, 0; @p cp.async.cg.shared.global [%0], [%1], 16, %2;}" ::"r"(address),
                 "l"(global), "r"(bytes), "r"((int)wanted)
                 : "memory");
  else
    asm volatile("{.reg .pred p; setp.ne.s32 p, %3, 0; @p cp.async.ca.shared.global [%0], [%1], 4, %2;}" ::"r"(address),
                 "l"(global), "r"(bytes), "r"((int)wanted)
                 : "memory");
#else
  if (!wanted) return;
  if (kFloats == 4)
    *(float4 *)shared = valid ? *(const float4 *)global : make_float4(0.f, 0.f, 0.f, 0.f);
  else
    *shared = valid ? *global : 0.f;
#endif
}

// Ends a batch of copies. Every thread calls it for every batch, empty ones too.
__device__ __forceinline__ void commit_copies() {
#if defined(CUDA_EMULATOR) && __CUDA_ARCH__ >= 800
  emulator_commit_copies();
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most kPending of this thread's batches are under way.
template <int kPending>
__device__ __forceinline__ void wait_for_copies() {
#if defined(CUDA_EMULATOR) && __CUDA_ARCH__ >= 800
  emulator_wait_for_copies(kPending);
#elif __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// The mask of what tensor cores read of a TF32 operand: sign, exponent and 10 bits of fraction. That it is made of
// blockDim.y, which is 1, hides it from the compiler: where that knows that a multiplication drops the other bits anyway,
// it drops the masking, and has to copy every operand to where the multiplication wants it, once for each use.
__device__ __forceinline__ unsigned tf32_mask() { return 0xFFFFE000u | (blockDim.y - 1); }

// Before and after a warp's multiply_tf32(): `operands` holds the a and b of all of them. On a card nothing happens; the
// emulator learns where the other lanes' operands are.
__device__ __forceinline__ void begin_tf32(const void *operands) {
#if defined(CUDA_EMULATOR)
  emulator_begin_tf32(operands);
#endif
}

__device__ __forceinline__ void end_tf32() {
#if defined(CUDA_EMULATOR)
  emulator_end_tf32();
#endif
}

// c += a * b by a warp's tensor cores: a 16 x 8, b 8 x 8, c 16 x 8. With g = lane / 4 and t = lane % 4 a lane holds
// a[0..3] at (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4), b[0..1] at (t, g), (t + 4, g) and c[0..3] at (g, 2 t),
// (g, 2 t + 1), (g + 8, 2 t), (g + 8, 2 t + 1). Of a and b only the TF32 part is read: the rest of their bits is cut off.
// The sum is rounded toward zero. Compute capability 8.0 and later; kernels that use it are not launched on older cards.
__device__ __forceinline__ void multiply_tf32(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
#if defined(CUDA_EMULATOR)
  emulator_multiply_tf32(c, a, b);
#elif __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])),
        "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
#endif
}

// c += a * b of halves (float16), a word holding two that are adjacent in k: a 16 x 16, b 16 x 8, c 16 x 8. Words lie in the
// lanes as the floats of multiply_tf32() do, between begin_tf32() and end_tf32() too. The sum is rounded toward zero.
__device__ __forceinline__ void multiply_halves(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
#if defined(CUDA_EMULATOR)
  emulator_multiply_halves(c, a, b);
#elif __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])), "r"(__float_as_uint(a[3])),
        "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
#endif
}

// A word of two numbers rounded to halves. Compute capability 8.0 and later, as above.
__device__ __forceinline__ float two_halves(float first, float second) {
#if defined(CUDA_EMULATOR)
  return __uint_as_float(emulator_float_to_half(first) | (unsigned)emulator_float_to_half(second) << 16);
#elif __CUDA_ARCH__ >= 800
  unsigned word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  return __uint_as_float(word);
#else
  return 0.f;
#endif
}

// 2^exponent, for exponents from -126 to 127.
__device__ __forceinline__ float power_of_two(int exponent) { return __int_as_float((exponent + 127) << 23); }

// The power of two that an array is multiplied by where it is stored as halves, from the bits of its largest finite magnitude:
// that comes to lie in [2^14, 2^15), so that rounding makes no infinity of it, and what is no smaller than 2^-28 of it keeps
// 11 bits. Of an array below 2^-112, where 2^126 is not enough, fewer binades do.
__device__ __forceinline__ int half_exponent(int largest) {
  return largest == 0 ? 0 : min(14 + 127 - (largest >> 23), 126);
}

// What makes up for that in the sums of products of two arrays, whose largest magnitudes are given. Both powers at once may be
// no float, and one after the other may leave the floats on the way to a sum that is one: two steps of half the way do not.
struct HalfScale {
  float first, second;
  __device__ __forceinline__ explicit HalfScale(const int *largest) {
    const int exponent = -half_exponent(largest[0]) - half_exponent(largest[1]);
    first = power_of_two(exponent / 2);
    second = power_of_two(exponent - exponent / 2);
  }
  template <int kRows, int kColumns>
  __device__ __forceinline__ void undo(float (&sum)[kRows][kColumns]) const {
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int j = 0; j < kColumns; ++j) sum[i][j] = sum[i][j] * first * second;
  }
};
