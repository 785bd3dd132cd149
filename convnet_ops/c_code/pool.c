#section support_code

#include "cpu_array.h"
#include "cpu_pool.h"

#section support_code_apply

int APPLY_SPECIFIC(max_pool)(PyArrayObject *images, PyArrayObject **out, PARAMS_TYPE *params) {
  typedef DTYPE_OUTPUT_0 T;
  const char *op = "MaxPool";
  npy_int64 dims[4];
  PoolShape s;
  copy_dims(images, dims);
  if (pool_shape(op, dims, params, &s) != 0) return -1;
  const npy_int64 out_dims[4] = {s.channels, s.out_rows, s.out_cols, s.n};
  const ContiguousArray image_array(images);
  if (image_array.failed() || prepare_output(op, out, 4, out_dims, TYPENUM_OUTPUT_0) != 0) return -1;
  max_pool(s, image_array.data<T>(), (T *)PyArray_DATA(*out));
  return 0;
}

int APPLY_SPECIFIC(max_pool_grad)(PyArrayObject *images, PyArrayObject *maxout, PyArrayObject *grads,
                                  PyArrayObject **out, PARAMS_TYPE *params) {
  typedef DTYPE_OUTPUT_0 T;
  const char *op = "MaxPoolGrad";
  npy_int64 dims[4], maxout_dims[4], grads_dims[4];
  PoolShape s;
  copy_dims(images, dims);
  copy_dims(maxout, maxout_dims);
  copy_dims(grads, grads_dims);
  if (pool_shape(op, dims, params, &s) != 0) return -1;
  const npy_int64 top_dims[4] = {s.channels, s.out_rows, s.out_cols, s.n};
  if (check_dims(op, "maxout", maxout_dims, top_dims) != 0 || check_dims(op, "gz", grads_dims, top_dims) != 0)
    return -1;
  const ContiguousArray image_array(images), maxout_array(maxout), grad_array(grads);
  if (image_array.failed() || maxout_array.failed() || grad_array.failed() ||
      prepare_output(op, out, 4, dims, TYPENUM_OUTPUT_0) != 0)
    return -1;
  max_pool_grad(s, image_array.data<T>(), maxout_array.data<T>(), grad_array.data<T>(), (T *)PyArray_DATA(*out));
  return 0;
}

int APPLY_SPECIFIC(max_pool_rop)(PyArrayObject *images, PyArrayObject *direction, PyArrayObject **out,
                                 PARAMS_TYPE *params) {
  typedef DTYPE_OUTPUT_0 T;
  const char *op = "MaxPoolRop";
  npy_int64 dims[4], direction_dims[4];
  PoolShape s;
  copy_dims(images, dims);
  copy_dims(direction, direction_dims);
  if (pool_shape(op, dims, params, &s) != 0 || check_dims(op, "eval_point", direction_dims, dims) != 0) return -1;
  const npy_int64 out_dims[4] = {s.channels, s.out_rows, s.out_cols, s.n};
  const ContiguousArray image_array(images), direction_array(direction);
  if (image_array.failed() || direction_array.failed() ||
      prepare_output(op, out, 4, out_dims, TYPENUM_OUTPUT_0) != 0)
    return -1;
  max_pool_rop(s, image_array.data<T>(), direction_array.data<T>(), (T *)PyArray_DATA(*out));
  return 0;
}
