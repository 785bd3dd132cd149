#section support_code

#include "gpu_pool.h"

#section support_code_struct

int APPLY_SPECIFIC(stochastic_max_pool_rop)(PyGpuArrayObject *direction, PyGpuArrayObject *positions,
                                            PyGpuArrayObject **out, PARAMS_TYPE *params) {
  const char *op = "StochasticMaxPoolRop";
  npy_int64 dims[4], positions_dims[4];
  PoolShape s;
  copy_dims(direction, dims);
  copy_dims(positions, positions_dims);
  if (pool_shape(op, dims, params, &s) != 0 || check_index_limit(op, "eval_point", 4, dims) != 0) return -1;
  const npy_int64 out_dims[4] = {s.channels, s.out_rows, s.out_cols, s.n};
  if (check_dims(op, "positions", positions_dims, out_dims) != 0) return -1;
  const ContiguousGpuArray direction_array(direction), position_array(positions);
  if (direction_array.failed() || position_array.failed() ||
      prepare_output(op, "output", out, 4, out_dims, params->context) != 0)
    return -1;
  PyGpuArrayObject *const arrays[] = {direction_array.get(), position_array.get(), *out};
  StochasticMaxPoolRopArgs args;
  args.direction = device_array(direction_array.get());
  args.positions = device_array(position_array.get());
  args.out = device_array(*out);
  return launch_pool(
      stochastic_max_pool_rop_rows(), s, kOverOutputs, arrays, 3, &args, params->context,
      [&](int row, const size_t *grid) { return stochastic_max_pool_rop_launch(row, grid, &args, params->context); });
}
