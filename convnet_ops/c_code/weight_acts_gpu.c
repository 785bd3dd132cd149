#section support_code

#include "gpu_conv.h"

#section support_code_struct

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

  const npy_int64 batch = padded_batch(s.n);
  PaddedGpuArray padded_images, padded_hid;
  PadRowsArgs pad_args;
  const auto pad = [&](PadRowsArgs *args, const size_t *grid) {
    return pad_rows_launch(0, grid, args, params->context);
  };
  if (padded_images.fill(op, image_array.get(), images_dims[0] * images_dims[1] * images_dims[2] * s.n, s.n, batch,
                         &pad_args, params->context, pad) != 0 ||
      padded_hid.fill(op, hid_array.get(), hid_dims[0] * hid_dims[1] * hid_dims[2] * s.n, s.n, batch, &pad_args,
                      params->context, pad) != 0)
    return -1;

  // In the terms of cuda/weight_acts.cu, whose loads all go along q. The error of a sum grows with the root of its
  // length: no split is longer than 8192, where that is allowed.
  const npy_int64 taps = s.channels * s.filter_rows * s.filter_cols;
  const npy_int64 length = s.out_rows * s.out_cols * batch;
  const npy_int64 limit = std::min<npy_int64>(partials_limit(&s, params->partial_sum_or_0, sizeof(float)), 65535);
  const npy_int64 accurate = std::min(limit, (length + 8191) / 8192);
  const ProductShape shape = {taps, s.filters, s.groups, 4, vector_width(batch, padded_images.get(), padded_hid.get()),
                              0, 1, 0, 0, length, accurate, limit, params->tf32 != 0,
                              padded_images.copied_bytes() + padded_hid.copied_bytes()};
  const npy_int64 gradient_dims[4] = {s.channels, s.filter_rows, s.filter_cols, s.groups * s.filters};
  if (prepare_output(op, "output", gradient, 4, gradient_dims, params->context) != 0) return -1;
  WeightActsArgs args;
  args.images = device_array(padded_images.get());
  args.hid_grads = device_array(padded_hid.get());
  args.channels = (int)s.channels;
  args.rows = (int)s.rows;
  args.cols = (int)s.cols;
  args.taps = (int)taps;
  args.filters_per_group = (int)s.filters;
  args.filter_count = (int)(s.groups * s.filters);
  args.length = (int)length;
  args.stride_y = (int)s.stride_y;
  args.stride_x = (int)s.stride_x;
  args.pad_y = (int)s.pad_y;
  args.pad_x = (int)s.pad_x;
  args.by_n = make_divisor(batch);
  args.by_out_cols = make_divisor(s.out_cols);
  args.by_window = make_divisor(s.filter_rows * s.filter_cols);
  args.by_filter_cols = make_divisor(s.filter_cols);
  const GpuRows table = weight_acts_rows();
  const bool plain = row_is_forced("weight_acts", "plain");
  return run_choice(table, shape, params->context, *gradient, [&](const Choice &choice) {
    const GpuRow &row = table.rows[choice.row];
    const npy_int64 depth = 16;  // kDepth of every row
    const npy_int64 wanted = plain ? 1 : choice.splits;
    args.split_length = (int)(((length + wanted - 1) / wanted + depth - 1) / depth * depth);
    const npy_int64 splits = plain ? 1 : (length + args.split_length - 1) / args.split_length;
    const npy_int64 partials_dims[5] = {splits, s.channels, s.filter_rows, s.filter_cols, s.groups * s.filters};
    if (prepare_output(op, "partial sums", partials, 5, partials_dims, params->context) != 0) return -1;
    args.partials = device_array(*partials);
    const npy_int64 m_tiles = (taps + row.tile_m - 1) / row.tile_m;
    const npy_int64 n_tiles = (s.filters + row.tile_n - 1) / row.tile_n;
    args.by_m_tiles = make_divisor(m_tiles);
    size_t grid[3] = {(size_t)(m_tiles * n_tiles), (size_t)splits, (size_t)s.groups};
    if (plain) elementwise_grid(taps * s.groups * s.filters, row.threads, grid);
    if (weight_acts_launch(choice.row, grid, &args, params->context) != 0) return -1;
    SumPartialsArgs sum_args;
    fill_sum_args(*partials, *gradient, splits, taps * s.groups * s.filters, &sum_args, grid);
    return sum_partials_launch(0, grid, &sum_args, params->context);
  });
}
