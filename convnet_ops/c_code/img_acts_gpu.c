#section support_code

#include "gpu_conv.h"

// The product of ImageActs by columns: sums over filters for each tap of a channel and each output, cut into so many splits, each
// of which counts as a product of its own. What is written and read again is its workspace; reading what further splits wrote
// takes longer than that counts, by what alex1 to alex5 and cb5 took with one image and 1, 2 and 4 splits. Those of one split move
// through the second-level cache in no time where it holds them (lenet1, lenet2 and cb5, 16 to 500 images).
static ProductShape columns_product(const ConvShape &s, npy_int64 splits, int vec_m, int vec_n, bool tf32) {
  const npy_int64 taps = s.channels * s.filter_rows * s.filter_cols, outputs = s.out_rows * s.out_cols * s.n;
  const npy_int64 bytes = 4 * outputs * taps;
  const double cached_us = splits * bytes <= 32 << 20 ? copy_us(bytes) : 0;
  const ProductShape shape = {taps, outputs, splits, vec_m, vec_n, 0, 1, 0, 0, (s.filters + splits - 1) / splits, 1, 1, tf32,
                              splits * bytes, true, false, 1.7e-6 * bytes * (splits - 1) - cached_us};
  return shape;
}

// Whether the columns are no larger than partial sums may be, too.
static bool columns_fit(const ConvShape &s) {
  const double taps = (double)s.channels * s.filter_rows * s.filter_cols;
  return s.groups == 1 && 4 * taps * s.out_rows * s.out_cols * s.n <= kPartialBytes;
}

// The splits of the columns' sums that take least.
static ProductShape cheapest_columns(const GpuRows &rows, const ConvShape &s, int vec_m, int vec_n, bool tf32,
                                     const Card &card) {
  ProductShape best = columns_product(s, 1, vec_m, vec_n, tf32);
  for (npy_int64 splits = 2; splits <= 8 && splits * 32 <= s.filters; splits *= 2) {
    const ProductShape shape = columns_product(s, splits, vec_m, vec_n, tf32);
    if (shape.workspace <= kPartialBytes && cheapest_cost(rows, shape, card) < cheapest_cost(rows, best, card)) best = shape;
  }
  return best;
}

#section support_code_struct

// What was chosen for the last shape: the correlation, with the batch padded, that of halves, the columns' splits, and whether
// these are faster.
ConvShape last_shape = {};
npy_int64 last_batch;
Correlation last_correlation, last_half_correlation;
npy_int64 last_splits;
bool last_by_columns;

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

