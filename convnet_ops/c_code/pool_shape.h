// Shapes of the pooling ops: the checks that need sizes, shared by the CPU and the GPU code.
#ifndef CONVNET_OPS_POOL_SHAPE_H
#define CONVNET_OPS_POOL_SHAPE_H

#include "conv_shape.h"

// images (channels, rows, cols, n), output (channels, out_rows, out_cols, n)
struct PoolShape {
  npy_int64 channels, rows, cols, n;
  npy_int64 out_rows, out_cols;
  npy_int64 ds_y, ds_x, stride_y, stride_x, start_y, start_x;
};

// Values of the border parameter (pool.py has the same): cuda-convnet's rule, and Theano's without and with ignore_border.
enum { kCudaConvnetBorder, kKeepBorder, kIgnoreBorder };

static inline int pool_direction(const char *op, const char *direction, npy_int64 size, npy_int64 ds, npy_int64 stride,
                                 npy_int64 start, npy_int64 outputs, npy_int64 border, npy_int64 *out_size) {
  // With ignore_border the images are padded at both ends; without, a window may be larger than they are.
  const npy_int64 padded = border == kIgnoreBorder ? size - 2 * start : size;
  if (ds > padded && border != kKeepBorder) {
    PyErr_Format(PyExc_ValueError, "%s: ds is %lld, larger than the %lld %s of the images", op, (long long)ds,
                 (long long)size, direction);
    return -1;
  }
  if (start >= size) {
    PyErr_Format(PyExc_ValueError, "%s: start is %lld; it must be less than the %lld %s of the images", op,
                 (long long)start, (long long)size, direction);
    return -1;
  }
  *out_size = outputs > 0                ? outputs
              : border == kIgnoreBorder ? window_count(padded, ds, stride, true)
                                        : window_count(size - start, ds, stride, false);
  if (border == kKeepBorder && *out_size < 1) *out_size = 1;
  if (*out_size < 1) {
    PyErr_Format(PyExc_ValueError,
                 "%s: start is %lld; with ds %lld and stride %lld the %lld %s of the images give no output from there", op,
                 (long long)start, (long long)ds, (long long)stride, (long long)size, direction);
    return -1;
  }
  if (start + (*out_size - 1) * stride >= size) {
    PyErr_Format(PyExc_ValueError,
                 "%s: outputs is %lld; from start %lld with stride %lld at most %lld windows touch the %lld %s of the "
                 "images",
                 op, (long long)outputs, (long long)start, (long long)stride,
                 (long long)((size - 1 - start) / stride + 1), (long long)size, direction);
    return -1;
  }
  return 0;
}

template <typename Params>
static inline int pool_shape(const char *op, const npy_int64 *images, const Params *params, PoolShape *s) {
  if (check_not_empty(op, "images", images) != 0) return -1;
  s->channels = images[0];
  s->rows = images[1];
  s->cols = images[2];
  s->n = images[3];
  s->ds_y = params->ds_y;
  s->ds_x = params->ds_x;
  s->stride_y = params->stride_y;
  s->stride_x = params->stride_x;
  s->start_y = params->start_y;
  s->start_x = params->start_x;
  return pool_direction(op, "rows", s->rows, s->ds_y, s->stride_y, s->start_y, params->outputs_y,
                        params->border, &s->out_rows) ||
                 pool_direction(op, "columns", s->cols, s->ds_x, s->stride_x, s->start_x, params->outputs_x,
                                params->border, &s->out_cols)
             ? -1
             : 0;
}

static inline int check_dims(const char *op, const char *argument, const npy_int64 *found, const npy_int64 *valid) {
  if (found[0] == valid[0] && found[1] == valid[1] && found[2] == valid[2] && found[3] == valid[3]) return 0;
  PyErr_Format(PyExc_ValueError, "%s: %s has shape (%lld, %lld, %lld, %lld); it must be (%lld, %lld, %lld, %lld)", op,
               argument, (long long)found[0], (long long)found[1], (long long)found[2], (long long)found[3],
               (long long)valid[0], (long long)valid[1], (long long)valid[2], (long long)valid[3]);
  return -1;
}

// For gradients without images: gz is (channels, out_rows, out_cols, n); output_shape, of `count` elements, says the pixels.
template <typename Params>
static inline int pool_grad_shape(const char *op, const char *argument, const npy_int64 *grads,
                                  const npy_int64 *output_shape, npy_int64 count, const Params *params, PoolShape *s) {
  if (check_not_empty(op, argument, grads) != 0 || check_positive_size(op, output_shape, count) != 0) return -1;
  const npy_int64 images[4] = {grads[0], output_shape[0], output_shape[1], grads[3]};
  if (pool_shape(op, images, params, s) != 0) return -1;
  const npy_int64 outputs[4] = {s->channels, s->out_rows, s->out_cols, s->n};
  return check_dims(op, argument, grads, outputs);
}

// Positions number the pixels of a window with 32 bits.
static inline int check_window_numbers(const char *op, const PoolShape &s) {
  if (s.ds_y <= 2147483647 / s.ds_x) return 0;
  PyErr_Format(PyExc_ValueError, "%s: ds is (%lld, %lld); its product must be less than 2**31", op, (long long)s.ds_y,
               (long long)s.ds_x);
  return -1;
}

#endif
