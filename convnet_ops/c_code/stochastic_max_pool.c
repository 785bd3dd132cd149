#section support_code

#include "cpu_array.h"
#include "cpu_stochastic_pool.h"

#section support_code_apply

int APPLY_SPECIFIC(stochastic_max_pool)(PyArrayObject *images, PyArrayObject *draw, PyArrayObject **out,
                                        PyArrayObject **positions, PARAMS_TYPE *params) {
  typedef DTYPE_OUTPUT_0 T;
  const char *op = "StochasticMaxPool";
  npy_int64 dims[4];
  PoolShape s;
  copy_dims(images, dims);
  if (pool_shape(op, dims, params, &s) != 0 || check_window_numbers(op, s) != 0) return -1;
  const npy_int64 out_dims[4] = {s.channels, s.out_rows, s.out_cols, s.n};
  const ContiguousArray image_array(images);
  if (image_array.failed() || prepare_output(op, out, 4, out_dims, TYPENUM_OUTPUT_0) != 0 ||
      prepare_output(op, positions, 4, out_dims, NPY_INT32) != 0)
    return -1;
  stochastic_max_pool(s, (uint64_t)params->seed, (uint64_t) * (npy_int64 *)PyArray_DATA(draw), image_array.data<T>(),
                      (T *)PyArray_DATA(*out), (npy_int32 *)PyArray_DATA(*positions));
  return 0;
}
