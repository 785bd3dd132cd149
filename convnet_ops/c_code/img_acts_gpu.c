#section support_code

#include "gpu_conv.h"

#section support_code_struct

// What cheapest_image_correlation gave for the last shape, with the batch padded.
ConvShape last_padded = {};
Correlation last_correlation;

int img_acts_plain(const ConvShape &s, PyGpuArrayObject *hid_acts, PyGpuArrayObject *filters, PyGpuArrayObject *out,
                   PyGpuContextObject *context) {
  ImgActsArgs args;
  args.hid_acts = device_array(hid_acts);
  args.filters = device_array(filters);
  args.out = device_array(out);
  fill_plain_args(s, &args);
  args.size = (int)(s.groups * s.channels * s.rows * s.cols * s.n);
  size_t grid[3];
  elementwise_grid(args.size, img_acts_plain_rows().rows[0].threads, grid);
  return img_acts_plain_launch(0, grid, &args, context);
}

// A new array of the filters as image_correlation wants them, or NULL with an exception.
PyGpuArrayObject *arranged_filters(const char *op, const ConvShape &s, const Correlation &c, PyGpuArrayObject *filters,
                                   PyGpuContextObject *context) {
  const npy_int64 dims[4] = {s.filters, c.taps_y, c.taps_x, c.filter_stride};
  if (check_index_limit(op, "workspace", 4, dims) != 0) return NULL;
  PyGpuArrayObject *arranged = allocate(op, "workspace", 4, dims, context);
  if (arranged == NULL) return NULL;
  ArrangeFiltersArgs args;
  args.filters = device_array(filters);
  args.out = device_array(arranged);
  args.channels = (int)s.channels;
  args.filter_rows = (int)s.filter_rows;
  args.filter_cols = (int)s.filter_cols;
  args.filter_count = (int)(s.groups * s.filters);
  args.filters_per_group = (int)s.filters;
  args.filter_group = (int)c.filter_group;
  args.taps_y = (int)c.taps_y;
  args.stride_y = (int)s.stride_y;
  args.stride_x = (int)s.stride_x;
  args.block_y = (int)c.stride_y;
  args.block_x = (int)c.stride_x;
  args.by_taps_x = make_divisor(c.taps_x);
  args.by_phases_y = make_divisor(c.phases_y);
  args.by_phases_x = make_divisor(c.phases_x);
  args.by_groups = make_divisor(s.groups);
  // The channels that fill up a group count too: their blocks write its zeros.
  const npy_int64 channels = (c.filter_group + c.phases_y * c.phases_x - 1) / (c.phases_y * c.phases_x);
  const size_t grid[3] = {(size_t)(c.taps_y * c.taps_x * c.phases_y * c.phases_x * s.groups),
                          (size_t)((channels + 31) / 32), (size_t)((s.filters + 31) / 32)};
  if (arrange_filters_launch(0, grid, &args, context) != 0) {
    Py_DECREF(arranged);
    return NULL;
  }
  return arranged;
}

