#section support_code

#include "cpu_array.h"
#include "cpu_stochastic_pool.h"

#section support_code_apply

int APPLY_SPECIFIC(weighted_max_pool)(PyArrayObject *images, PyArrayObject **out, PyArrayObject **sums,
                                      PARAMS_TYPE *params) {
  typedef DTYPE_OUTPUT_0 T;
  const char *op = "WeightedMaxPool";
  npy_int64 dims[4];
  PoolShape s;
  copy_dims(images, dims);
  if (pool_shape(op, dims, params, &s) != 0) return -1;
  const npy_int64 out_dims[4] = {s.channels, s.out_rows, s.out_cols, s.n};
  const ContiguousArray image_array(images);
  if (image_array.failed() || prepare_output(op, out, 4, out_dims, TYPENUM_OUTPUT_0) != 0 ||
      prepare_output(op, sums, 4, out_dims, TYPENUM_OUTPUT_0) != 0)
    return -1;
  weighted_max_pool(s, image_array.data<T>(), (T *)PyArray_DATA(*out), (T *)PyArray_DATA(*sums));
  return 0;
}

int APPLY_SPECIFIC(weighted_max_pool_grad)(PyArrayObject *images, PyArrayObject *weighted, PyArrayObject *sums,
                                           PyArrayObject *grads, PyArrayObject **out, PARAMS_TYPE *params) {
  typedef DTYPE_OUTPUT_0 T;
  const char *op = "WeightedMaxPoolGrad";
  npy_int64 dims[4], weighted_dims[4], sums_dims[4], grads_dims[4];
  PoolShape s;
  copy_dims(images, dims);
  copy_dims(weighted, weighted_dims);
  copy_dims(sums, sums_dims);
  copy_dims(grads, grads_dims);
  if (pool_shape(op, dims, params, &s) != 0) return -1;
  const npy_int64 top_dims[4] = {s.channels, s.out_rows, s.out_cols, s.n};
  if (check_dims(op, "weighted", weighted_dims, top_dims) != 0 || check_dims(op, "sums", sums_dims, top_dims) != 0 ||
      check_dims(op, "gz", grads_dims, top_dims) != 0)
    return -1;
  const ContiguousArray image_array(images), weighted_array(weighted), sum_array(sums), grad_array(grads);
  if (image_array.failed() || weighted_array.failed() || sum_array.failed() || grad_array.failed() ||
      prepare_output(op, out, 4, dims, TYPENUM_OUTPUT_0) != 0)
    return -1;
  weighted_max_pool_grad(s, image_array.data<T>(), weighted_array.data<T>(), sum_array.data<T>(), grad_array.data<T>(),
                         (T *)PyArray_DATA(*out));
  return 0;
}
