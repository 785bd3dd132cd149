#section support_code

#include "gpu_norm.h"

#section support_code_struct

int APPLY_SPECIFIC(cross_map_sum)(PyGpuArrayObject *images, PyGpuArrayObject **out, PARAMS_TYPE *params) {
  const char *op = "CrossMapSum";
  npy_int64 dims[4];
  copy_dims(images, dims);
  if (check_not_empty(op, "images", dims) != 0 || check_index_limit(op, "images", 4, dims) != 0) return -1;
  const ContiguousGpuArray image_array(images);
  if (image_array.failed() || prepare_output(op, "output", out, 4, dims, params->context) != 0) return -1;
  PyGpuArrayObject *const arrays[] = {image_array.get(), *out};
  SumArgs args;
  args.images = device_array(image_array.get());
  args.out = device_array(*out);
  const GpuRows table = cross_map_sum_rows();
  const ChannelWindow window = channel_window(params->size_f, params->blocked, params->transposed);
  return launch_norm(table, dims, window, vector_width(dims[1] * dims[2] * dims[3], arrays, 2), &args, params->context,
                     [&](int row, size_t *grid) {
                       set_chunk(table.rows[row], dims[0], window, params->context, &args, grid);
                       return cross_map_sum_launch(row, grid, &args, params->context);
                     });
}
