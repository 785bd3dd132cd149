#section support_code

#include "gpu_pool.h"

#section support_code_struct

int APPLY_SPECIFIC(prob_max_pool)(PyGpuArrayObject *z, PyGpuArrayObject *top_down, PyGpuArrayObject **p,
                                  PyGpuArrayObject **h, PARAMS_TYPE *params) {
  const char *op = "ProbMaxPool";
  npy_int64 dims[4], top_down_dims[4];
  PoolShape s;
  copy_dims(z, dims);
  copy_dims(top_down, top_down_dims);
  if (pool_shape(op, dims, params, &s) != 0 || check_index_limit(op, "z", 4, dims) != 0) return -1;
  const npy_int64 out_dims[4] = {s.channels, s.out_rows, s.out_cols, s.n};
  if (check_dims(op, "top_down", top_down_dims, out_dims) != 0) return -1;
  const ContiguousGpuArray z_array(z), top_down_array(top_down);
  if (z_array.failed() || top_down_array.failed() || prepare_output(op, "p", p, 4, out_dims, params->context) != 0 ||
      prepare_output(op, "h", h, 4, dims, params->context) != 0)
    return -1;
  PyGpuArrayObject *const arrays[] = {z_array.get(), top_down_array.get(), *p, *h};
  ProbMaxPoolArgs args;
  args.z = device_array(z_array.get());
  args.top_down = device_array(top_down_array.get());
  args.p = device_array(*p);
  args.h = device_array(*h);
  return launch_pool(
      prob_max_pool_rows(), s, kOverTiles, arrays, 4, &args, params->context,
      [&](int row, const size_t *grid) { return prob_max_pool_launch(row, grid, &args, params->context); });
}
