// Max-pooling on the CPU; see cuda/pool.cu. Loops run over the images innermost, which are adjacent in memory.
#ifndef CONVNET_OPS_CPU_POOL_H
#define CONVNET_OPS_CPU_POOL_H

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

// out[i] = the maximum of a window of one channel, for each image. A NaN stays, wherever in the window it lies.
template <typename T>
static inline void window_max(const PoolShape &s, const PoolWindow &w, const T *channel, T *out) {
  for (npy_int64 y = w.y_begin; y < w.y_end; ++y)
    for (npy_int64 x = w.x_begin; x < w.x_end; ++x) {
      const T *pixel = channel + (y * s.cols + x) * s.n;
      if (y == w.y_begin && x == w.x_begin)
        for (npy_int64 i = 0; i < s.n; ++i) out[i] = pixel[i];
      else
        for (npy_int64 i = 0; i < s.n; ++i) out[i] = pixel[i] > out[i] || pixel[i] != pixel[i] ? pixel[i] : out[i];
    }
}

// Calls visit(channel, y, x, window) for every output. The outputs of a channel stay on one thread, since their windows
// may overlap.
template <typename Visit>
static inline void for_each_window(const PoolShape &s, Visit visit) {
#pragma omp parallel for schedule(static) if (s.channels * s.rows * s.cols * s.n > CONVNET_SERIAL_WORK)
  for (npy_int64 channel = 0; channel < s.channels; ++channel)
    for (npy_int64 y = 0; y < s.out_rows; ++y)
      for (npy_int64 x = 0; x < s.out_cols; ++x) visit(channel, y, x, pool_window(s, y, x));
}

template <typename T>
static void max_pool(const PoolShape &s, const T *images, T *out) {
  for_each_window(s, [&](npy_int64 channel, npy_int64 y, npy_int64 x, const PoolWindow &w) {
    window_max(s, w, images + channel * s.rows * s.cols * s.n,
               out + ((channel * s.out_rows + y) * s.out_cols + x) * s.n);
  });
}

// out must be zero.
template <typename T>
static void max_pool_grad(const PoolShape &s, const T *images, const T *maxout, const T *grads, T *out) {
  for_each_window(s, [&](npy_int64 channel, npy_int64 y, npy_int64 x, const PoolWindow &w) {
    const npy_int64 top = ((channel * s.out_rows + y) * s.out_cols + x) * s.n;
    for (npy_int64 row = w.y_begin; row < w.y_end; ++row)
      for (npy_int64 col = w.x_begin; col < w.x_end; ++col) {
        const npy_int64 pixel = ((channel * s.rows + row) * s.cols + col) * s.n;
        for (npy_int64 i = 0; i < s.n; ++i)
          out[pixel + i] += images[pixel + i] == maxout[top + i] ? grads[top + i] : T(0);
      }
  });
}

template <typename T>
static void max_pool_rop(const PoolShape &s, const T *images, const T *direction, T *maxout, T *out) {
  for_each_window(s, [&](npy_int64 channel, npy_int64 y, npy_int64 x, const PoolWindow &w) {
    const npy_int64 top = ((channel * s.out_rows + y) * s.out_cols + x) * s.n;
    window_max(s, w, images + channel * s.rows * s.cols * s.n, maxout + top);
    for (npy_int64 i = 0; i < s.n; ++i) out[top + i] = 0;
    for (npy_int64 row = w.y_begin; row < w.y_end; ++row)
      for (npy_int64 col = w.x_begin; col < w.x_end; ++col) {
        const npy_int64 pixel = ((channel * s.rows + row) * s.cols + col) * s.n;
        for (npy_int64 i = 0; i < s.n; ++i)
          out[top + i] += images[pixel + i] == maxout[top + i] ? direction[pixel + i] : T(0);
      }
  });
}

#endif
