#section support_code

#include <cstring>

#include "cpu_array.h"
#include "cpu_prob_pool.h"

#section support_code_apply

int APPLY_SPECIFIC(prob_max_pool)(PyArrayObject *z, PyArrayObject *top_down, PyArrayObject **p, PyArrayObject **h,
                                  PARAMS_TYPE *params) {
  typedef DTYPE_OUTPUT_0 T;
  const char *op = "ProbMaxPool";
  npy_int64 dims[4], top_down_dims[4];
  PoolShape s;
  copy_dims(z, dims);
  copy_dims(top_down, top_down_dims);
  if (pool_shape(op, dims, params, &s) != 0) return -1;
  const npy_int64 out_dims[4] = {s.channels, s.out_rows, s.out_cols, s.n};
  if (check_dims(op, "top_down", top_down_dims, out_dims) != 0) return -1;
  const ContiguousArray z_array(z), top_down_array(top_down);
  if (z_array.failed() || top_down_array.failed() || prepare_output(op, p, 4, out_dims, TYPENUM_OUTPUT_0) != 0 ||
      prepare_output(op, h, 4, dims, TYPENUM_OUTPUT_0) != 0)
    return -1;
  memset(PyArray_DATA(*h), 0, PyArray_NBYTES(*h));
  prob_max_pool(s, z_array.data<T>(), top_down_array.data<T>(), (T *)PyArray_DATA(*p), (T *)PyArray_DATA(*h));
  return 0;
}

int APPLY_SPECIFIC(prob_max_pool_grad)(PyArrayObject *z, PyArrayObject *top_down, PyArrayObject *p_grads,
                                       PyArrayObject *h_grads, PyArrayObject **z_out, PyArrayObject **top_down_out,
                                       PARAMS_TYPE *params) {
  typedef DTYPE_OUTPUT_0 T;
  const char *op = "ProbMaxPoolGrad";
  npy_int64 dims[4], top_down_dims[4], p_dims[4], h_dims[4];
  PoolShape s;
  copy_dims(z, dims);
  copy_dims(top_down, top_down_dims);
  copy_dims(p_grads, p_dims);
  copy_dims(h_grads, h_dims);
  if (pool_shape(op, dims, params, &s) != 0) return -1;
  const npy_int64 out_dims[4] = {s.channels, s.out_rows, s.out_cols, s.n};
  if (check_dims(op, "top_down", top_down_dims, out_dims) != 0 || check_dims(op, "gp", p_dims, out_dims) != 0 ||
      check_dims(op, "gh", h_dims, dims) != 0)
    return -1;
  const ContiguousArray z_array(z), top_down_array(top_down), p_array(p_grads), h_array(h_grads);
  if (z_array.failed() || top_down_array.failed() || p_array.failed() || h_array.failed() ||
      prepare_output(op, z_out, 4, dims, TYPENUM_OUTPUT_0) != 0 ||
      prepare_output(op, top_down_out, 4, out_dims, TYPENUM_OUTPUT_0) != 0)
    return -1;
  memset(PyArray_DATA(*z_out), 0, PyArray_NBYTES(*z_out));
  prob_max_pool_grad(s, z_array.data<T>(), top_down_array.data<T>(), p_array.data<T>(), h_array.data<T>(),
                     (T *)PyArray_DATA(*z_out), (T *)PyArray_DATA(*top_down_out));
  return 0;
}
