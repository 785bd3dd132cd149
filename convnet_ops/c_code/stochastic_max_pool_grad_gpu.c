#section support_code

#include "gpu_pool.h"

#section support_code_struct

int APPLY_SPECIFIC(stochastic_max_pool_grad)(PyGpuArrayObject *positions, PyGpuArrayObject *grads,
                                             PyArrayObject *output_shape, PyGpuArrayObject **out, PARAMS_TYPE *params) {
  const char *op = "StochasticMaxPoolGrad";
  npy_int64 dims[4], positions_dims[4], size[2];
  PoolShape s;
  copy_dims(grads, dims);
  copy_dims(positions, positions_dims);
  if (pool_grad_shape(op, "gz", dims, size, read_sizes(output_shape, size), params, &s) != 0 ||
      check_dims(op, "positions", positions_dims, dims) != 0 || check_index_limit(op, "gz", 4, dims) != 0)
    return -1;
  const npy_int64 out_dims[4] = {s.channels, s.rows, s.cols, s.n};
  const ContiguousGpuArray position_array(positions), grad_array(grads);
  if (position_array.failed() || grad_array.failed() ||
      prepare_output(op, "output", out, 4, out_dims, params->context) != 0)
    return -1;
  PyGpuArrayObject *const arrays[] = {position_array.get(), grad_array.get(), *out};
  StochasticMaxPoolGradArgs args;
  args.positions = device_array(position_array.get());
  args.grads = device_array(grad_array.get());
  args.out = device_array(*out);
  return launch_pool(
      stochastic_max_pool_grad_rows(), s, kOverPixels, arrays, 3, &args, params->context,
      [&](int row, const size_t *grid) { return stochastic_max_pool_grad_launch(row, grid, &args, params->context); });
}
