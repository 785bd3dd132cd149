#section support_code

#include <algorithm>

#include "activation.h"
#include "cpu_array.h"
#include "cpu_correlate.h"

// out[f, i] = activation(out[f, i] + bias[f]), in pieces that stay in a cache and give each thread some.
template <typename T, typename Activation>
static void finish_sums(const Activation &activation, npy_int64 filters, npy_int64 positions, const T *bias, T *out) {
  const npy_int64 piece = 4096, pieces = (positions + piece - 1) / piece;
#pragma omp parallel for schedule(static) if (filters * positions > CONVNET_SERIAL_WORK / 10)
  for (npy_int64 item = 0; item < filters * pieces; ++item) {
    const npy_int64 filter = item / pieces, begin = item % pieces * piece;
    const npy_int64 count = std::min(piece, positions - begin);
    const T added = bias[filter];
    T *values = out + filter * positions + begin;
    for (npy_int64 i = 0; i < count; ++i) values[i] = activation(values[i] + added);
  }
}

#section support_code_apply

int APPLY_SPECIFIC(fused_filter_acts)(PyArrayObject *images, PyArrayObject *filters, PyArrayObject *bias,
                                      PyArrayObject **out, PARAMS_TYPE *params) {
  const char *op = "FusedFilterActs";
  npy_int64 images_dims[4], filters_dims[4];
  copy_dims(images, images_dims);
  copy_dims(filters, filters_dims);
  ConvShape s = shape_with_params(params);
  if (filter_acts_shape(op, images_dims, filters_dims, &s) != 0 ||
      check_bias(op, PyArray_DIM(bias, 0), filters_dims[3]) != 0)
    return -1;
  const npy_int64 out_dims[4] = {filters_dims[3], s.out_rows, s.out_cols, s.n};
  const ContiguousArray image_array(images), filter_array(filters), bias_array(bias);
  if (image_array.failed() || filter_array.failed() || bias_array.failed() ||
      prepare_output(op, out, 4, out_dims, TYPENUM_OUTPUT_0) != 0)
    return -1;
  typedef DTYPE_OUTPUT_0 T;
  try {
    const Correlation c = forward_correlation(&s);
    const FiltersAsTheyAre<T> filter = {c, filter_array.data<T>()};
    correlate<T>(c, image_array.data<T>(), filter, (T *)PyArray_DATA(*out));
  } catch (const std::bad_alloc &) {
    return no_workspace(op);
  }
  with_activation<T>(params, 0, [&](const auto &activation) {
    finish_sums(activation, out_dims[0], s.out_rows * s.out_cols * s.n, bias_array.data<T>(),
                (T *)PyArray_DATA(*out));
  });
  return 0;
}
