#section support_code_struct

// What FilterActs, ImageActs and FusedFilterActs share: correlations by the direct kernels and by tiles, with the
// kernels that all three have. What differs is handed in: the direct kernels with their sum, and the tiles' last transform.

// A correlation of c.n images, from number c.out_first on, with filters as they are: runs the best row of `table` with *args.
template <typename Args, typename Launch, typename Sum>
int direct_correlation(const char *op, const GpuRows &table, Correlation c, bool tf32, PyGpuArrayObject *images,
                       PyGpuArrayObject *filters, PyGpuArrayObject *out, PyGpuContextObject *context, Args *args,
                       Launch launch, Sum sum) {
  PaddedGpuArray padded_images, padded_filters;
  PadRowsArgs pad_args;
  const auto pad = [&](PadRowsArgs *rows_args, const size_t *grid) {
    return pad_rows_launch(0, grid, rows_args, context);
  };
  if (pad_operands(op, images, filters, &c, &padded_images, &padded_filters, &pad_args, context, pad) != 0) return -1;
  args->images = padded_images.get();
  args->image_n = (int)padded_images.pitch();
  args->filters = padded_filters.get();
  const ProductShape shape = correlation_product(c, padded_images.vectors(c.n, out), tf32,
                                                 padded_images.copied_bytes() + padded_filters.copied_bytes());
  return run_correlation(op, table, c, shape, device_array(out), context, args, launch, sum);
}

// A new array of words of two channels each, or NULL with an exception, from (groups, channels, rows, inner); `largest` is
// where its largest magnitude is.
PyGpuArrayObject *paired_channels(const char *op, PyGpuArrayObject *source, DeviceArray largest, npy_int64 groups,
                                  npy_int64 channels, npy_int64 rows, npy_int64 inner, PyGpuContextObject *context) {
  const npy_int64 padded = (inner + 3) / 4 * 4;
  const npy_int64 dims[4] = {groups, (channels + 1) / 2, rows, padded};
  PyGpuArrayObject *words = new_workspace(op, dims, context);
  if (words == NULL) return NULL;
  const int vec = vector_width(inner, source, NULL);
  PairChannelsArgs args;
  args.source = device_array(source);
  args.largest = largest;
  args.out = device_array(words);
  args.channels = (int)channels;
  args.inner = (int)inner;
  args.size = (int)(dims[0] * dims[1] * dims[2] * padded / vec);
  args.by_padded = make_divisor(padded / vec);
  args.by_rows = make_divisor(rows);
  args.by_pairs = make_divisor(dims[1]);
  size_t grid[3];
  elementwise_grid(args.size, 256, grid);
  if (pair_channels_launch(vec == 4 ? 0 : 1, grid, &args, context) == 0) return words;
  Py_DECREF(words);
  return NULL;
}

// A correlation by halves, from images and filters as they are; c says how these lie. Runs the best row of `table` with *args.
template <typename Args, typename Launch, typename Sum>
int half_correlation(const char *op, const GpuRows &table, const Correlation &c, const ProductShape &shape,
                     PyGpuArrayObject *images, PyGpuArrayObject *filters, PyGpuArrayObject *out, PyGpuContextObject *context,
                     Args *args, Launch launch, Sum sum) {
  const npy_int64 largest_dims[4] = {1, 1, 1, 2};
  const OwnedGpuArray largest(allocate(op, "workspace", 4, largest_dims, context, GA_INT));
  if (largest.get() == NULL) return -1;
  LargestArgs largest_args;
  size_t grid[3];
  if (fill_largest_args(op, images, image_count(c), filters, filter_count(c), largest.get(), context, &largest_args,
                        grid) != 0 ||
      largest_magnitudes_launch(0, grid, &largest_args, context) != 0)
    return -1;
  DeviceArray of_filters = device_array(largest.get());
  of_filters.offset += sizeof(int);
  const OwnedGpuArray image_words(
      paired_channels(op, images, device_array(largest.get()), c.groups, c.channels, c.rows * c.cols, c.n, context));
  if (image_words.get() == NULL) return -1;
  const OwnedGpuArray filter_words(paired_channels(op, filters, of_filters, 1, c.channels, c.taps_y * c.taps_x * c.groups,
                                                   c.filter_group, context));
  if (filter_words.get() == NULL) return -1;
  const Correlation pairs = paired_correlation(c);
  args->images = device_array(image_words.get());
  args->image_n = (int)pairs.n;
  args->filters = device_array(filter_words.get());
  args->largest = device_array(largest.get());
  return run_correlation(op, table, pairs, shape, device_array(out), context, args, launch, sum);
}

