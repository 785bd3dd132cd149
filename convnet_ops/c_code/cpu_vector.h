// The vector that the CPU kernels compute with: as wide as the processor's registers.
#ifndef CONVNET_OPS_CPU_VECTOR_H
#define CONVNET_OPS_CPU_VECTOR_H

#if defined(__AVX512F__)
#define CONVNET_VECTOR_BYTES 64
#elif defined(__AVX__)
#define CONVNET_VECTOR_BYTES 32
#else
#define CONVNET_VECTOR_BYTES 16
#endif

// Under this many multiplications starting threads costs more than it saves.
#define CONVNET_SERIAL_WORK 200000

template <typename T>
struct VectorOf {
  // Aligned like a scalar, so that it may be loaded from anywhere.
  typedef T type __attribute__((vector_size(CONVNET_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
  static const int lanes = CONVNET_VECTOR_BYTES / sizeof(T);
};

#endif
