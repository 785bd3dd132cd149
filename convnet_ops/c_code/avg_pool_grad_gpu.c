#section support_code

#include "gpu_pool.h"

#section support_code_struct

int APPLY_SPECIFIC(avg_pool_grad)(PyGpuArrayObject *grads, PyArrayObject *output_shape, PyGpuArrayObject **out,
                                  PARAMS_TYPE *params) {
  const char *op = params->average ? "AvgPoolGrad" : "SumPoolGrad";
  npy_int64 dims[4], size[2];
  PoolShape s;
  copy_dims(grads, dims);
  if (pool_grad_shape(op, "gz", dims, size, read_sizes(output_shape, size), params, &s) != 0 ||
      check_index_limit(op, "gz", 4, dims) != 0)
    return -1;
  const npy_int64 out_dims[4] = {s.channels, s.rows, s.cols, s.n};
  const ContiguousGpuArray grad_array(grads);
  if (grad_array.failed() || prepare_output(op, "output", out, 4, out_dims, params->context) != 0) return -1;
  PyGpuArrayObject *const arrays[] = {grad_array.get(), *out};
  AvgPoolGradArgs args;
  args.average = params->average;
  args.grads = device_array(grad_array.get());
  args.out = device_array(*out);
  return launch_pool(
      avg_pool_grad_rows(), s, kOverPixels, arrays, 2, &args, params->context,
      [&](int row, const size_t *grid) { return avg_pool_grad_launch(row, grid, &args, params->context); });
}
