// Stochastic and weighted pooling on the CPU; see cuda/stochastic_pool.cu.
#ifndef CONVNET_OPS_CPU_STOCHASTIC_POOL_H
#define CONVNET_OPS_CPU_STOCHASTIC_POOL_H

#include <algorithm>

#include "cpu_pool.h"
#include "philox.h"

// Images that are drawn for at once: what is kept of each stays in the cache.
const npy_int64 kDraws = 256;

// What a value weighs. A scale of 0 says that the window has infinite values, which then share.
template <typename T>
static inline T weight_of(T value, T scale) {
  if (scale == 0) return value == std::numeric_limits<T>::infinity() ? T(1) : T(0);
  return (value < 0 ? T(0) : value) * scale;
}

template <typename T>
static inline T sum_weights(const PoolShape &s, npy_int64 channel, const PoolWindow &w, const T *images, npy_int64 i,
                            T scale) {
  T sum = 0;
  for_each_pixel(s, channel, w, [&](npy_int64 at) { sum += weight_of(images[at + i], scale); });
  return sum;
}

template <typename T>
static void stochastic_max_pool(const PoolShape &s, uint64_t seed, uint64_t draw, const T *images, T *out,
                                npy_int32 *positions) {
  const T infinity = std::numeric_limits<T>::infinity();
  for_each_window(s, [&](npy_int64 top, npy_int64 channel, const PoolWindow &w) {
    const npy_int64 y = top / s.n / s.out_cols % s.out_rows, x = top / s.n % s.out_cols;
    for (npy_int64 first = 0; first < s.n; first += kDraws) {
      const npy_int64 count = std::min(kDraws, s.n - first);
      T *values = out + top + first;
      npy_int32 *numbers = positions + top + first;
      T sum[kDraws], scale[kDraws], threshold[kDraws], before[kDraws];
      for (npy_int64 i = 0; i < count; ++i) sum[i] = before[i] = 0;
      for_each_pixel(s, channel, w, [&](npy_int64 at) {
        const T *pixel = images + at + first;
        for (npy_int64 i = 0; i < count; ++i) sum[i] += pixel[i] < 0 ? T(0) : pixel[i];
      });
      unit_intervals(seed, draw, top + first, count, threshold);
      bool plain = true;
      for (npy_int64 i = 0; i < count; ++i) {
        scale[i] = 1;
        if (sum[i] == infinity) {
          // An infinite value, or a sum beyond T, which 2^-64 brings back.
          plain = false;
          sum[i] = sum_weights(s, channel, w, images, first + i, scale[i] = 0);
          if (sum[i] == 0)
            sum[i] = sum_weights(s, channel, w, images, first + i, scale[i] = (T)5.42101086242752217e-20);
        }
        threshold[i] *= sum[i];
        values[i] = sum[i] != sum[i] ? sum[i] : T(0);
        numbers[i] = -1;
      }
      // The last value of weight whose predecessors weigh no more than the threshold.
      for_each_pixel(s, channel, w, [&](npy_int64 at) {
        const T *pixel = images + at + first;
        const npy_int64 place = at / s.n % (s.rows * s.cols);
        const npy_int32 number = (npy_int32)((place / s.cols - s.start_y - y * s.stride_y) * s.ds_x + place % s.cols -
                                             s.start_x - x * s.stride_x);
        const auto visit = [&](npy_int64 i, T weight) {
          const bool taken = weight > 0 && before[i] <= threshold[i];
          values[i] = taken ? pixel[i] : values[i];
          numbers[i] = taken ? number : numbers[i];
          before[i] += weight;
        };
        if (plain)
          for (npy_int64 i = 0; i < count; ++i) visit(i, pixel[i] < 0 ? T(0) : pixel[i]);
        else
          for (npy_int64 i = 0; i < count; ++i) visit(i, weight_of(pixel[i], scale[i]));
      });
    }
  });
}

// Where image i's number in a window leads: the offset from the images of its channel, or -1 for none.
static inline npy_int64 drawn_pixel(const PoolShape &s, npy_int64 y, npy_int64 x, npy_int32 number) {
  if (number < 0) return -1;
  const npy_int64 row = s.start_y + y * s.stride_y + number / s.ds_x, col = s.start_x + x * s.stride_x + number % s.ds_x;
  // Whatever the positions hold, nothing outside the image is touched.
  if (row < 0 || row >= s.rows || col < 0 || col >= s.cols) return -1;
  return (row * s.cols + col) * s.n;
}

// Positions as integers as wide as T, so that a comparison with them selects among T.
template <typename Vector>
static inline auto load_positions(Vector, const npy_int32 *from) {
  typedef typename Vector::Values Values;
  decltype(Values() == Values()) positions = {};
  for (int i = 0; i < Vector::lanes; ++i) positions[i] = from[i];
  return positions;
}

template <typename T>
static void stochastic_max_pool_grad(const PoolShape &s, const npy_int32 *positions, const T *grads, T *out) {
  const auto number = [&](npy_int64 y, npy_int64 x, npy_int64 oy, npy_int64 ox) {
    return (npy_int32)((y - s.start_y - oy * s.stride_y) * s.ds_x + x - s.start_x - ox * s.stride_x);
  };
  sum_over_windows(s, out, number, [&](auto vector, npy_int64) {
    const auto zero = vector.all(0);
    return [=](npy_int64 top, npy_int32 number) {
      return load_positions(vector, positions + top) == number ? vector.load(grads + top) : zero;
    };
  });
}

template <typename T>
static void stochastic_max_pool_rop(const PoolShape &s, const T *direction, const npy_int32 *positions, T *out) {
  for_each_window(s, [&](npy_int64 top, npy_int64 channel, const PoolWindow &) {
    const npy_int64 y = top / s.n / s.out_cols % s.out_rows, x = top / s.n % s.out_cols;
    const T *const first = direction + channel * s.rows * s.cols * s.n;
    for (npy_int64 i = 0; i < s.n; ++i) {
      const npy_int64 pixel = drawn_pixel(s, y, x, positions[top + i]);
      out[top + i] = pixel < 0 ? T(0) : first[pixel + i];
    }
  });
}

template <typename T>
static void weighted_max_pool(const PoolShape &s, const T *images, T *out, T *sums) {
  for_each_window(s, [&](npy_int64 top, npy_int64 channel, const PoolWindow &w) {
    for_each_vector<T>(s.n, [&](auto vector, npy_int64 i) {
      const auto zero = vector.all(0);
      auto sum = zero, squares = zero;
      for_each_pixel(s, channel, w, [&](npy_int64 at) {
        const auto pixel = vector.load(images + at + i), weight = pixel < zero ? zero : pixel;
        sum += weight;
        squares += weight * weight;
      });
      vector.store(sums + top + i, sum);
      vector.store(out + top + i, sum == zero ? zero : squares / sum);
    });
  });
}

template <typename T>
static void weighted_max_pool_grad(const PoolShape &s, const T *images, const T *weighted, const T *sums, const T *grads,
                                   T *out) {
  sum_over_windows(s, out, NoWindow(), [&](auto vector, npy_int64 at) {
    const auto pixel = vector.load(images + at), zero = vector.all(0);
    return [=](npy_int64 top, int) {
      const auto sum = vector.load(sums + top);
      const auto scaled = sum == zero ? zero : vector.load(grads + top) / sum;
      // Nothing where the gradient is 0, also for infinite pixels.
      return (pixel < zero) | (scaled == zero) ? zero : scaled * (2 * pixel - vector.load(weighted + top));
    };
  });
}

#endif