// The gradient by columns, with the best row for `shape`.
int img_acts_by_columns(const char *op, const ConvShape &s, const ProductShape &shape, PyGpuArrayObject *hid_acts,
                        PyGpuArrayObject *filters, PyGpuArrayObject *out, PyGpuContextObject *context) {
  const npy_int64 outputs = shape.n, taps = shape.m, splits = shape.batches;
  const npy_int64 columns_dims[4] = {1, splits, taps, outputs};
  const OwnedGpuArray columns(new_workspace(op, columns_dims, context));
  if (columns.get() == NULL) return -1;
  TapColumnsArgs args;
  args.filters = device_array(filters);
  args.hid_acts = device_array(hid_acts);
  args.columns = device_array(columns.get());
  args.taps = (int)taps;
  args.filter_count = (int)s.filters;
  args.outputs = (int)outputs;
  args.split_depth = (int)((shape.depth + 15) / 16 * 16);
  const GpuRows table = img_acts_columns_rows();
  if (run_choice(table, shape, context, columns.get()->ga.data, [&](const Choice &choice) {
        const GpuRow &row = table.rows[choice.row];
        const npy_int64 m_tiles = (taps + row.tile_m - 1) / row.tile_m;
        args.by_m_tiles = make_divisor(m_tiles);
        const size_t grid[3] = {(size_t)(m_tiles * ((outputs + row.tile_n - 1) / row.tile_n)), (size_t)splits, 1};
        return img_acts_columns_launch(choice.row, grid, &args, context);
      }) != 0)
    return -1;
  AddTapsArgs taps_args;
  taps_args.columns = device_array(columns.get());
  taps_args.out = device_array(out);
  taps_args.filter_rows = (int)s.filter_rows;
  taps_args.filter_cols = (int)s.filter_cols;
  taps_args.splits = (int)splits;
  taps_args.split_size = (int)(taps * outputs);
  taps_args.row_size = (int)outputs;
  taps_args.out_rows = (int)s.out_rows;
  taps_args.out_cols = (int)s.out_cols;
  taps_args.pad_y = (int)s.pad_y;
  taps_args.pad_x = (int)s.pad_x;
  taps_args.size = (int)(s.groups * s.channels * s.rows * s.cols * s.n);
  taps_args.by_n = make_divisor(s.n);
  taps_args.by_cols = make_divisor(s.cols);
  taps_args.by_rows = make_divisor(s.rows);
  taps_args.by_stride_y = make_divisor(s.stride_y);
  taps_args.by_stride_x = make_divisor(s.stride_x);
  size_t grid[3];
  elementwise_grid(taps_args.size, 256, grid);
  return add_taps_launch(0, grid, &taps_args, context);
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
  const auto product = [&](const Correlation &candidate, npy_int64 workspace) {
    return correlation_product(candidate, candidate.n % 4 == 0 ? 4 : 1, params->tf32, workspace);
  };
  const npy_int64 pixels = hid_dims[0] * hid_dims[1] * hid_dims[2];
  const Correlation unpadded = image_correlation(&s, 1, 1);
  const npy_int64 batch = cheapest_batch(table, s.n, card, [&](npy_int64 n) {
    Correlation candidate = unpadded;
    candidate.n = n;
    return product(candidate, n == s.n ? 0 : 4 * pixels * n);
  });
  ConvShape padded = s;
  padded.n = batch;
  const npy_int64 copied = batch == s.n ? 0 : 4 * pixels * batch;
  const auto with_arrangement = [&](const Correlation &candidate) {
    return product(candidate, copied + 4 * filter_count(candidate));
  };
  const GpuRows columns_table = img_acts_columns_rows();
  const int vec_m = vector_width(s.filters, filter_array.get(), NULL);
  const int vec_n = vector_width(s.out_rows * s.out_cols * s.n, hid_array.get(), NULL);
  const GpuRows half_table = img_acts_f16_rows();
  const auto half_product = [&](const Correlation &candidate, npy_int64 workspace) {
    return half_correlation_product(candidate, *out, workspace);
  };
  // There may be many to choose from, which takes as long as a small batch: the last answer is kept.
  if (batch != last_batch || memcmp(&s, &last_shape, sizeof s) != 0) {
    last_correlation = cheapest_image_correlation(
        &padded, [&](const Correlation &candidate) { return cheapest_cost(table, product(candidate, 0), card); });
    last_half_correlation = unpadded;
    if (params->float16)
      last_half_correlation = cheapest_image_correlation(&s, [&](const Correlation &candidate) {
        return cheapest_cost(half_table, half_product(candidate, 0), card);
      });
    const ProductShape columns = cheapest_columns(columns_table, s, vec_m, vec_n, params->tf32, card);
    last_splits = columns.batches;
    last_by_columns = columns_fit(s) && cheapest_cost(columns_table, columns, card) <
                                            cheapest_cost(table, with_arrangement(last_correlation), card);
    last_shape = s;
    last_batch = batch;
  }
  Correlation c = last_correlation;
  c.out_n = s.n;
  const ProductShape with_columns = columns_product(s, last_splits, vec_m, vec_n, params->tf32);
  const auto add_partials = [&](const SplitSums &sums) {
    SumPartialsArgs sum_args;
    size_t grid[3];
    fill_sum_args(sums, *out, &sum_args, grid);
    return sum_partials_launch(0, grid, &sum_args, params->context);
  };
  const Correlation half = last_half_correlation;
  const ProductShape halves = params->float16 ? half_product(half, 4 * filter_count(half)) : ProductShape();
  const auto run_halves = [&] {
    const OwnedGpuArray arranged(arranged_filters(op, s, half, filter_array.get(), params->context));
    if (arranged.get() == NULL) return -1;
    HalfCorrelateArgs args;
    return half_correlation(
        op, half_table, half, halves, hid_array.get(), arranged.get(), *out, params->context, &args,
        [&](int row, const size_t *grid) {
          return half.phases_y * half.phases_x == 1 ? filter_acts_f16_launch(row, grid, &args, params->context)
                                                    : img_acts_f16_launch(row, grid, &args, params->context);
        },
        add_partials);
  };
  const auto run_arranged = [&](const Correlation &part, PyGpuArrayObject *arranged) {
    PaddedGpuArray padded_hid;
    PadRowsArgs pad_args;
    if (padded_hid.fill(op, hid_array.get(), pixels * s.n, s.n, part.out_first, part.n, &pad_args, params->context,
                        [&](PadRowsArgs *args, const size_t *grid) {
                          return pad_rows_launch(0, grid, args, params->context);
                        }) != 0)
      return -1;
    CorrelateArgs args;
    args.images = padded_hid.get();
    args.image_n = (int)padded_hid.pitch();
    args.filters = device_array(arranged);
    ProductShape shape = product(part, 4 * filter_count(part) + padded_hid.copied_bytes());
    shape.vec_n = padded_hid.vectors(part.n, *out);
    return run_correlation(
        op, table, part, shape, device_array(*out), params->context, &args,
        [&](int row, const size_t *grid) {
          // Without phases FilterActs' kernels, of the same rows, do the same in fewer steps.
          return part.phases_y * part.phases_x == 1 ? filter_acts_launch(row, grid, &args, params->context)
                                                    : img_acts_launch(row, grid, &args, params->context);
        },
        add_partials);
  };
  const auto run_correlation_of_images = [&] {
    const OwnedGpuArray arranged(arranged_filters(op, s, c, filter_array.get(), params->context));
    return arranged.get() == NULL ? -1 : run_arranged(c, arranged.get());
  };
  const auto run_columns = [&] {
    return img_acts_by_columns(op, s, with_columns, hid_array.get(), filter_array.get(), *out, params->context);
  };
  size_t length;
  const char *forced = forced_row(columns_table.family, &length);
  bool by_columns = forced != NULL;
  if (by_columns && s.groups != 1) {
    PyErr_Format(PyExc_ValueError, "CONVNET_OPS_VARIANT: img_acts_columns=%.200s wants 1 group; there are %lld", forced,
                 (long long)s.groups);
    return -1;
  }
  if (!by_columns && forced_row(table.family, &length) == NULL) {
    by_columns = last_by_columns;
    if (tuning_file() != NULL && columns_fit(s) && cheapest_row(columns_table, with_columns, card).row >= 0) {
      const std::string key = "ways_" + tuning_key(table, with_arrangement(c), card) + ":" +
                              tuning_key(columns_table, with_columns, card);
      const Way correlation_way = {"correlation", 1}, columns_way = {"columns", 1};
      Way way;
      if (fastest_way(
              key, (*out)->ga.data,
              [&](const Way &known) { return known.name == correlation_way.name || known.name == columns_way.name; },
              [&] { return std::vector<Way>{correlation_way, columns_way}; },
              [&](const Way &tried) {
                return tried.name == columns_way.name ? run_columns() : run_correlation_of_images();
              },
              &way) != 0)
        return -1;
      by_columns = way.name == columns_way.name;
    }
  }
  const auto run_direct = [&] { return by_columns ? run_columns() : run_correlation_of_images(); };
  bool by_halves;
  if (choose_halves(params->float16, half_table, halves, by_columns ? columns_table : table,
                    by_columns ? with_columns : with_arrangement(c), params->context, *out, run_halves, run_direct,
                    &by_halves) != 0)
    return -1;
  return run_correlation_plan(
      by_halves ? half_table : by_columns ? columns_table : table,
      by_halves ? halves : by_columns ? with_columns : with_arrangement(c), table, unpadded, true, *out,
      params->context, [&](const TilePlan &plan) {
        if (plan.row < 0) return by_halves ? run_halves() : run_direct();
        const OwnedGpuArray arranged(arranged_filters(op, s, unpadded, filter_array.get(), params->context));
        if (arranged.get() == NULL) return -1;
        TileOutputsArgs outputs;
        const int failed =
            tile_correlation(op, "img_acts", plan, unpadded, params->tf32, hid_array.get(), arranged.get(), *out,
                             params->context, tile_outputs_rows(), &outputs, [&](int row, const size_t *grid) {
                               return tile_outputs_launch(row, grid, &outputs, params->context);
                             });
        return failed || plan.images == s.n ? failed : run_arranged(direct_part(unpadded, plan, 0), arranged.get());
      });
}
