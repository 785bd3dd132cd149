// Shapes of the three convolution ops: the checks that need sizes, and the correlation that computes each of them.
// Shared by the CPU and the GPU code. Sizes are 64-bit; the GPU code checks its own 32-bit limit.
#ifndef CONVNET_OPS_CONV_SHAPE_H
#define CONVNET_OPS_CONV_SHAPE_H

#include <Python.h>
#include <numpy/arrayobject.h>
#include <string.h>

// Values of the pad parameters that stand for filter_size - 1 and filter_size / 2 (filter_acts.py has the same).
#define CONVNET_PAD_FULL (-1)
#define CONVNET_PAD_HALF (-2)

// images (groups * channels, rows, cols, n), filters (channels, filter_rows, filter_cols, groups * filters),
// output (groups * filters, out_rows, out_cols, n)
struct ConvShape {
  npy_int64 groups, channels, filters;  // channels and filters of one group
  npy_int64 rows, cols, n;
  npy_int64 filter_rows, filter_cols;
  npy_int64 out_rows, out_cols;
  npy_int64 stride_y, stride_x;
  npy_int64 pad_y, pad_x;          // before the first row and column
  npy_int64 pad_y_end, pad_x_end;  // after the last ones: only the output's size depends on them
  bool ignore_border;
};

// A shape with what the op's params say; the functions below set the rest.
template <typename Params>
static inline ConvShape shape_with_params(const Params *params) {
  ConvShape s;
  memset(&s, 0, sizeof s);  // what lies between the members too, for comparisons
  s.groups = params->groups;
  s.stride_y = params->stride_y;
  s.stride_x = params->stride_x;
  s.pad_y = params->pad_y;
  s.pad_x = params->pad_x;
  s.pad_y_end = params->pad_y_end;
  s.pad_x_end = params->pad_x_end;
  s.ignore_border = params->ignore_border != 0;
  return s;
}

// The elements of output_shape, an int64 vector: at most two are read. Returns how many it has.
static inline npy_int64 read_sizes(PyArrayObject *vector, npy_int64 *sizes) {
  const npy_int64 count = PyArray_DIM(vector, 0);
  for (npy_int64 i = 0; i < count && i < 2; ++i) sizes[i] = *(npy_int64 *)PyArray_GETPTR1(vector, i);
  return count;
}

// A window's count as in shapes.py: the last window may hang over the end, none lies wholly outside; or all lie inside.
static inline npy_int64 window_count(npy_int64 size, npy_int64 window, npy_int64 stride, bool ignore_border) {
  if (ignore_border) return size < window ? 0 : (size - window) / stride + 1;
  const npy_int64 reach = window > stride ? window : stride;
  // C's division rounds toward zero: up, below zero.
  return size < reach ? (size - reach) / stride + 1 : (size - reach + stride - 1) / stride + 1;
}

static inline npy_int64 resolve_pad(npy_int64 pad, npy_int64 filter_size) {
  if (pad == CONVNET_PAD_FULL) return filter_size - 1;
  if (pad == CONVNET_PAD_HALF) return filter_size / 2;
  return pad;
}

static inline int check_not_empty(const char *op, const char *argument, const npy_int64 *dims) {
  for (int i = 0; i < 4; ++i)
    if (dims[i] < 1) {
      PyErr_Format(PyExc_ValueError, "%s: %s has shape (%lld, %lld, %lld, %lld); every size must be at least 1", op,
                   argument, (long long)dims[0], (long long)dims[1], (long long)dims[2], (long long)dims[3]);
      return -1;
    }
  return 0;
}

static inline int check_groups(const char *op, const char *argument, npy_int64 count, const char *what,
                               npy_int64 groups) {
  if (count % groups == 0) return 0;
  PyErr_Format(PyExc_ValueError, "%s: groups is %lld; it must divide the %lld %s of %s", op, (long long)groups,
               (long long)count, what, argument);
  return -1;
}

static inline int check_equal(const char *op, const char *argument, const char *what, npy_int64 found,
                              npy_int64 valid) {
  if (found == valid) return 0;
  PyErr_Format(PyExc_ValueError, "%s: %s has %lld %s; it must have %lld", op, argument, (long long)found, what,
               (long long)valid);
  return -1;
}