int APPLY_SPECIFIC(img_acts)(PyGpuArrayObject *hid_acts, PyGpuArrayObject *filters, PyArrayObject *output_shape,
                             PyGpuArrayObject **out, PARAMS_TYPE *params) {
  const char *op = "ImageActs";
  npy_int64 hid_dims[4], filters_dims[4], size[2];
  copy_dims(hid_acts, hid_dims);
  copy_dims(filters, filters_dims);
  const npy_int64 size_count = read_sizes(output_shape, size);
  ConvShape s = shape_with_params(params);
  if (img_acts_shape(op, hid_dims, filters_dims, size, size_count, &s) != 0 ||
      check_index_limit(op, "hid_acts", 4, hid_dims) != 0 || check_index_limit(op, "filters", 4, filters_dims) != 0)
    return -1;
  const npy_int64 out_dims[4] = {s.groups * s.channels, s.rows, s.cols, s.n};
  const ContiguousGpuArray hid_array(hid_acts), filter_array(filters);
  if (hid_array.failed() || filter_array.failed() ||
      prepare_output(op, "output", out, 4, out_dims, params->context) != 0)
    return -1;
  if (row_is_forced("img_acts", "plain"))
    return img_acts_plain(s, hid_array.get(), filter_array.get(), *out, params->context);

  const GpuRows table = img_acts_rows();
  const Card card = card_of(params->context);
  const npy_int64 batch = padded_batch(s.n);
  ConvShape padded = s;
  padded.n = batch;
  const auto product = [&](const Correlation &candidate, npy_int64 workspace) {
    return correlation_product(candidate, batch % 4 == 0 ? 4 : 1, params->tf32, workspace);
  };
  // With few channels there are many to choose from, which takes as long as a small batch: the last answer is kept.
  if (memcmp(&padded, &last_padded, sizeof padded) != 0) {
    last_correlation = cheapest_image_correlation(&padded, [&](const Correlation &candidate) {
      const ProductShape shape = product(candidate, 0);
      const Choice choice = cheapest_row(table, shape, card);
      return row_cost(table.rows[choice.row], shape, choice.splits, card);
    });
    last_padded = padded;
  }
  Correlation c = last_correlation;
  c.out_n = s.n;
  const auto run_direct = [&] {
    PaddedGpuArray padded_hid;
    PadRowsArgs pad_args;
    if (padded_hid.fill(op, hid_array.get(), hid_dims[0] * hid_dims[1] * hid_dims[2] * s.n, s.n, batch, &pad_args,
                        params->context, [&](PadRowsArgs *args, const size_t *grid) {
                          return pad_rows_launch(0, grid, args, params->context);
                        }) != 0)
      return -1;
    const OwnedGpuArray arranged(arranged_filters(op, s, c, filter_array.get(), params->context));
    if (arranged.get() == NULL) return -1;
    CorrelateArgs args;
    args.images = device_array(padded_hid.get());
    args.filters = device_array(arranged.get());
    ProductShape shape = product(c, 0);
    shape.vec_n = vector_width(batch, padded_hid.get(), *out);
    shape.workspace = padded_hid.copied_bytes() + 4 * s.filters * c.taps_y * c.taps_x * c.filter_stride;
    return run_correlation(
        op, table, c, shape, *out, params->context, &args,
        [&](int row, const size_t *grid) {
          // Without phases FilterActs' kernels, of the same rows, do the same in fewer steps.
          return c.phases_y * c.phases_x == 1 ? filter_acts_launch(row, grid, &args, params->context)
                                              : img_acts_launch(row, grid, &args, params->context);
        },
        [&](PyGpuArrayObject *partials, npy_int64 splits) {
          SumPartialsArgs sum_args;
          size_t grid[3];
          fill_sum_args(partials, *out, splits, args.out_size, &sum_args, grid);
          return sum_partials_launch(0, grid, &sum_args, params->context);
        });
  };
  const Correlation unpadded = image_correlation(&s, 1, 1);
  const npy_int64 copied = batch == s.n ? 0 : 4 * hid_dims[0] * hid_dims[1] * hid_dims[2] * batch;
  return run_correlation_plan(table, product(c, copied), unpadded, *out, params->context, [&](const WinogradPlan &plan) {
    if (plan.row < 0) return run_direct();
    const OwnedGpuArray arranged(arranged_filters(op, s, unpadded, filter_array.get(), params->context));
    if (arranged.get() == NULL) return -1;
    WinogradOutputsArgs outputs;
    return winograd_correlation(op, "img_acts", plan, unpadded, params->tf32, hid_array.get(), arranged.get(), *out,
                                params->context, &outputs, [&](const size_t *grid) {
                                  return winograd_outputs_launch(plan.row, grid, &outputs, params->context);
                                });
  });
}
