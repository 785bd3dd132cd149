// Max, average and sum pooling on the CPU; see cuda/pool.cu. A vector of images, which are adjacent in memory, stays in
// registers from the first pixel of a window to the last, in a gradient from the first window of a pixel to the last:
// every array is read from memory once and written once.
#ifndef CONVNET_OPS_CPU_POOL_H
#define CONVNET_OPS_CPU_POOL_H

#include <algorithm>
#include <limits>
#include <type_traits>

#include "cpu_vector.h"
#include "pool_shape.h"

struct PoolWindow {
  npy_int64 y_begin, y_end, x_begin, x_end;
};

static inline PoolWindow pool_window(const PoolShape &s, npy_int64 y, npy_int64 x) {
  const npy_int64 top = s.start_y + y * s.stride_y, left = s.start_x + x * s.stride_x;
  const PoolWindow w = {top < 0 ? 0 : top, top + s.ds_y < s.rows ? top + s.ds_y : s.rows, left < 0 ? 0 : left,
                        left + s.ds_x < s.cols ? left + s.ds_x : s.cols};
  return w;
}

static inline npy_int64 pixel_count(const PoolWindow &w) { return (w.y_end - w.y_begin) * (w.x_end - w.x_begin); }

// What all windows read: whether threads are worth starting.
static inline bool much_to_pool(const PoolShape &s) {
  return s.channels * s.out_rows * s.out_cols * s.ds_y * s.ds_x * s.n > CONVNET_SERIAL_WORK;
}

// Calls visit(offset of the output's first image, channel, window) for every output; rows of outputs go to threads.
template <typename Visit>
static inline void for_each_window(const PoolShape &s, Visit visit) {
#pragma omp parallel for schedule(static) if (much_to_pool(s))
  for (npy_int64 row = 0; row < s.channels * s.out_rows; ++row)
    for (npy_int64 x = 0; x < s.out_cols; ++x)
      visit((row * s.out_cols + x) * s.n, row / s.out_rows, pool_window(s, row % s.out_rows, x));
}

// Calls visit(offset of the pixel's first image) for each pixel of a window, row by row.
template <typename Visit>
static inline void for_each_pixel(const PoolShape &s, npy_int64 channel, const PoolWindow &w, Visit visit) {
  npy_int64 row = ((channel * s.rows + w.y_begin) * s.cols + w.x_begin) * s.n;
  for (npy_int64 y = w.y_begin; y < w.y_end; ++y, row += s.cols * s.n) {
    npy_int64 at = row;
    for (npy_int64 x = w.x_begin; x < w.x_end; ++x, at += s.n) visit(at);
  }
}

// kBytes of adjacent images. A single one is the first lane of a vector: vectors select without branches, and took half
// the time of scalars.
template <typename T, int kBytes>
struct ImageVector {
  typedef T Values __attribute__((vector_size(kBytes > (int)sizeof(T) ? kBytes : 16)));
  static const int lanes = kBytes / sizeof(T);

  static inline Values all(T value) { return Values() + value; }
  static inline Values load(const T *from) {
    Values values = {*from};
    if (lanes > 1) memcpy(&values, from, sizeof values);
    return values;
  }
  static inline void store(T *to, const Values &values) {
    if (lanes > 1)
      memcpy(to, &values, sizeof values);
    else
      *to = values[0];
  }
};

// Calls visit(an ImageVector, its first image) until each of n images was in one; they are the widest that n fills. The
// last may overlap the one before: what is computed twice must come out the same.
template <typename T, int kBytes = CONVNET_VECTOR_BYTES, typename Visit>
static inline void for_each_vector(npy_int64 n, Visit visit) {
  typedef ImageVector<T, kBytes> Vector;
  if (n < Vector::lanes) return for_each_vector<T, (Vector::lanes > 1 ? kBytes / 2 : kBytes)>(n, visit);
  npy_int64 i = 0;
  for (; i + Vector::lanes <= n; i += Vector::lanes) visit(Vector(), i);
  if (i < n) visit(Vector(), n - Vector::lanes);
}

// The outputs whose windows reach a pixel, in one direction.
struct Reach {
  npy_int64 begin, end;
};

static inline Reach pool_reach(npy_int64 pixel, npy_int64 start, npy_int64 ds, npy_int64 stride, npy_int64 outputs) {
  const npy_int64 at = pixel - start;
  const Reach r = {at < ds ? 0 : (at - ds) / stride + 1, at < 0 ? 0 : std::min(at / stride + 1, outputs)};
  return r;
}

