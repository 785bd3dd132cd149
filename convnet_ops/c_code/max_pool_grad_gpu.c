#section support_code

#include "gpu_pool.h"

#section support_code_struct

int APPLY_SPECIFIC(max_pool_grad)(PyGpuArrayObject *images, PyGpuArrayObject *maxout, PyGpuArrayObject *grads,
                                  PyGpuArrayObject **out, PARAMS_TYPE *params) {
  const char *op = "MaxPoolGrad";
  npy_int64 dims[4], maxout_dims[4], grads_dims[4];
  PoolShape s;
  copy_dims(images, dims);
  copy_dims(maxout, maxout_dims);
  copy_dims(grads, grads_dims);
  if (pool_shape(op, dims, params, &s) != 0 || check_index_limit(op, "images", 4, dims) != 0) return -1;
  const npy_int64 top_dims[4] = {s.channels, s.out_rows, s.out_cols, s.n};
  if (check_dims(op, "maxout", maxout_dims, top_dims) != 0 || check_dims(op, "gz", grads_dims, top_dims) != 0 ||
      check_index_limit(op, "gz", 4, top_dims) != 0)
    return -1;
  const ContiguousGpuArray image_array(images), maxout_array(maxout), grad_array(grads);
  if (image_array.failed() || maxout_array.failed() || grad_array.failed() ||
      prepare_output(op, "output", out, 4, dims, params->context) != 0)
    return -1;
  PyGpuArrayObject *const arrays[] = {image_array.get(), maxout_array.get(), grad_array.get(), *out};
  MaxPoolGradArgs args;
  args.images = device_array(image_array.get());
  args.maxout = device_array(maxout_array.get());
  args.grads = device_array(grad_array.get());
  args.out = device_array(*out);
  return launch_pool(
      max_pool_grad_rows(), s, kOverPixels, arrays, 4, &args, params->context,
      [&](int row, const size_t *grid) { return max_pool_grad_launch(row, grid, &args, params->context); });
}
