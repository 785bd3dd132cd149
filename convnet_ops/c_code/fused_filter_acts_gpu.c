#section support_code

#include "activation.h"
#include "gpu_launch.h"

#section support_code_struct

int APPLY_SPECIFIC(fused_filter_acts)(PyGpuArrayObject *images, PyGpuArrayObject *filters, PyGpuArrayObject *bias,
                                      PyGpuArrayObject **out, PARAMS_TYPE *params) {
  const char *op = "FusedFilterActs";
  npy_int64 images_dims[4], filters_dims[4];
  copy_dims(images, images_dims);
  copy_dims(filters, filters_dims);
  ConvShape s = shape_with_params(params);
  if (filter_acts_shape(op, images_dims, filters_dims, &s) != 0 ||
      check_bias(op, PyGpuArray_DIM(bias, 0), filters_dims[3]) != 0 ||
      check_index_limit(op, "images", 4, images_dims) != 0 || check_index_limit(op, "filters", 4, filters_dims) != 0)
    return -1;
  const npy_int64 out_dims[4] = {filters_dims[3], s.out_rows, s.out_cols, s.n};
  const ContiguousGpuArray image_array(images), filter_array(filters), bias_array(bias);
  if (image_array.failed() || filter_array.failed() || bias_array.failed() ||
      prepare_output(op, "output", out, 4, out_dims, params->context) != 0)
    return -1;
  // Of both kernels' arguments.
  const auto fill = [&](auto *args) {
    args->images = device_array(image_array.get());
    args->filters = device_array(filter_array.get());
    args->bias = device_array(bias_array.get());
    args->out = device_array(*out);
    args->activation = (int)params->activation_code;
    args->slope = (float)params->slope;
  };
  size_t grid[3];
  if (row_is_forced("fused_filter_acts", "plain")) {
    FusedFilterActsPlainArgs args;
    fill(&args);
    fill_plain_args(s, &args);
    args.size = (int)(out_dims[0] * out_dims[1] * out_dims[2] * out_dims[3]);
    elementwise_grid(args.size, fused_filter_acts_plain_rows().rows[0].threads, grid);
    return fused_filter_acts_plain_launch(0, grid, &args, params->context);
  }
  const Correlation c = forward_correlation(&s);
  const ProductShape shape = {c.m, correlation_columns(&c), c.groups,
                              c.m % 4 == 0 ? vector_width(c.filter_stride, filter_array.get(), NULL) : 1,
                              vector_width(c.n, image_array.get(), *out), c.n, correlation_inside_share(&c)};
  const GpuRows table = fused_filter_acts_rows();
  const int row = choose_row(table, shape, correlation_depth(&c), params->context);
  if (row < 0) return -1;
  FusedFilterActsArgs args;
  fill(&args);
  fill_correlate_args(c, table.rows[row], &args, grid);
  return fused_filter_acts_launch(row, grid, &args, params->context);
}
