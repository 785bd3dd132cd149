#section support_code

#include "gpu_pool.h"

#section support_code_struct

int APPLY_SPECIFIC(stochastic_max_pool)(PyGpuArrayObject *images, PyArrayObject *draw, PyGpuArrayObject **out,
                                        PyGpuArrayObject **positions, PARAMS_TYPE *params) {
  const char *op = "StochasticMaxPool";
  npy_int64 dims[4];
  PoolShape s;
  copy_dims(images, dims);
  if (pool_shape(op, dims, params, &s) != 0 || check_window_numbers(op, s) != 0 ||
      check_index_limit(op, "images", 4, dims) != 0)
    return -1;
  const npy_int64 out_dims[4] = {s.channels, s.out_rows, s.out_cols, s.n};
  const ContiguousGpuArray image_array(images);
  if (image_array.failed() || prepare_output(op, "output", out, 4, out_dims, params->context) != 0 ||
      prepare_output(op, "positions", positions, 4, out_dims, params->context, GA_INT) != 0)
    return -1;
  PyGpuArrayObject *const arrays[] = {image_array.get(), *out, *positions};
  const npy_uint64 seed = (npy_uint64)params->seed, number = (npy_uint64) * (npy_int64 *)PyArray_DATA(draw);
  StochasticMaxPoolArgs args;
  args.seed_low = (unsigned)seed;
  args.seed_high = (unsigned)(seed >> 32);
  args.draw_low = (unsigned)number;
  args.draw_high = (unsigned)(number >> 32);
  args.images = device_array(image_array.get());
  args.out = device_array(*out);
  args.positions = device_array(*positions);
  return launch_pool(
      stochastic_max_pool_rows(), s, kOverOutputs, arrays, 3, &args, params->context,
      [&](int row, const size_t *grid) { return stochastic_max_pool_launch(row, grid, &args, params->context); });
}
