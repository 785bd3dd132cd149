#section support_code

#include "cpu_array.h"
#include "cpu_norm.h"

#section support_code_apply

int APPLY_SPECIFIC(cross_map_norm)(PyArrayObject *images, PyArrayObject **acts, PyArrayObject **denoms,
                                   PARAMS_TYPE *params) {
  typedef DTYPE_OUTPUT_0 T;
  const char *op = "CrossMapNorm";
  npy_int64 dims[4];
  copy_dims(images, dims);
  if (check_not_empty(op, "images", dims) != 0) return -1;
  const ContiguousArray image_array(images);
  if (image_array.failed() || prepare_output(op, acts, 4, dims, TYPENUM_OUTPUT_0) != 0 ||
      prepare_output(op, denoms, 4, dims, TYPENUM_OUTPUT_0) != 0)
    return -1;
  cross_map_norm(dims, channel_window(params->size_f, params->blocked, false), (T)params->add_scale, params->pow_scale,
                 image_array.data<T>(), (T *)PyArray_DATA(*acts), (T *)PyArray_DATA(*denoms));
  return 0;
}