// Resolves pad and computes the output's size from a shape whose other fields are set.
static inline int conv_output_size(const char *op, ConvShape *s) {
  s->pad_y = resolve_pad(s->pad_y, s->filter_rows);
  s->pad_x = resolve_pad(s->pad_x, s->filter_cols);
  s->pad_y_end = resolve_pad(s->pad_y_end, s->filter_rows);
  s->pad_x_end = resolve_pad(s->pad_x_end, s->filter_cols);
  const npy_int64 rows = s->rows + s->pad_y + s->pad_y_end, cols = s->cols + s->pad_x + s->pad_x_end;
  if (rows < s->filter_rows || cols < s->filter_cols) {
    PyErr_Format(PyExc_ValueError,
                 "%s: filters of %lld x %lld do not fit into images of %lld x %lld with pad (%lld, %lld); the padded "
                 "image must be at least as large as the filter",
                 op, (long long)s->filter_rows, (long long)s->filter_cols, (long long)s->rows, (long long)s->cols,
                 (long long)s->pad_y, (long long)s->pad_x);
    return -1;
  }
  s->out_rows = window_count(rows, s->filter_rows, s->stride_y, s->ignore_border);
  s->out_cols = window_count(cols, s->filter_cols, s->stride_x, s->ignore_border);
  return 0;
}

// FilterActs: *s comes from shape_with_params.
static inline int filter_acts_shape(const char *op, const npy_int64 *images, const npy_int64 *filters, ConvShape *s) {
  if (check_not_empty(op, "images", images) || check_not_empty(op, "filters", filters) ||
      check_groups(op, "images", images[0], "channels", s->groups) ||
      check_groups(op, "filters", filters[3], "filters", s->groups) ||
      check_equal(op, "filters", "channels", filters[0], images[0] / s->groups))
    return -1;
  s->channels = filters[0];
  s->rows = images[1];
  s->cols = images[2];
  s->n = images[3];
  s->filter_rows = filters[1];
  s->filter_cols = filters[2];
  s->filters = filters[3] / s->groups;
  return conv_output_size(op, s);
}

static inline int check_output_size(const char *op, const char *argument, const npy_int64 *dims, const ConvShape *s) {
  if (dims[1] == s->out_rows && dims[2] == s->out_cols) return 0;
  PyErr_Format(PyExc_ValueError,
               "%s: %s is %lld x %lld; images of %lld x %lld and filters of %lld x %lld with stride (%lld, %lld) and "
               "pad (%lld, %lld) make it %lld x %lld",
               op, argument, (long long)dims[1], (long long)dims[2], (long long)s->rows, (long long)s->cols,
               (long long)s->filter_rows, (long long)s->filter_cols, (long long)s->stride_y, (long long)s->stride_x,
               (long long)s->pad_y, (long long)s->pad_x, (long long)s->out_rows, (long long)s->out_cols);
  return -1;
}

static inline int check_positive_size(const char *op, const npy_int64 *output_shape, npy_int64 count) {
  if (count == 2 && output_shape[0] > 0 && output_shape[1] > 0) return 0;
  if (count == 2)
    PyErr_Format(PyExc_ValueError, "%s: output_shape is (%lld, %lld); both sizes must be at least 1", op,
                 (long long)output_shape[0], (long long)output_shape[1]);
  else
    PyErr_Format(PyExc_ValueError, "%s: output_shape has %lld elements; it must have 2, (rows, columns)", op,
                 (long long)count);
  return -1;
}

// ImageActs: output_shape holds `count` elements, 2 if it is right.
static inline int img_acts_shape(const char *op, const npy_int64 *hid_acts, const npy_int64 *filters,
                                 const npy_int64 *output_shape, npy_int64 count, ConvShape *s) {
  if (check_not_empty(op, "hid_acts", hid_acts) || check_not_empty(op, "filters", filters) ||
      check_positive_size(op, output_shape, count) ||
      check_groups(op, "filters", filters[3], "filters", s->groups) ||
      check_equal(op, "hid_acts", "channels", hid_acts[0], filters[3]))
    return -1;
  s->channels = filters[0];
  s->rows = output_shape[0];
  s->cols = output_shape[1];
  s->n = hid_acts[3];
  s->filter_rows = filters[1];
  s->filter_cols = filters[2];
  s->filters = filters[3] / s->groups;
  return conv_output_size(op, s) || check_output_size(op, "hid_acts", hid_acts, s) ? -1 : 0;
}

