#section support_code

#include "gpu_conv.h"

// Words of two images each that a batch is to halves (cuda/halves.cu).
static npy_int64 paired_batch(npy_int64 n) { return (n + 7) / 8 * 4; }

#section support_code_struct

// Cuts a sum of `length` products into so many splits, or a few less, whose number it returns; each is a range of the sum.
npy_int64 cut_into_splits(npy_int64 length, npy_int64 wanted, int *split_length) {
  const npy_int64 depth = 16;  // kDepth of every row
  *split_length = (int)(((length + wanted - 1) / wanted + depth - 1) / depth * depth);
  return (length + *split_length - 1) / *split_length;
}

// As many splits of a sum of `length` products as wanted, but none without a step of it.
npy_int64 splits_with_steps(npy_int64 length, npy_int64 wanted) { return std::min<npy_int64>(wanted, (length + 15) / 16); }

// Sets by_m_tiles and the grid of a row.
template <typename Args>
void fill_splits_grid(const GpuRow &row, npy_int64 splits, npy_int64 groups, Args *args, size_t *grid) {
  const npy_int64 m_tiles = (args->taps + row.tile_m - 1) / row.tile_m;
  const npy_int64 n_tiles = (args->filters_per_group + row.tile_n - 1) / row.tile_n;
  args->by_m_tiles = make_divisor(m_tiles);
  grid[0] = m_tiles * n_tiles;
  grid[1] = splits;
  grid[2] = groups;
}

// The gradient by the best row of `table`, from args->images and args->hid_grads, whose batch is n; launch(row, grid)
// launches it with *args. The plain row makes no splits.
template <typename Args, typename Launch>
int direct_weight_acts(const char *op, const GpuRows &table, const ConvShape &s, npy_int64 n, const ProductShape &shape,
                       PyGpuArrayObject *gradient, PyGpuArrayObject **partials, PyGpuContextObject *context, Args *args,
                       Launch launch) {
  const npy_int64 taps = s.channels * s.filter_rows * s.filter_cols, filters = s.groups * s.filters;
  args->channels = (int)s.channels;
  args->rows = (int)s.rows;
  args->cols = (int)s.cols;
  args->taps = (int)taps;
  args->filters_per_group = (int)s.filters;
  args->filter_count = (int)filters;
  args->length = (int)(s.out_rows * s.out_cols * n);
  args->stride_y = (int)s.stride_y;
  args->stride_x = (int)s.stride_x;
  args->pad_y = (int)s.pad_y;
  args->pad_x = (int)s.pad_x;
  args->by_n = make_divisor(n);
  args->by_out_cols = make_divisor(s.out_cols);
  args->by_window = make_divisor(s.filter_rows * s.filter_cols);
  args->by_filter_cols = make_divisor(s.filter_cols);
  const bool plain = row_is_forced(table.family, "plain");
  return run_choice(table, shape, context, gradient->ga.data, [&](const Choice &choice) {
    const npy_int64 splits = splits_with_steps(args->length, plain ? 1 : choice.splits);
    const npy_int64 partials_dims[5] = {splits, s.channels, s.filter_rows, s.filter_cols, filters};
    if (prepare_output(op, "partial sums", partials, 5, partials_dims, context) != 0) return -1;
    args->partials = device_array(*partials);
    args->gradient = device_array(gradient);
    size_t grid[3];
    if (plain) {
      elementwise_grid(taps * filters, table.rows[choice.row].threads, grid);
      return launch(choice.row, grid);
    }
    fill_splits_grid(table.rows[choice.row], splits, s.groups, args, grid);
    if (launch(choice.row, grid) != 0) return -1;
    if (splits == 1) return 0;
    SumPartialsArgs sum_args;
    const SplitSums sums = {*partials, splits, taps * filters, taps * filters, 0, 0};
    fill_sum_args(sums, gradient, &sum_args, grid);
    return sum_partials_launch(0, grid, &sum_args, context);
  });
}

