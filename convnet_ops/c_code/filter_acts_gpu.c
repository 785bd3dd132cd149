#section support_code_struct

int filter_acts_plain(const ConvShape &s, PyGpuArrayObject *images, PyGpuArrayObject *filters, PyGpuArrayObject *out,
                      PyGpuContextObject *context) {
  FilterActsArgs args;
  args.images = device_array(images);
  args.filters = device_array(filters);
  args.out = device_array(out);
  fill_plain_args(s, &args);
  args.size = (int)(s.groups * s.filters * s.out_rows * s.out_cols * s.n);
  size_t grid[3];
  elementwise_grid(args.size, filter_acts_plain_rows().rows[0].threads, grid);
  return filter_acts_plain_launch(0, grid, &args, context);
}

int APPLY_SPECIFIC(filter_acts)(PyGpuArrayObject *images, PyGpuArrayObject *filters, PyGpuArrayObject **out,
                                PARAMS_TYPE *params) {
  const char *op = "FilterActs";
  npy_int64 images_dims[4], filters_dims[4];
  copy_dims(images, images_dims);
  copy_dims(filters, filters_dims);
  ConvShape s = shape_with_params(params);
  if (filter_acts_shape(op, images_dims, filters_dims, &s) != 0 ||
      check_index_limit(op, "images", 4, images_dims) != 0 || check_index_limit(op, "filters", 4, filters_dims) != 0)
    return -1;
  const npy_int64 out_dims[4] = {filters_dims[3], s.out_rows, s.out_cols, s.n};
  const ContiguousGpuArray image_array(images), filter_array(filters);
  if (image_array.failed() || filter_array.failed() ||
      prepare_output(op, "output", out, 4, out_dims, params->context) != 0)
    return -1;
  if (row_is_forced("filter_acts", "plain"))
    return filter_acts_plain(s, image_array.get(), filter_array.get(), *out, params->context);

  const Correlation c = forward_correlation(&s);
  const ProductShape shape = {c.m, correlation_columns(&c), c.groups,
                              c.m % 4 == 0 ? vector_width(c.filter_stride, filter_array.get(), NULL) : 1,
                              vector_width(c.n, image_array.get(), *out), c.n, correlation_inside_share(&c)};
  const GpuRows table = filter_acts_rows();
  const int row = choose_row(table, shape, correlation_depth(&c), params->context);
  if (row < 0) return -1;
  CorrelateArgs args;
  args.images = device_array(image_array.get());
  args.filters = device_array(filter_array.get());
  args.out = device_array(*out);
  size_t grid[3];
  fill_correlate_args(c, table.rows[row], &args, grid);
  return filter_acts_launch(row, grid, &args, params->context);
}
