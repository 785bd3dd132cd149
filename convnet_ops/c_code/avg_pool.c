#section support_code

#include <new>
#include <vector>

#include "cpu_array.h"
#include "cpu_pool.h"

#section support_code_apply

int APPLY_SPECIFIC(avg_pool)(PyArrayObject *images, PyArrayObject **out, PARAMS_TYPE *params) {
  typedef DTYPE_OUTPUT_0 T;
  const char *op = params->average ? "AvgPool" : "SumPool";
  npy_int64 dims[4];
  PoolShape s;
  copy_dims(images, dims);
  if (pool_shape(op, dims, params, &s) != 0) return -1;
  const npy_int64 out_dims[4] = {s.channels, s.out_rows, s.out_cols, s.n};
  const ContiguousArray image_array(images);
  if (image_array.failed() || prepare_output(op, out, 4, out_dims, TYPENUM_OUTPUT_0) != 0) return -1;
  avg_pool(s, params->average, image_array.data<T>(), (T *)PyArray_DATA(*out));
  return 0;
}

int APPLY_SPECIFIC(avg_pool_grad)(PyArrayObject *grads, PyArrayObject *output_shape, PyArrayObject **out,
                                  PARAMS_TYPE *params) {
  typedef DTYPE_OUTPUT_0 T;
  const char *op = params->average ? "AvgPoolGrad" : "SumPoolGrad";
  npy_int64 dims[4], size[2];
  PoolShape s;
  copy_dims(grads, dims);
  if (pool_grad_shape(op, "gz", dims, size, read_sizes(output_shape, size), params, &s) != 0) return -1;
  const npy_int64 out_dims[4] = {s.channels, s.rows, s.cols, s.n};
  const ContiguousArray grad_array(grads);
  if (grad_array.failed() || prepare_output(op, out, 4, out_dims, TYPENUM_OUTPUT_0) != 0) return -1;
  try {
    std::vector<T> scales(s.out_rows * s.out_cols);
    avg_pool_grad(s, params->average, grad_array.data<T>(), scales.data(), (T *)PyArray_DATA(*out));
  } catch (const std::bad_alloc &) {
    return no_workspace(op);
  }
  return 0;
}
