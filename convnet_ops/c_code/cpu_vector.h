// The vector that the CPU kernels compute with: as wide as the processor's registers.
#ifndef CONVNET_OPS_CPU_VECTOR_H
#define CONVNET_OPS_CPU_VECTOR_H

#include <cstring>

#include <numpy/npy_common.h>

#if defined(__AVX512F__)
#define CONVNET_VECTOR_BYTES 64
#elif defined(__AVX__)
#define CONVNET_VECTOR_BYTES 32
#else
#define CONVNET_VECTOR_BYTES 16
#endif

// Under this many multiplications starting threads costs more than it saves.
#define CONVNET_SERIAL_WORK 200000

// Copies `count` values. Small batches make many short copies; those of a constant size compile to a move or two.
template <typename T>
static inline void copy_values(T *target, const T *source, npy_int64 count) {
  if (count == 8)
    memcpy(target, source, 8 * sizeof(T));
  else if (count == 16)
    memcpy(target, source, 16 * sizeof(T));
  else if (count == 32)
    memcpy(target, source, 32 * sizeof(T));
  else if (count > 32)
    memcpy(target, source, count * sizeof(T));
  else
    for (npy_int64 i = 0; i < count; ++i) target[i] = source[i];
}

template <typename T>
struct VectorOf {
  // Aligned like a scalar, so that it may be loaded from anywhere.
  typedef T type __attribute__((vector_size(CONVNET_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
  static const int lanes = CONVNET_VECTOR_BYTES / sizeof(T);
};

#endif
