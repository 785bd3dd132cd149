// Max, average and sum pooling on the CPU; see cuda/pool.cu. Loops run over the images innermost, which are adjacent in
// memory.
#ifndef CONVNET_OPS_CPU_POOL_H
#define CONVNET_OPS_CPU_POOL_H

#include <limits>

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

// Calls visit(offset of the output's first image, channel, window) for every output. Rows of outputs go to threads, or,
// where visit writes to pixels, whole channels, since windows of two rows may overlap.
template <typename Visit>
static inline void for_each_window(const PoolShape &s, bool writes_pixels, Visit visit) {
  const npy_int64 rows = writes_pixels ? s.out_rows : 1, parts = s.channels * s.out_rows / rows;
#pragma omp parallel for schedule(static) if (s.channels * s.rows * s.cols * s.n > CONVNET_SERIAL_WORK)
  for (npy_int64 part = 0; part < parts; ++part)
    for (npy_int64 row = part * rows; row < (part + 1) * rows; ++row)
      for (npy_int64 x = 0; x < s.out_cols; ++x)
        visit((row * s.out_cols + x) * s.n, row / s.out_rows, pool_window(s, row % s.out_rows, x));
}

// Calls visit(offset of the pixel's first image) for each pixel of a window, row by row.
template <typename Visit>
static inline void for_each_pixel(const PoolShape &s, npy_int64 channel, const PoolWindow &w, Visit visit) {
  for (npy_int64 y = w.y_begin; y < w.y_end; ++y)
    for (npy_int64 x = w.x_begin; x < w.x_end; ++x) visit(((channel * s.rows + y) * s.cols + x) * s.n);
}

// out[i] = the maximum of a window, for each image. A NaN stays, wherever in the window it lies.
template <typename T>
static inline void window_max(const PoolShape &s, npy_int64 channel, const PoolWindow &w, const T *images, T *out) {
  for (npy_int64 i = 0; i < s.n; ++i) out[i] = -std::numeric_limits<T>::infinity();
  for_each_pixel(s, channel, w, [&](npy_int64 at) {
    const T *pixel = images + at;
    for (npy_int64 i = 0; i < s.n; ++i) out[i] = pixel[i] > out[i] || pixel[i] != pixel[i] ? pixel[i] : out[i];
  });
}

template <typename T>
static void max_pool(const PoolShape &s, const T *images, T *out) {
  for_each_window(s, false, [&](npy_int64 top, npy_int64 channel, const PoolWindow &w) {
    window_max(s, channel, w, images, out + top);
  });
}

// out must be zero.
template <typename T>
static void max_pool_grad(const PoolShape &s, const T *images, const T *maxout, const T *grads, T *out) {
  for_each_window(s, true, [&](npy_int64 top, npy_int64 channel, const PoolWindow &w) {
    for_each_pixel(s, channel, w, [&](npy_int64 at) {
      for (npy_int64 i = 0; i < s.n; ++i) out[at + i] += images[at + i] == maxout[top + i] ? grads[top + i] : T(0);
    });
  });
}

template <typename T>
static void max_pool_rop(const PoolShape &s, const T *images, const T *direction, T *maxout, T *out) {
  for_each_window(s, false, [&](npy_int64 top, npy_int64 channel, const PoolWindow &w) {
    window_max(s, channel, w, images, maxout + top);
    for (npy_int64 i = 0; i < s.n; ++i) out[top + i] = 0;
    for_each_pixel(s, channel, w, [&](npy_int64 at) {
      for (npy_int64 i = 0; i < s.n; ++i) out[top + i] += images[at + i] == maxout[top + i] ? direction[at + i] : T(0);
    });
  });
}

template <typename T>
static void avg_pool(const PoolShape &s, bool average, const T *images, T *out) {
  for_each_window(s, false, [&](npy_int64 top, npy_int64 channel, const PoolWindow &w) {
    for (npy_int64 i = 0; i < s.n; ++i) out[top + i] = 0;
    for_each_pixel(s, channel, w, [&](npy_int64 at) {
      for (npy_int64 i = 0; i < s.n; ++i) out[top + i] += images[at + i];
    });
    const T count = average ? (T)pixel_count(w) : T(1);
    for (npy_int64 i = 0; i < s.n; ++i) out[top + i] /= count;
  });
}

// out must be zero.
template <typename T>
static void avg_pool_grad(const PoolShape &s, bool average, const T *grads, T *out) {
  for_each_window(s, true, [&](npy_int64 top, npy_int64 channel, const PoolWindow &w) {
    const T count = average ? (T)pixel_count(w) : T(1);
    for_each_pixel(s, channel, w, [&](npy_int64 at) {
      for (npy_int64 i = 0; i < s.n; ++i) out[at + i] += grads[top + i] / count;
    });
  });
}

#endif
