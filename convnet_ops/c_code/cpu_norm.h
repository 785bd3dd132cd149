// Response normalisation on the CPU; see cuda/response_norm.cu. The positions (row, column, image) are adjacent in memory;
// a thread takes strips of them through all channels, so that what a window reads again is still in the cache.
#ifndef CONVNET_OPS_CPU_NORM_H
#define CONVNET_OPS_CPU_NORM_H

#include <algorithm>
#include <cmath>

#include "cpu_vector.h"
#include "norm_shape.h"

const npy_int64 kStrip = 256;

// out[i] = base[i] ** -exponent. The common exponents are roots, which a processor computes in vectors.
template <typename T>
static inline void negative_power(npy_int64 count, const T *base, double exponent, T *out) {
  if (exponent == 0.75)
    for (npy_int64 i = 0; i < count; ++i) out[i] = T(1) / (std::sqrt(base[i]) * std::sqrt(std::sqrt(base[i])));
  else if (exponent == 0.5)
    for (npy_int64 i = 0; i < count; ++i) out[i] = T(1) / std::sqrt(base[i]);
  else if (exponent == 1)
    for (npy_int64 i = 0; i < count; ++i) out[i] = T(1) / base[i];
  else
    for (npy_int64 i = 0; i < count; ++i) out[i] = std::pow(base[i], (T)-exponent);
}

// Calls visit(offset, count) for each strip.
template <typename Visit>
static inline void for_each_strip(const npy_int64 *dims, Visit visit) {
  const npy_int64 positions = dims[1] * dims[2] * dims[3], strips = (positions + kStrip - 1) / kStrip;
#pragma omp parallel for schedule(static) if (dims[0] * positions > CONVNET_SERIAL_WORK)
  for (npy_int64 strip = 0; strip < strips; ++strip)
    visit(strip * kStrip, std::min(kStrip, positions - strip * kStrip));
}

// Calls emit(f, sum) for each channel; add(c, sum) adds channel c's terms to the strip `sum`. A block's sum is made once.
template <typename T, typename Add, typename Emit>
static inline void window_sums(npy_int64 channels, const ChannelWindow &w, npy_int64 count, Add add, Emit emit) {
  T sum[kStrip];
  npy_int64 summed = -1;
  for (npy_int64 f = 0; f < channels; ++f) {
    const npy_int64 begin = window_begin(w, f), end = window_end(w, f, channels);
    if (w.block == 0 || begin != summed) {
      for (npy_int64 i = 0; i < count; ++i) sum[i] = 0;
      for (npy_int64 c = begin; c < end; ++c) add(c, sum);
      summed = begin;
    }
    emit(f, sum);
  }
}

template <typename T>
static void cross_map_norm(const npy_int64 *dims, const ChannelWindow &w, T add_scale, double pow_scale, const T *images,
                           T *acts, T *denoms) {
  const npy_int64 positions = dims[1] * dims[2] * dims[3];
  for_each_strip(dims, [&](npy_int64 offset, npy_int64 count) {
    window_sums<T>(
        dims[0], w, count,
        [&](npy_int64 c, T *sum) {
          const T *source = images + c * positions + offset;
          for (npy_int64 i = 0; i < count; ++i) sum[i] += source[i] * source[i];
        },
        [&](npy_int64 f, const T *sum) {
          const npy_int64 at = f * positions + offset;
          T powers[kStrip];
          for (npy_int64 i = 0; i < count; ++i) denoms[at + i] = T(1) + add_scale * sum[i];
          negative_power(count, denoms + at, pow_scale, powers);
          for (npy_int64 i = 0; i < count; ++i) acts[at + i] = images[at + i] * powers[i];
        });
  });
}

// acts and out_acts may be the same array.
template <typename T>
static void cross_map_norm_undo(const npy_int64 *dims, const ChannelWindow &w, T add_scale, double pow_scale,
                                const T *images, const T *acts, const T *denoms, const T *grads, T *out, T *out_acts) {
  const npy_int64 positions = dims[1] * dims[2] * dims[3];
  const T scale = (T)(-2 * pow_scale) * add_scale;
  for_each_strip(dims, [&](npy_int64 offset, npy_int64 count) {
    for (npy_int64 c = 0; c < dims[0]; ++c) {
      const npy_int64 at = c * positions + offset;
      for (npy_int64 i = 0; i < count; ++i) out_acts[at + i] = scale * grads[at + i] * acts[at + i] / denoms[at + i];
    }
    window_sums<T>(
        dims[0], w, count,
        [&](npy_int64 c, T *sum) {
          const T *source = out_acts + c * positions + offset;
          for (npy_int64 i = 0; i < count; ++i) sum[i] += source[i];
        },
        [&](npy_int64 f, const T *sum) {
          const npy_int64 at = f * positions + offset;
          T powers[kStrip];
          negative_power(count, denoms + at, pow_scale, powers);
          for (npy_int64 i = 0; i < count; ++i) out[at + i] = grads[at + i] * powers[i] + images[at + i] * sum[i];
        });
  });
}

template <typename T>
static void cross_map_sum(const npy_int64 *dims, const ChannelWindow &w, const T *images, T *out) {
  const npy_int64 positions = dims[1] * dims[2] * dims[3];
  for_each_strip(dims, [&](npy_int64 offset, npy_int64 count) {
    window_sums<T>(
        dims[0], w, count,
        [&](npy_int64 c, T *sum) {
          const T *source = images + c * positions + offset;
          for (npy_int64 i = 0; i < count; ++i) sum[i] += source[i];
        },
        [&](npy_int64 f, const T *sum) { copy_values(out + f * positions + offset, sum, count); });
  });
}

#endif
