#section support_code

#include "cpu_array.h"
#include "cpu_correlate.h"

#section support_code_apply

int APPLY_SPECIFIC(filter_acts)(PyArrayObject *images, PyArrayObject *filters, PyArrayObject **out,
                                PARAMS_TYPE *params) {
  const char *op = "FilterActs";
  npy_int64 images_dims[4], filters_dims[4];
  copy_dims(images, images_dims);
  copy_dims(filters, filters_dims);
  ConvShape s = shape_with_params(params);
  if (filter_acts_shape(op, images_dims, filters_dims, &s) != 0) return -1;
  const npy_int64 out_dims[4] = {filters_dims[3], s.out_rows, s.out_cols, s.n};
  const ContiguousArray contiguous_images(images), contiguous_filters(filters);
  if (contiguous_images.failed() || contiguous_filters.failed() ||
      prepare_output(op, out, 4, out_dims, TYPENUM_OUTPUT_0) != 0)
    return -1;
  typedef DTYPE_OUTPUT_0 T;
  try {
    const Correlation c = forward_correlation(&s);
    const FiltersAsTheyAre<T> filter = {c, contiguous_filters.data<T>()};
    correlate<T>(c, contiguous_images.data<T>(), filter, (T *)PyArray_DATA(*out));
  } catch (const std::bad_alloc &) {
    return no_workspace(op);
  }
  return 0;
}
