#section support_code

#include "cpu_array.h"
#include "cpu_norm.h"

#section support_code_apply

int APPLY_SPECIFIC(cross_map_sum)(PyArrayObject *images, PyArrayObject **out, PARAMS_TYPE *params) {
  typedef DTYPE_OUTPUT_0 T;
  const char *op = "CrossMapSum";
  npy_int64 dims[4];
  copy_dims(images, dims);
  if (check_not_empty(op, "images", dims) != 0) return -1;
  const ContiguousArray image_array(images);
  if (image_array.failed() || prepare_output(op, out, 4, dims, TYPENUM_OUTPUT_0) != 0) return -1;
  cross_map_sum(dims, channel_window(params->size_f, params->blocked, params->transposed), image_array.data<T>(),
                (T *)PyArray_DATA(*out));
  return 0;
}