// A new array of words of two images each, or NULL with an exception, from rows of n; `largest` is where its largest
// magnitude is.
PyGpuArrayObject *paired_images(const char *op, PyGpuArrayObject *source, DeviceArray largest, npy_int64 rows, npy_int64 n,
                                PyGpuContextObject *context) {
  const npy_int64 padded = paired_batch(n);
  const npy_int64 dims[4] = {1, 1, rows, padded};
  PyGpuArrayObject *words = new_workspace(op, dims, context);
  if (words == NULL) return NULL;
  const int vec = n % 8 == 0 ? vector_width(n, source, NULL) : 1;
  PairImagesArgs args;
  args.source = device_array(source);
  args.largest = largest;
  args.out = device_array(words);
  args.n = (int)n;
  args.size = (int)(rows * padded / vec);
  args.by_padded = make_divisor(padded / vec);
  size_t grid[3];
  elementwise_grid(args.size, 256, grid);
  if (pair_images_launch(vec == 4 ? 0 : 1, grid, &args, context) == 0) return words;
  Py_DECREF(words);
  return NULL;
}

// The gradient by halves, from arrays as they are.
int half_weight_acts(const char *op, const ConvShape &s, const ProductShape &shape, PyGpuArrayObject *images,
                     PyGpuArrayObject *hid_grads, PyGpuArrayObject *gradient, PyGpuArrayObject **partials,
                     PyGpuContextObject *context) {
  const npy_int64 image_rows = s.groups * s.channels * s.rows * s.cols;
  const npy_int64 hid_rows = s.groups * s.filters * s.out_rows * s.out_cols;
  const npy_int64 largest_dims[4] = {1, 1, 1, 2};
  const OwnedGpuArray largest(allocate(op, "workspace", 4, largest_dims, context, GA_INT));
  if (largest.get() == NULL) return -1;
  LargestArgs largest_args;
  size_t largest_grid[3];
  if (fill_largest_args(op, images, image_rows * s.n, hid_grads, hid_rows * s.n, largest.get(), context, &largest_args,
                        largest_grid) != 0 ||
      largest_magnitudes_launch(0, largest_grid, &largest_args, context) != 0)
    return -1;
  DeviceArray of_hid = device_array(largest.get());
  of_hid.offset += sizeof(int);
  const OwnedGpuArray image_words(paired_images(op, images, device_array(largest.get()), image_rows, s.n, context));
  if (image_words.get() == NULL) return -1;
  const OwnedGpuArray hid_words(paired_images(op, hid_grads, of_hid, hid_rows, s.n, context));
  if (hid_words.get() == NULL) return -1;
  HalfWeightActsArgs args;
  args.images = device_array(image_words.get());
  args.hid_grads = device_array(hid_words.get());
  args.largest = device_array(largest.get());
  return direct_weight_acts(
      op, weight_acts_f16_rows(), s, paired_batch(s.n), shape, gradient, partials, context, &args,
      [&](int row, const size_t *grid) { return weight_acts_f16_launch(row, grid, &args, context); });
}

