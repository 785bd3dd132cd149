#section support_code_struct

// How many splits, at most `limit`. Enough to fill the card's multiprocessors in whole rounds, and short enough to keep
// float32 rounding low: the error of a sum grows with the root of its length.
npy_int64 weight_splits(const ConvShape &s, const GpuRow &row, npy_int64 limit, int multiprocessors) {
  const npy_int64 length_for_accuracy = 8192;
  const npy_int64 shortest = 256;
  const npy_int64 taps = s.channels * s.filter_rows * s.filter_cols;
  const npy_int64 length = s.out_rows * s.out_cols * s.n;
  const npy_int64 tiles =
      s.groups * ((taps + row.tile_m - 1) / row.tile_m) * ((s.filters + row.tile_n - 1) / row.tile_n);
  const npy_int64 round = multiprocessors * row.blocks_per_sm;
  npy_int64 splits = (2 * round) / tiles;
  const npy_int64 accurate = (length + length_for_accuracy - 1) / length_for_accuracy;
  const npy_int64 most = (length + shortest - 1) / shortest;
  if (splits < accurate) splits = accurate;
  if (splits > most) splits = most;
  if (splits > limit) splits = limit;
  if (splits > 65535) splits = 65535;
  return splits < 1 ? 1 : splits;
}

int APPLY_SPECIFIC(weight_acts)(PyGpuArrayObject *images, PyGpuArrayObject *hid_grads, PyArrayObject *output_shape,
                                PyGpuArrayObject **gradient, PyGpuArrayObject **partials, PARAMS_TYPE *params) {
  const char *op = "WeightActs";
  npy_int64 images_dims[4], hid_dims[4], size[2];
  copy_dims(images, images_dims);
  copy_dims(hid_grads, hid_dims);
  const npy_int64 size_count = read_sizes(output_shape, size);
  ConvShape s = shape_with_params(params);
  if (weight_acts_shape(op, images_dims, hid_dims, size, size_count, params->partial_sum_or_0, &s) != 0 ||
      check_index_limit(op, "images", 4, images_dims) != 0 || check_index_limit(op, "hid_grads", 4, hid_dims) != 0)
    return -1;
  const ContiguousGpuArray image_array(images), hid_array(hid_grads);
  if (image_array.failed() || hid_array.failed()) return -1;

  // In the terms of cuda/weight_acts.cu, whose loads all go along q.
  const npy_int64 taps = s.channels * s.filter_rows * s.filter_cols;
  const npy_int64 length = s.out_rows * s.out_cols * s.n;
  const npy_int64 limit = partials_limit(&s, params->partial_sum_or_0, sizeof(float));
  const ProductShape shape = {taps, s.filters, s.groups * limit, 4,
                              vector_width(s.n, image_array.get(), hid_array.get()), 0, 1};
  const GpuRows table = weight_acts_rows();
  const int row = choose_row(table, shape, length, params->context);
  if (row < 0) return -1;
  const bool plain = row_is_forced("weight_acts", "plain");
  const npy_int64 depth = 16;  // kDepth of every row
  npy_int64 splits = plain ? 1 : weight_splits(s, table.rows[row], limit, multiprocessor_count(params->context));
  const npy_int64 split_length = ((length + splits - 1) / splits + depth - 1) / depth * depth;
  splits = (length + split_length - 1) / split_length;

  const npy_int64 partials_dims[5] = {splits, s.channels, s.filter_rows, s.filter_cols, s.groups * s.filters};
  if (prepare_output(op, "output", gradient, 4, partials_dims + 1, params->context) != 0 ||
      prepare_output(op, "partial sums", partials, 5, partials_dims, params->context) != 0)
    return -1;
  WeightActsArgs args;
  args.images = device_array(image_array.get());
  args.hid_grads = device_array(hid_array.get());
  args.partials = device_array(*partials);
  args.channels = (int)s.channels;
  args.rows = (int)s.rows;
  args.cols = (int)s.cols;
  args.taps = (int)taps;
  args.filters_per_group = (int)s.filters;
  args.filter_count = (int)(s.groups * s.filters);
  args.length = (int)length;
  args.split_length = (int)split_length;
  args.stride_y = (int)s.stride_y;
  args.stride_x = (int)s.stride_x;
  args.pad_y = (int)s.pad_y;
  args.pad_x = (int)s.pad_x;
  args.by_n = make_divisor(s.n);
  args.by_out_cols = make_divisor(s.out_cols);
  args.by_window = make_divisor(s.filter_rows * s.filter_cols);
  args.by_filter_cols = make_divisor(s.filter_cols);
  const npy_int64 m_tiles = (taps + table.rows[row].tile_m - 1) / table.rows[row].tile_m;
  const npy_int64 n_tiles = (s.filters + table.rows[row].tile_n - 1) / table.rows[row].tile_n;
  args.by_m_tiles = make_divisor(m_tiles);
  size_t grid[3] = {(size_t)(m_tiles * n_tiles), (size_t)splits, (size_t)s.groups};
  if (plain) elementwise_grid(taps * s.groups * s.filters, table.rows[row].threads, grid);
  if (weight_acts_launch(row, grid, &args, params->context) != 0) return -1;

  SumPartialsArgs sum_args;
  sum_args.partials = device_array(*partials);
  sum_args.out = device_array(*gradient);
  sum_args.splits = (int)splits;
  sum_args.size = (int)(taps * s.groups * s.filters);
  elementwise_grid(sum_args.size, 32, grid);
  return sum_partials_launch(0, grid, &sum_args, params->context);
}
