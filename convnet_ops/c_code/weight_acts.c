#section support_code

#include "cpu_array.h"
#include "cpu_weight_acts.h"

#section support_code_apply

int APPLY_SPECIFIC(weight_acts)(PyArrayObject *images, PyArrayObject *hid_grads, PyArrayObject *output_shape,
                                PyArrayObject **gradient, PyArrayObject **partials, PARAMS_TYPE *params) {
  typedef DTYPE_OUTPUT_0 T;
  const char *op = "WeightActs";
  npy_int64 images_dims[4], hid_dims[4], size[2];
  copy_dims(images, images_dims);
  copy_dims(hid_grads, hid_dims);
  const npy_int64 size_count = read_sizes(output_shape, size);
  ConvShape s = shape_with_params(params);
  if (weight_acts_shape(op, images_dims, hid_dims, size, size_count, params->partial_sum_or_0, &s) != 0) return -1;
  const npy_int64 splits = weight_splits<T>(s, partials_limit(&s, params->partial_sum_or_0, sizeof(T)));
  const npy_int64 partials_dims[5] = {splits, s.channels, s.filter_rows, s.filter_cols, s.groups * s.filters};
  const ContiguousArray contiguous_images(images), contiguous_hid(hid_grads);
  if (contiguous_images.failed() || contiguous_hid.failed() ||
      prepare_output(op, gradient, 4, partials_dims + 1, TYPENUM_OUTPUT_0) != 0 ||
      prepare_output(op, partials, 5, partials_dims, TYPENUM_OUTPUT_1) != 0)
    return -1;
  try {
    weight_acts<T>(s, splits, contiguous_images.data<T>(), contiguous_hid.data<T>(), (T *)PyArray_DATA(*partials),
                   (T *)PyArray_DATA(*gradient));
  } catch (const std::bad_alloc &) {
    return no_workspace(op);
  }
  return 0;
}
