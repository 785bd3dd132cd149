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
// are aligned to the size of the copy. Asynchronous from compute capability 8.0 on; complete after wait_for_copies().
// Inline PTX stays in this file: under CUDA_EMULATOR (docs/testing.md) these functions call the emulator instead.
template <int kFloats>
__device__ __forceinline__ void copy_or_zero(float *shared, const float *global, bool valid) {
#if defined(CUDA_EMULATOR) && __CUDA_ARCH__ >= 800
  emulator_copy_async(shared, global, 4 * kFloats, valid);
#elif __CUDA_ARCH__ >= 800
  const unsigned address = (unsigned)__cvta_generic_to_shared(shared);
  const int bytes = valid ? 4 * kFloats : 0;
  if (kFloats == 4)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(global), "r"(bytes) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(address), "l"(global), "r"(bytes) : "memory");
#else
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