// A correlation by the tiles of `plan`, of its images, from images and filters as they are: c says how the filters lie, and c.n is
// the images' own; `family` is that of the direct kernels. launch_outputs(row, grid) launches the last transform, a row of
// outputs_rows, with *outputs; the others are those of tile_operands and, for products, filter_acts or fft_products.
template <typename OutputsArgs, typename Launch>
int tile_correlation(const char *op, const char *family, const TilePlan &plan, const Correlation &c, bool tf32,
                     PyGpuArrayObject *images, PyGpuArrayObject *filters, PyGpuArrayObject *out,
                     PyGpuContextObject *context, const GpuRows &outputs_rows, OutputsArgs *outputs, Launch launch_outputs) {
  const TileProblem problem = tile_problem(c, tf32);
  const npy_int64 filter_group = (c.m + 3) / 4 * 4;
  const npy_int64 patches_dims[4] = {plan.elements * c.groups * problem.channels, plan.chunk_rows, plan.tile_cols, plan.n};
  const npy_int64 products_dims[4] = {plan.elements * c.groups * c.m, plan.chunk_rows, plan.tile_cols, plan.n};
  const npy_int64 filters_dims[4] = {problem.channels, plan.elements, c.groups, filter_group};
  const Workspace workspace(op, {patches_dims, products_dims, filters_dims}, context);
  if (workspace.failed()) return -1;
  const DeviceArray patches = workspace.part(0), products = workspace.part(1), transformed = workspace.part(2);
  print_plan(tile_operands_rows(), plan, family,
             array_bytes(patches_dims) + array_bytes(products_dims) + array_bytes(filters_dims));
  const bool fft = is_fft(tile_operands_rows().rows[plan.row]);
  // Tiles, or filters, of a block.
  const int at_once = tile_operands_rows().rows[plan.row].tile_n;
  const npy_int64 outputs_size = c.groups * c.m * plan.chunk_rows * plan.tile_cols * plan.n;
  const int outputs_row = choose_outputs_row(outputs_rows, plan.row, c.n, outputs_size, card_of(context));
  if (outputs_row < 0) {
    size_t length;
    const char *tile = outputs_rows.rows[plan.row].name;
    PyErr_Format(PyExc_ValueError,
                 "CONVNET_OPS_VARIANT: %s=%.200s is no row for tiles %s; valid are %s and, where there are two, %s_odd",
                 outputs_rows.family, forced_row(outputs_rows.family, &length), tile, tile, tile);
    return -1;
  }
  size_t grid[3];

  TileOperandsArgs operands;
  operands.filters = device_array(filters);
  operands.filters_out = transformed;
  operands.taps_y = (int)c.taps_y;
  operands.taps_x = (int)c.taps_x;
  operands.m = (int)c.m;
  operands.source_stride = (int)c.filter_stride;
  operands.source_group = (int)c.filter_group;
  operands.filters_size = (int)(filters_dims[0] * c.groups * filter_group);
  operands.by_stride = make_divisor(c.groups * filter_group);
  operands.by_group = make_divisor(filter_group);

  Correlation product = {};
  product.groups = plan.elements * c.groups;
  product.channels = problem.channels;
  product.cols = plan.tile_cols;
  product.n = product.out_n = plan.n;
  product.m = c.m;
  product.filter_group = filter_group;
  product.filter_stride = product.groups * filter_group;
  product.taps_y = product.taps_x = product.stride_y = product.stride_x = product.phases_y = product.phases_x = 1;
  product.grid_cols = product.out_cols = plan.tile_cols;
  ProductShape shape = tile_product(plan, tile_operands_rows().rows[plan.row], problem);

  for (npy_int64 first = 0; first < plan.tile_rows; first += plan.chunk_rows) {
    const npy_int64 rows = std::min<npy_int64>(plan.chunk_rows, plan.tile_rows - first);
    fill_patches_args(plan, images, c, first, rows, patches, &operands);
    // The filters of the first rows of tiles are those of the others.
    operands_grid(first == 0 ? operands.filters_size : 0, at_once, &operands, grid);
    if (tile_operands_launch(plan.row, grid, &operands, context) != 0) return -1;

    shape.n = rows * plan.tile_cols * plan.n;
    if (fft) {
      FftProductsArgs args;
      args.images = patches;
      args.filters = transformed;
      args.out = products;
      args.channels = (int)problem.channels;
      args.m = (int)c.m;
      args.filter_group = (int)filter_group;
      args.filter_stride = (int)(plan.elements * c.groups * filter_group);
      args.columns = (int)shape.n;
      args.by_groups = make_divisor(c.groups);
      if (run_choice(fft_products_rows(), shape, context, products.data, [&](const Choice &choice) {
            const GpuRow &row = fft_products_rows().rows[choice.row];
            const npy_int64 m_tiles = (c.m + row.tile_m - 1) / row.tile_m;
            const npy_int64 column_tiles = (shape.n + row.tile_n - 1) / row.tile_n;
            args.tiles = (int)(shape.batches * m_tiles * column_tiles);
            args.by_m_tiles = make_divisor(m_tiles);
            args.by_column_tiles = make_divisor(column_tiles);
            size_t row_grid[3];
            streaming_grid(args.tiles, row, card_of(context), row_grid);
            return fft_products_launch(choice.row, row_grid, &args, context);
          }) != 0)
        return -1;
    } else {
      CorrelateArgs args;
      args.images = patches;
      args.image_n = (int)plan.n;
      args.filters = transformed;
      product.rows = product.grid_rows = product.out_rows = rows;
      if (run_correlation(
              op, filter_acts_rows(), product, shape, products, context, &args,
              [&](int row, const size_t *row_grid) { return filter_acts_launch(row, row_grid, &args, context); },
              [](const SplitSums &) { return -1; }) != 0)  // these sums are not split
        return -1;
    }

    outputs->products = products;
    outputs->out = device_array(out);
    outputs->out_rows = (int)c.out_rows;
    outputs->out_cols = (int)c.out_cols;
    outputs->n = (int)c.n;
    outputs->step_y = (int)plan.step_y;
    outputs->step_x = (int)plan.step_x;
    outputs->first_row = (int)first;
    outputs->phases_y = (int)c.phases_y;
    outputs->base_y = (int)c.base_y;
    outputs->base_x = (int)c.base_x;
    outputs->size = (int)(c.groups * c.m * rows * plan.tile_cols * plan.n);
    outputs->by_n = make_divisor(plan.n);
    outputs->by_tile_cols = make_divisor(plan.tile_cols);
    outputs->by_tile_rows = make_divisor(rows);
    outputs->by_phases = make_divisor(c.phases_y * c.phases_x);
    outputs->by_phases_x = make_divisor(c.phases_x);
    elementwise_grid(outputs->size, outputs_rows.rows[outputs_row].tile_n, grid);
    if (launch_outputs(outputs_row, grid) != 0) return -1;
  }
  return 0;
}

// run_plan for a correlation, which `direct` is to the direct kernels; beside tiles they are those of `rest_rows`; arranged
// as in TileProblem.
template <typename Run>
int run_correlation_plan(const GpuRows &direct_rows, const ProductShape &direct, const GpuRows &rest_rows, const Correlation &c,
                         bool arranged, PyGpuArrayObject *out, PyGpuContextObject *context, Run run) {
  const TileTables tables = {tile_operands_rows(), filter_acts_rows(), fft_products_rows()};
  // Two kernels more, each of them short: so much alex3, alex4 and alex5 took, forward, with one image more than 128.
  const auto rest_us = [&](npy_int64 images) {
    Correlation rest = c;
    rest.n = images;
    const ProductShape product = correlation_product(rest, (images | c.out_n) % 4 == 0 ? 4 : 1, direct.tf32, 0);
    return 3 + 1.1 * cheapest_cost(rest_rows, product, card_of(context));
  };
  return run_plan(tables, tile_problem(c, direct.tf32, arranged), false, direct_rows, direct, context, out, rest_us, run);
}