// partial_sum's rule, with the divisors in the error.
static inline int check_partial_sum(const char *op, npy_int64 partial_sum, npy_int64 out_rows, npy_int64 out_cols) {
  const npy_int64 area = out_rows * out_cols;
  if (partial_sum == 0 || area % partial_sum == 0) return 0;
  PyObject *divisors = PyList_New(0);
  if (divisors == NULL) return -1;
  for (npy_int64 i = 1; i <= area; ++i) {
    if (area % i != 0) continue;
    PyObject *divisor = PyLong_FromLongLong(i);
    const int failed = divisor == NULL || PyList_Append(divisors, divisor) != 0;
    Py_XDECREF(divisor);
    if (failed) {
      Py_DECREF(divisors);
      return -1;
    }
  }
  PyErr_Format(PyExc_ValueError,
               "%s: partial_sum is %lld; it must divide the area of the output, %lld x %lld = %lld: one of %R", op,
               (long long)partial_sum, (long long)out_rows, (long long)out_cols, (long long)area, divisors);
  Py_DECREF(divisors);
  return -1;
}

// WeightActs: output_shape as for ImageActs; partial_sum is 0 for None.
static inline int weight_acts_shape(const char *op, const npy_int64 *images, const npy_int64 *hid_grads,
                                    const npy_int64 *output_shape, npy_int64 count, npy_int64 partial_sum,
                                    ConvShape *s) {
  if (check_not_empty(op, "images", images) || check_not_empty(op, "hid_grads", hid_grads) ||
      check_positive_size(op, output_shape, count) ||
      check_groups(op, "images", images[0], "channels", s->groups) ||
      check_groups(op, "hid_grads", hid_grads[0], "channels", s->groups) ||
      check_equal(op, "hid_grads", "images", hid_grads[3], images[3]))
    return -1;
  s->channels = images[0] / s->groups;
  s->rows = images[1];
  s->cols = images[2];
  s->n = images[3];
  s->filter_rows = output_shape[0];
  s->filter_cols = output_shape[1];
  s->filters = hid_grads[0] / s->groups;
  return conv_output_size(op, s) || check_output_size(op, "hid_grads", hid_grads, s) ||
                 check_partial_sum(op, partial_sum, s->out_rows, s->out_cols)
             ? -1
             : 0;
}

// How many partial gradients are held at most: what partial_sum allows, and what fits into the workspace, but one.
static inline npy_int64 partials_limit(const ConvShape *s, npy_int64 partial_sum, npy_int64 itemsize) {
  const npy_int64 workspace = 64 << 20;
  const npy_int64 bytes = s->channels * s->filter_rows * s->filter_cols * s->groups * s->filters * itemsize;
  const npy_int64 fitting = workspace / bytes;
  const npy_int64 allowed = partial_sum == 0 ? fitting : s->out_rows * s->out_cols / partial_sum;
  const npy_int64 limit = allowed < fitting ? allowed : fitting;
  return limit < 1 ? 1 : limit;
}

// A correlation as cuda/correlate.cuh describes it; the fields have the names of its CorrelateArgs.
struct Correlation {
  npy_int64 groups, channels, rows, cols, n;
  npy_int64 m, filter_stride, filter_group, taps_y, taps_x;
  npy_int64 stride_y, stride_x, pad_y, pad_x;
  npy_int64 grid_rows, grid_cols;
  // The outputs' images are out_n, of which those from out_first on are computed, at most n.
  npy_int64 out_rows, out_cols, out_n, out_first;
  npy_int64 phases_y, phases_x, base_y, base_x;
};

static inline npy_int64 correlation_depth(const Correlation *c) { return c->channels * c->taps_y * c->taps_x; }
static inline npy_int64 correlation_columns(const Correlation *c) { return c->grid_rows * c->grid_cols * c->n; }

