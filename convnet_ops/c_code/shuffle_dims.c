#section support_code

#include "cpu_array.h"
#include "cpu_shuffle.h"

#section support_code_apply

int APPLY_SPECIFIC(shuffle_dims)(PyArrayObject *x, PyArrayObject **out, PARAMS_TYPE *params) {
  typedef DTYPE_OUTPUT_0 T;
  npy_int64 dims[4], out_dims[4];
  copy_dims(x, dims);
  const ShuffleShape s = shuffle_shape(dims, params, out_dims);
  const ContiguousArray source(x);
  if (source.failed() || prepare_output("ShuffleDims", out, 4, out_dims, TYPENUM_OUTPUT_0) != 0) return -1;
  shuffle(s, source.data<T>(), (T *)PyArray_DATA(*out));
  return 0;
}
