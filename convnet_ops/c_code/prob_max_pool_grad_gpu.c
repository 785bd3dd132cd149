#section support_code

#include "gpu_pool.h"

#section support_code_struct

int APPLY_SPECIFIC(prob_max_pool_grad)(PyGpuArrayObject *z, PyGpuArrayObject *top_down, PyGpuArrayObject *p_grads,
                                       PyGpuArrayObject *h_grads, PyGpuArrayObject **z_out,
                                       PyGpuArrayObject **top_down_out, PARAMS_TYPE *params) {
  const char *op = "ProbMaxPoolGrad";
  npy_int64 dims[4], top_down_dims[4], p_dims[4], h_dims[4];
  PoolShape s;
  copy_dims(z, dims);
  copy_dims(top_down, top_down_dims);
  copy_dims(p_grads, p_dims);
  copy_dims(h_grads, h_dims);
  if (pool_shape(op, dims, params, &s) != 0 || check_index_limit(op, "z", 4, dims) != 0) return -1;
  const npy_int64 out_dims[4] = {s.channels, s.out_rows, s.out_cols, s.n};
  if (check_dims(op, "top_down", top_down_dims, out_dims) != 0 || check_dims(op, "gp", p_dims, out_dims) != 0 ||
      check_dims(op, "gh", h_dims, dims) != 0)
    return -1;
  const ContiguousGpuArray z_array(z), top_down_array(top_down), p_array(p_grads), h_array(h_grads);
  if (z_array.failed() || top_down_array.failed() || p_array.failed() || h_array.failed() ||
      prepare_output(op, "gradient of z", z_out, 4, dims, params->context) != 0 ||
      prepare_output(op, "gradient of top_down", top_down_out, 4, out_dims, params->context) != 0)
    return -1;
  PyGpuArrayObject *const arrays[] = {z_array.get(), top_down_array.get(), p_array.get(),
                                      h_array.get(), *z_out,               *top_down_out};
  ProbMaxPoolGradArgs args;
  args.z = device_array(z_array.get());
  args.top_down = device_array(top_down_array.get());
  args.p_grads = device_array(p_array.get());
  args.h_grads = device_array(h_array.get());
  args.z_out = device_array(*z_out);
  args.top_down_out = device_array(*top_down_out);
  return launch_pool(
      prob_max_pool_grad_rows(), s, kOverTiles, arrays, 6, &args, params->context,
      [&](int row, const size_t *grid) { return prob_max_pool_grad_launch(row, grid, &args, params->context); });
}