// The share of (position, tap) pairs of one direction that lie inside the images.
static inline double inside_share(npy_int64 grid, npy_int64 stride, npy_int64 pad, npy_int64 taps, npy_int64 size) {
  double inside = 0;
  for (npy_int64 i = 0; i < grid; ++i) {
    const npy_int64 first = i * stride - pad;
    const npy_int64 begin = first < 0 ? -first : 0, end = size - first < taps ? size - first : taps;
    if (end > begin) inside += (double)(end - begin);
  }
  return inside / ((double)grid * taps);
}

static inline double correlation_inside_share(const Correlation *c) {
  return inside_share(c->grid_rows, c->stride_y, c->pad_y, c->taps_y, c->rows) *
         inside_share(c->grid_cols, c->stride_x, c->pad_x, c->taps_x, c->cols);
}

// FilterActs: the images are correlated with the filters as they are.
static inline Correlation forward_correlation(const ConvShape *s) {
  Correlation c;
  c.groups = s->groups;
  c.channels = s->channels;
  c.rows = s->rows;
  c.cols = s->cols;
  c.n = c.out_n = s->n;
  c.out_first = 0;
  c.m = c.filter_group = s->filters;
  c.filter_stride = s->groups * s->filters;
  c.taps_y = s->filter_rows;
  c.taps_x = s->filter_cols;
  c.stride_y = s->stride_y;
  c.stride_x = s->stride_x;
  c.pad_y = s->pad_y;
  c.pad_x = s->pad_x;
  c.grid_rows = c.out_rows = s->out_rows;
  c.grid_cols = c.out_cols = s->out_cols;
  c.phases_y = c.phases_x = 1;
  c.base_y = c.base_x = 0;
  return c;
}

// ImageActs: the output's gradients are correlated with the arranged filters (cuda/img_acts.cu), whose phases are those
// of the stride times a block. The grid covers the images in steps of one block of strides; its first pixel holds the
// image's first one, at phase pad % phases.
static inline Correlation image_correlation(const ConvShape *s, npy_int64 block_y, npy_int64 block_x) {
  Correlation c;
  c.groups = s->groups;
  c.channels = s->filters;
  c.rows = s->out_rows;
  c.cols = s->out_cols;
  c.n = c.out_n = s->n;
  c.out_first = 0;
  c.phases_y = s->stride_y * block_y;
  c.phases_x = s->stride_x * block_x;
  c.m = s->channels * c.phases_y * c.phases_x;
  // Arranged so that a group's filters begin at an address divisible by 4 floats.
  c.filter_group = (c.m + 3) / 4 * 4;
  c.filter_stride = s->groups * c.filter_group;
  c.taps_y = block_y - 1 + (s->filter_rows + s->stride_y - 1) / s->stride_y;
  c.taps_x = block_x - 1 + (s->filter_cols + s->stride_x - 1) / s->stride_x;
  c.stride_y = block_y;
  c.stride_x = block_x;
  const npy_int64 first_y = s->pad_y / c.phases_y, first_x = s->pad_x / c.phases_x;
  c.pad_y = c.taps_y - block_y - block_y * first_y;
  c.pad_x = c.taps_x - block_x - block_x * first_x;
  c.grid_rows = (s->rows - 1 + s->pad_y) / c.phases_y - first_y + 1;
  c.grid_cols = (s->cols - 1 + s->pad_x) / c.phases_x - first_x + 1;
  c.out_rows = s->rows;
  c.out_cols = s->cols;
  c.base_y = first_y * c.phases_y - s->pad_y;
  c.base_x = first_x * c.phases_x - s->pad_x;
  return c;
}

// The image correlation of least cost(correlation). Where channels and phases are few, blocks of up to 4 x 6 phases are
// tried: 1 x 5 is best for 3 channels and filters of 11 x 11, whose 15 phases nearly fill 16 rows.
template <typename Cost>
static Correlation cheapest_image_correlation(const ConvShape *s, Cost cost) {
  Correlation best = image_correlation(s, 1, 1);
  if (best.m >= 32) return best;
  double best_cost = cost(best);
  for (npy_int64 block_y = 1; block_y <= 4; block_y *= 2)
    for (npy_int64 block_x = 1; block_x <= 6; ++block_x) {
      const Correlation c = image_correlation(s, block_y, block_x);
      const double c_cost = cost(c);
      if (c_cost < best_cost) {
        best = c;
        best_cost = c_cost;
      }
    }
  return best;
}

#endif