// The gradient by the tiles of `plan`. The partial sums are those of the tiles' matrices, so *partials becomes a copy of it.
int weight_acts_by_tiles(const char *op, const TilePlan &plan, const ConvShape &s, const TileProblem &problem,
                         PyGpuArrayObject *images, PyGpuArrayObject *hid_grads, PyGpuArrayObject *gradient,
                         PyGpuArrayObject **partials, PyGpuContextObject *context) {
  const npy_int64 filters = s.groups * s.filters;
  // The images as FilterActs takes them.
  const Correlation c = forward_correlation(&s);
  const npy_int64 copy_dims[5] = {1, s.channels, s.filter_rows, s.filter_cols, filters};
  const npy_int64 patches_dims[4] = {plan.elements * s.groups * problem.channels, plan.chunk_rows, plan.tile_cols, plan.n};
  const npy_int64 gradients_dims[4] = {plan.elements * filters, plan.chunk_rows, plan.tile_cols, plan.n};
  if (prepare_output(op, "partial sums", partials, 5, copy_dims, context) != 0) return -1;

  const bool fft = is_fft(tile_gradient_operands_rows().rows[plan.row]);
  const GpuRows table = fft ? fft_gradient_products_rows() : weight_acts_rows();
  ProductShape shape = tile_gradient_product(plan, tile_gradient_operands_rows().rows[plan.row], problem);
  if (prints_config()) {
    const npy_int64 splits = tile_chunks(plan) * cheapest_row(table, shape, card_of(context)).splits;
    print_plan(tile_gradient_operands_rows(), plan, "weight_acts",
               array_bytes(patches_dims) + array_bytes(gradients_dims) +
                   4 * splits * problem.channels * plan.elements * filters);
  }
  return run_choice(table, shape, context, gradient->ga.data, [&](const Choice &choice) {
    const npy_int64 sums_dims[4] = {tile_chunks(plan) * choice.splits, problem.channels, plan.elements, filters};
    const Workspace workspace(op, {patches_dims, gradients_dims, sums_dims}, context);
    if (workspace.failed()) return -1;
    const DeviceArray patches = workspace.part(0), gradients = workspace.part(1), sums = workspace.part(2);
    const int at_once = tile_gradient_operands_rows().rows[plan.row].tile_n;
    size_t grid[3];
    npy_int64 splits = 0;
    for (npy_int64 first = 0; first < plan.tile_rows; first += plan.chunk_rows) {
      const npy_int64 rows = std::min<npy_int64>(plan.chunk_rows, plan.tile_rows - first);
      TileGradientOperandsArgs operands;
      fill_patches_args(plan, images, c, first, rows, patches, &operands);
      operands.gradients = device_array(hid_grads);
      operands.gradients_out = gradients;
      operands.out_rows = (int)s.out_rows;
      operands.out_cols = (int)s.out_cols;
      operands.gradients_size = (int)(filters * rows * plan.tile_cols * plan.n);
      operands_grid(operands.gradients_size, at_once, &operands, grid);
      if (tile_gradient_operands_launch(plan.row, grid, &operands, context) != 0) return -1;

      const npy_int64 columns = rows * plan.tile_cols * plan.n;
      const npy_int64 sums_offset = 4 * splits * problem.channels * plan.elements * filters;
      if (fft) {
        FftGradientProductsArgs args;
        args.images = patches;
        args.gradients = gradients;
        args.out = sums;
        args.out.offset += sums_offset;
        args.channels = (int)problem.channels;
        args.filters = (int)s.filters;
        args.columns = (int)columns;
        const npy_int64 made = cut_into_splits(columns, choice.splits, &args.split_length);
        const GpuRow &row = table.rows[choice.row];
        const npy_int64 m_tiles = (problem.channels + row.tile_m - 1) / row.tile_m;
        const npy_int64 n_tiles = (s.filters + row.tile_n - 1) / row.tile_n;
        args.tiles = (int)(made * shape.batches * m_tiles * n_tiles);
        args.by_m_tiles = make_divisor(m_tiles);
        args.by_n_tiles = make_divisor(n_tiles);
        args.by_groups = make_divisor(s.groups);
        args.by_frequencies = make_divisor(plan.elements / 2);
        streaming_grid(args.tiles, row, card_of(context), grid);
        if (fft_gradient_products_launch(choice.row, grid, &args, context) != 0) return -1;
        splits += made;
        continue;
      }
      WeightActsArgs args;
      args.images = patches;
      args.hid_grads = gradients;
      args.partials = sums;
      args.partials.offset += sums_offset;
      args.channels = args.taps = (int)problem.channels;
      args.rows = (int)rows;
      args.cols = (int)plan.tile_cols;
      args.filters_per_group = (int)s.filters;
      args.filter_count = (int)(plan.elements * filters);
      args.length = (int)columns;
      args.stride_y = args.stride_x = 1;
      args.pad_y = args.pad_x = 0;
      args.by_n = make_divisor(plan.n);
      args.by_out_cols = make_divisor(plan.tile_cols);
      args.by_window = args.by_filter_cols = make_divisor(1);
      args.gradient = args.partials;
      const npy_int64 made = splits_with_steps(args.length, choice.splits);
      fill_splits_grid(table.rows[choice.row], made, plan.elements * s.groups, &args, grid);
      if (weight_acts_launch(choice.row, grid, &args, context) != 0) return -1;
      splits += made;
    }
    TileTapsArgs taps_args;
    taps_args.partials = sums;
    taps_args.out = device_array(gradient);
    taps_args.copy = device_array(*partials);
    taps_args.splits = (int)splits;
    taps_args.taps_y = (int)s.filter_rows;
    taps_args.taps_x = (int)s.filter_cols;
    taps_args.stride_y = (int)s.stride_y;
    taps_args.size = (int)(problem.channels * filters);
    taps_args.by_filters = make_divisor(filters);
    taps_args.by_phases = make_divisor(s.stride_y * s.stride_x);
    taps_args.by_phases_x = make_divisor(s.stride_x);
    elementwise_grid(taps_args.size, at_once, grid);
    return tile_taps_launch(plan.row, grid, &taps_args, context);
  });
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

  // In the terms of cuda/weight_acts.cu, whose loads all go along q. The error of a sum grows with the root of its
  // length: no split is longer than 8192, where that is allowed.
  const npy_int64 taps = s.channels * s.filter_rows * s.filter_cols;
  const npy_int64 limit = std::min<npy_int64>(partials_limit(&s, params->partial_sum_or_0, sizeof(float)), 65535);
  const GpuRows table = weight_acts_rows();
  const npy_int64 pixels = images_dims[0] * images_dims[1] * images_dims[2] + hid_dims[0] * hid_dims[1] * hid_dims[2];
  const auto product = [&](npy_int64 n) {
    const npy_int64 sum = s.out_rows * s.out_cols * n;
    const ProductShape result = {taps, s.filters, s.groups, 1, n % 4 == 0 ? 4 : 1, 0, 1, 0, 0, sum,
                                 std::min(limit, (sum + 8191) / 8192), limit, params->tf32 != 0,
                                 n == s.n ? 0 : 4 * pixels * n, false, false, 0, sum % 4 == 0};
    return result;
  };
  const npy_int64 batch = cheapest_batch(table, s.n, card_of(params->context), product);
  ProductShape shape = product(batch);
  const npy_int64 gradient_dims[4] = {s.channels, s.filter_rows, s.filter_cols, s.groups * s.filters};
  if (prepare_output(op, "output", gradient, 4, gradient_dims, params->context) != 0) return -1;

  const TileProblem problem = tile_problem(forward_correlation(&s), params->tf32 != 0);
  const auto run_direct = [&] {
    PaddedGpuArray padded_images, padded_hid;
    PadRowsArgs pad_args;
    const auto pad = [&](PadRowsArgs *args, const size_t *grid) {
      return pad_rows_launch(0, grid, args, params->context);
    };
    if (padded_images.fill(op, image_array.get(), images_dims[0] * images_dims[1] * images_dims[2] * s.n, s.n, 0, batch,
                           &pad_args, params->context, pad) != 0 ||
        padded_hid.fill(op, hid_array.get(), hid_dims[0] * hid_dims[1] * hid_dims[2] * s.n, s.n, 0, batch, &pad_args,
                        params->context, pad) != 0)
      return -1;
    shape.vec_n = std::min(padded_images.vectors(batch, NULL), padded_hid.vectors(batch, NULL));
    shape.workspace = padded_images.copied_bytes() + padded_hid.copied_bytes();
    WeightActsArgs args;
    args.images = padded_images.get();
    args.hid_grads = padded_hid.get();
    return direct_weight_acts(
        op, table, s, batch, shape, *gradient, partials, params->context, &args,
        [&](int row, const size_t *grid) { return weight_acts_launch(row, grid, &args, params->context); });
  };
  // Of words, two products each.
  const npy_int64 half_sum = s.out_rows * s.out_cols * paired_batch(s.n);
  const ProductShape half_shape = {taps, s.filters, s.groups, 1, 4, 0, 1, 0, 0, half_sum,
                                   std::min(limit, (2 * half_sum + 8191) / 8192), limit, true, 0, false};
  const ProductShape halves = with_half_copies(half_shape, pixels * s.n, pixels * paired_batch(s.n));
  const auto run_halves = [&] {
    return half_weight_acts(op, s, halves, image_array.get(), hid_array.get(), *gradient, partials, params->context);
  };
  const GpuRows half_table = weight_acts_f16_rows();
  bool by_halves;
  if (choose_halves(params->float16 != 0, half_table, halves, table, shape, params->context, *gradient, run_halves, run_direct,
                    &by_halves) != 0)
    return -1;
  const TileTables tables = {tile_gradient_operands_rows(), table, fft_gradient_products_rows()};
  const auto no_rest = [](npy_int64) { return -1.; };  // a sum over all images is best cut elsewhere
  return run_plan(tables, problem, true, by_halves ? half_table : table, by_halves ? halves : shape, params->context, *gradient,
                  no_rest,
                  [&](const TilePlan &plan) {
                    if (plan.row < 0) return by_halves ? run_halves() : run_direct();
                    return weight_acts_by_tiles(op, plan, s, problem, image_array.get(), hid_array.get(), *gradient,
                                                partials, params->context);
                  });
}