// out = for each pixel the sum over the windows that reach it, row by row, of term(offset of the output, window), where
// term = term_of(an ImageVector, offset of the pixel) and window = window_of(row and column of the pixel, those of the
// output). Rows of pixels go to threads.
template <typename T, typename WindowOf, typename TermOf>
static inline void sum_over_windows(const PoolShape &s, T *out, WindowOf window_of, TermOf term_of) {
  const std::integral_constant<npy_int64, 1> one = {};
  const std::integral_constant<npy_int64, 2> two = {};
#pragma omp parallel for schedule(static) if (much_to_pool(s))
  for (npy_int64 row = 0; row < s.channels * s.rows; ++row) {
    const npy_int64 y = row % s.rows, channel = row / s.rows;
    const Reach ys = pool_reach(y, s.start_y, s.ds_y, s.stride_y, s.out_rows);
    const npy_int64 top_row = (channel * s.out_rows + ys.begin) * s.out_cols, height = ys.end - ys.begin;
    Reach xs = {0, 0};
    for (npy_int64 x = 0; x < s.cols; ++x) {
      // As pool_reach, without its divisions, which would take as long as a pixel's 32 images.
      while (xs.end < s.out_cols && s.start_x + xs.end * s.stride_x <= x) ++xs.end;
      while (xs.begin < xs.end && s.start_x + xs.begin * s.stride_x + s.ds_x <= x) ++xs.begin;
      const npy_int64 pixel = (row * s.cols + x) * s.n, first = (top_row + xs.begin) * s.n, width = xs.end - xs.begin;
      const auto sum_pixel = [&](auto height, auto width) {
        for_each_vector<T>(s.n, [&](auto vector, npy_int64 i) {
          const auto term = term_of(vector, pixel + i);
          auto sum = vector.all(0);
          for (npy_int64 oy = 0; oy < height; ++oy)
            for (npy_int64 ox = 0; ox < width; ++ox)
              sum += term(first + (oy * s.out_cols + ox) * s.n + i, window_of(y, x, ys.begin + oy, xs.begin + ox));
          vector.store(out + pixel + i, sum);
        });
      };
      // Loops over as few windows take longer than the sums.
      if (height == 1 && width == 1)
        sum_pixel(one, one);
      else if (height == 1 && width == 2)
        sum_pixel(one, two);
      else if (height == 2 && width == 1)
        sum_pixel(two, one);
      else if (height == 2 && width == 2)
        sum_pixel(two, two);
      else
        sum_pixel(height, width);
    }
  }
}

// Where all windows have the same terms.
struct NoWindow {
  int operator()(npy_int64, npy_int64, npy_int64, npy_int64) const { return 0; }
};

// The maximum of a window, of the images that lie in `vector`. A NaN stays, wherever in the window it lies.
template <typename Vector, typename T>
static inline typename Vector::Values window_max(const PoolShape &s, npy_int64 channel, const PoolWindow &w,
                                                 Vector vector, const T *images) {
  // The NaN apart: so the maximum is one instruction, and the next pixel waits for no comparison.
  auto best = vector.all(-std::numeric_limits<T>::infinity()), nan = vector.all(0);
  for_each_pixel(s, channel, w, [&](npy_int64 at) {
    const auto pixel = vector.load(images + at);
    best = pixel > best ? pixel : best;
    nan = pixel != pixel ? pixel : nan;
  });
  return nan != nan ? nan : best;
}

template <typename T>
static void max_pool(const PoolShape &s, const T *images, T *out) {
  for_each_window(s, [&](npy_int64 top, npy_int64 channel, const PoolWindow &w) {
    for_each_vector<T>(s.n, [&](auto vector, npy_int64 i) {
      vector.store(out + top + i, window_max(s, channel, w, vector, images + i));
    });
  });
}

template <typename T>
static void max_pool_grad(const PoolShape &s, const T *images, const T *maxout, const T *grads, T *out) {
  sum_over_windows(s, out, NoWindow(), [&](auto vector, npy_int64 at) {
    const auto pixel = vector.load(images + at), zero = vector.all(0);
    return [=](npy_int64 top, int) {
      return pixel == vector.load(maxout + top) ? vector.load(grads + top) : zero;
    };
  });
}

template <typename T>
static void max_pool_rop(const PoolShape &s, const T *images, const T *direction, T *out) {
  for_each_window(s, [&](npy_int64 top, npy_int64 channel, const PoolWindow &w) {
    for_each_vector<T>(s.n, [&](auto vector, npy_int64 i) {
      const auto best = window_max(s, channel, w, vector, images + i), zero = vector.all(0);
      auto sum = zero;
      for_each_pixel(s, channel, w, [&](npy_int64 at) {
        sum += vector.load(images + at + i) == best ? vector.load(direction + at + i) : zero;
      });
      vector.store(out + top + i, sum);
    });
  });
}

template <typename T>
static void avg_pool(const PoolShape &s, bool average, const T *images, T *out) {
  for_each_window(s, [&](npy_int64 top, npy_int64 channel, const PoolWindow &w) {
    const T count = average ? (T)pixel_count(w) : T(1);
    for_each_vector<T>(s.n, [&](auto vector, npy_int64 i) {
      auto sum = vector.all(0);
      for_each_pixel(s, channel, w, [&](npy_int64 at) { sum += vector.load(images + at + i); });
      vector.store(out + top + i, sum / count);
    });
  });
}

// scales: one for each place of a window, to work in.
template <typename T>
static void avg_pool_grad(const PoolShape &s, bool average, const T *grads, T *scales, T *out) {
  for (npy_int64 y = 0; y < s.out_rows; ++y)
    for (npy_int64 x = 0; x < s.out_cols; ++x)
      scales[y * s.out_cols + x] = average ? T(1) / (T)pixel_count(pool_window(s, y, x)) : T(1);
  const auto scale_of = [&](npy_int64, npy_int64, npy_int64 oy, npy_int64 ox) { return scales[oy * s.out_cols + ox]; };
  sum_over_windows(s, out, scale_of, [&](auto vector, npy_int64) {
    return [=](npy_int64 top, T scale) { return vector.load(grads + top) * scale; };
  });
}

#endif
