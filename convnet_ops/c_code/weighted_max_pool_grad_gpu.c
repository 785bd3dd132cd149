#section support_code

#include "gpu_pool.h"

#section support_code_struct

int APPLY_SPECIFIC(weighted_max_pool_grad)(PyGpuArrayObject *images, PyGpuArrayObject *weighted, PyGpuArrayObject *sums,
                                           PyGpuArrayObject *grads, PyGpuArrayObject **out, PARAMS_TYPE *params) {
  const char *op = "WeightedMaxPoolGrad";
  npy_int64 dims[4], weighted_dims[4], sums_dims[4], grads_dims[4];
  PoolShape s;
  copy_dims(images, dims);
  copy_dims(weighted, weighted_dims);
  copy_dims(sums, sums_dims);
  copy_dims(grads, grads_dims);
  if (pool_shape(op, dims, params, &s) != 0 || check_index_limit(op, "images", 4, dims) != 0) return -1;
  const npy_int64 top_dims[4] = {s.channels, s.out_rows, s.out_cols, s.n};
  if (check_dims(op, "weighted", weighted_dims, top_dims) != 0 || check_dims(op, "sums", sums_dims, top_dims) != 0 ||
      check_dims(op, "gz", grads_dims, top_dims) != 0 || check_index_limit(op, "gz", 4, top_dims) != 0)
    return -1;
  const ContiguousGpuArray image_array(images), weighted_array(weighted), sum_array(sums), grad_array(grads);
  if (image_array.failed() || weighted_array.failed() || sum_array.failed() || grad_array.failed() ||
      prepare_output(op, "output", out, 4, dims, params->context) != 0)
    return -1;
  PyGpuArrayObject *const arrays[] = {image_array.get(), weighted_array.get(), sum_array.get(), grad_array.get(), *out};
  WeightedMaxPoolGradArgs args;
  args.images = device_array(image_array.get());
  args.weighted = device_array(weighted_array.get());
  args.sums = device_array(sum_array.get());
  args.grads = device_array(grad_array.get());
  args.out = device_array(*out);
  return launch_pool(
      weighted_max_pool_grad_rows(), s, kOverPixels, arrays, 5, &args, params->context,
      [&](int row, const size_t *grid) { return weighted_max_pool_grad_launch(row, grid, &args, params->context); });
}
