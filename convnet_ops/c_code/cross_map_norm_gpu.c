#section support_code

#include "gpu_norm.h"

#section support_code_struct

int APPLY_SPECIFIC(cross_map_norm)(PyGpuArrayObject *images, PyGpuArrayObject **acts, PyGpuArrayObject **denoms,
                                   PARAMS_TYPE *params) {
  const char *op = "CrossMapNorm";
  npy_int64 dims[4];
  copy_dims(images, dims);
  if (check_not_empty(op, "images", dims) != 0 || check_index_limit(op, "images", 4, dims) != 0) return -1;
  const ContiguousGpuArray image_array(images);
  if (image_array.failed() || prepare_output(op, "acts", acts, 4, dims, params->context) != 0 ||
      prepare_output(op, "denoms", denoms, 4, dims, params->context) != 0)
    return -1;
  PyGpuArrayObject *const arrays[] = {image_array.get(), *acts, *denoms};
  NormArgs args;
  args.images = device_array(image_array.get());
  args.acts = device_array(*acts);
  args.denoms = device_array(*denoms);
  args.add_scale = (float)params->add_scale;
  args.pow_scale = (float)params->pow_scale;
  const GpuRows table = cross_map_norm_rows();
  const ChannelWindow window = channel_window(params->size_f, params->blocked, false);
  return launch_norm(table, dims, window, vector_width(dims[1] * dims[2] * dims[3], arrays, 3), &args, params->context,
                     [&](int row, size_t *grid) {
                       set_chunk(table.rows[row], dims[0], window, params->context, &args, grid);
                       return cross_map_norm_launch(row, grid, &args, params->context);
                     });
}
