#section support_code

#include "gpu_pool.h"

#section support_code_struct

int APPLY_SPECIFIC(avg_pool)(PyGpuArrayObject *images, PyGpuArrayObject **out, PARAMS_TYPE *params) {
  const char *op = params->average ? "AvgPool" : "SumPool";
  npy_int64 dims[4];
  PoolShape s;
  copy_dims(images, dims);
  if (pool_shape(op, dims, params, &s) != 0 || check_index_limit(op, "images", 4, dims) != 0) return -1;
  const npy_int64 out_dims[4] = {s.channels, s.out_rows, s.out_cols, s.n};
  const ContiguousGpuArray image_array(images);
  if (image_array.failed() || prepare_output(op, "output", out, 4, out_dims, params->context) != 0) return -1;
  PyGpuArrayObject *const arrays[] = {image_array.get(), *out};
  AvgPoolArgs args;
  args.average = params->average;
  args.images = device_array(image_array.get());
  args.out = device_array(*out);
  return launch_pool(avg_pool_rows(), s, kOverOutputs, arrays, 2, &args, params->context,
                     [&](int row, const size_t *grid) { return avg_pool_launch(row, grid, &args, params->context); });
}
