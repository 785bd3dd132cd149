#section support_code

#include "cpu_array.h"
#include "cpu_stochastic_pool.h"

#section support_code_apply

int APPLY_SPECIFIC(stochastic_max_pool_grad)(PyArrayObject *positions, PyArrayObject *grads, PyArrayObject *output_shape,
                                             PyArrayObject **out, PARAMS_TYPE *params) {
  typedef DTYPE_OUTPUT_0 T;
  const char *op = "StochasticMaxPoolGrad";
  npy_int64 dims[4], positions_dims[4], size[2];
  PoolShape s;
  copy_dims(grads, dims);
  copy_dims(positions, positions_dims);
  if (pool_grad_shape(op, "gz", dims, size, read_sizes(output_shape, size), params, &s) != 0 ||
      check_dims(op, "positions", positions_dims, dims) != 0)
    return -1;
  const npy_int64 out_dims[4] = {s.channels, s.rows, s.cols, s.n};
  const ContiguousArray position_array(positions), grad_array(grads);
  if (position_array.failed() || grad_array.failed() || prepare_output(op, out, 4, out_dims, TYPENUM_OUTPUT_0) != 0)
    return -1;
  stochastic_max_pool_grad(s, position_array.data<npy_int32>(), grad_array.data<T>(), (T *)PyArray_DATA(*out));
  return 0;
}

int APPLY_SPECIFIC(stochastic_max_pool_rop)(PyArrayObject *direction, PyArrayObject *positions, PyArrayObject **out,
                                            PARAMS_TYPE *params) {
  typedef DTYPE_OUTPUT_0 T;
  const char *op = "StochasticMaxPoolRop";
  npy_int64 dims[4], positions_dims[4];
  PoolShape s;
  copy_dims(direction, dims);
  copy_dims(positions, positions_dims);
  if (pool_shape(op, dims, params, &s) != 0) return -1;
  const npy_int64 out_dims[4] = {s.channels, s.out_rows, s.out_cols, s.n};
  if (check_dims(op, "positions", positions_dims, out_dims) != 0) return -1;
  const ContiguousArray direction_array(direction), position_array(positions);
  if (direction_array.failed() || position_array.failed() ||
      prepare_output(op, out, 4, out_dims, TYPENUM_OUTPUT_0) != 0)
    return -1;
  stochastic_max_pool_rop(s, direction_array.data<T>(), position_array.data<npy_int32>(), (T *)PyArray_DATA(*out));
  return 0;
}
