// Probabilistic max-pooling on the CPU; see cuda/probabilistic_max_pooling.cu.
#ifndef CONVNET_OPS_CPU_PROB_POOL_H
#define CONVNET_OPS_CPU_PROB_POOL_H

#include <algorithm>
#include <cmath>

#include "cpu_pool.h"

// e ** (value - greatest); equal infinities are equal.
template <typename T>
static inline T shifted_exp(T value, T greatest) {
  return value == greatest ? T(1) : std::exp(value - greatest);
}

// Images of a block that are computed at once.
const npy_int64 kProbImages = 256;

// The probabilities of a block, for some images: off, of no pixel, and on, of any. A pixel's is its exp times scale. The
// exps are left in `exps`, where the output will be: to compute one again takes longer than all the rest.
template <typename T>
struct ProbBlock {
  T scale[kProbImages], off[kProbImages], on[kProbImages];

  ProbBlock(const PoolShape &s, npy_int64 channel, const PoolWindow &w, const T *z, const T *top_down, npy_int64 count,
            T *exps) {
    T greatest[kProbImages];
    for (npy_int64 i = 0; i < count; ++i) {
      greatest[i] = -top_down[i];
      on[i] = 0;
    }
    for_each_pixel(s, channel, w, [&](npy_int64 at) {
      for (npy_int64 i = 0; i < count; ++i)
        greatest[i] = z[at + i] > greatest[i] || z[at + i] != z[at + i] ? z[at + i] : greatest[i];
    });
    for_each_pixel(s, channel, w, [&](npy_int64 at) {
      for (npy_int64 i = 0; i < count; ++i) on[i] += exps[at + i] = shifted_exp(z[at + i], greatest[i]);
    });
    for (npy_int64 i = 0; i < count; ++i) {
      off[i] = shifted_exp(-top_down[i], greatest[i]);
      scale[i] = T(1) / (off[i] + on[i]);
      off[i] *= scale[i];
      on[i] *= scale[i];
    }
  }
};

// Calls visit(offset of the outputs, channel, window, first image, how many) for parts of every block.
template <typename Visit>
static inline void for_each_prob_block(const PoolShape &s, Visit visit) {
  for_each_window(s, [&](npy_int64 top, npy_int64 channel, const PoolWindow &w) {
    for (npy_int64 first = 0; first < s.n; first += kProbImages)
      visit(top + first, channel, w, first, std::min(kProbImages, s.n - first));
  });
}

// h must be zero: so it stays where no block is.
template <typename T>
static void prob_max_pool(const PoolShape &s, const T *z, const T *top_down, T *p, T *h) {
  for_each_prob_block(s, [&](npy_int64 top, npy_int64 channel, const PoolWindow &w, npy_int64 first, npy_int64 count) {
    const ProbBlock<T> block(s, channel, w, z + first, top_down + top, count, h + first);
    copy_values(p + top, block.on, count);
    for_each_pixel(s, channel, w, [&](npy_int64 at) {
      for (npy_int64 i = 0; i < count; ++i) h[at + first + i] *= block.scale[i];
    });
  });
}

// z_out must be zero.
template <typename T>
static void prob_max_pool_grad(const PoolShape &s, const T *z, const T *top_down, const T *p_grads, const T *h_grads,
                               T *z_out, T *top_down_out) {
  for_each_prob_block(s, [&](npy_int64 top, npy_int64 channel, const PoolWindow &w, npy_int64 first, npy_int64 count) {
    const ProbBlock<T> block(s, channel, w, z + first, top_down + top, count, z_out + first);
    T sum[kProbImages];
    for (npy_int64 i = 0; i < count; ++i) sum[i] = 0;
    for_each_pixel(s, channel, w, [&](npy_int64 at) {
      for (npy_int64 i = 0; i < count; ++i) {
        z_out[at + first + i] *= block.scale[i];
        sum[i] += z_out[at + first + i] * h_grads[at + first + i];
      }
    });
    for (npy_int64 i = 0; i < count; ++i)
      top_down_out[top + i] = block.off[i] * (block.on[i] * p_grads[top + i] + sum[i]);
    for_each_pixel(s, channel, w, [&](npy_int64 at) {
      for (npy_int64 i = 0; i < count; ++i) {
        const T change = h_grads[at + first + i] + (block.off[i] * p_grads[top + i] - sum[i]);
        z_out[at + first + i] *= change;
      }
    });
  });
}

#endif
