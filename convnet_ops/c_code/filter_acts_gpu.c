#section support_code

#include "gpu_conv.h"

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
  const auto product = [&](npy_int64 n) { return padded_product(c, n, params->tf32); };
  const npy_int64 batch = cheapest_batch(filter_acts_rows(), s.n, card_of(params->context), product);
  const auto add_partials = [&](const SplitSums &sums) {
    SumPartialsArgs sum_args;
    size_t grid[3];
    fill_sum_args(sums, *out, &sum_args, grid);
    return sum_partials_launch(0, grid, &sum_args, params->context);
  };
  const auto run_direct = [&](const TilePlan &plan) {
    CorrelateArgs args;
    return direct_correlation(
        op, filter_acts_rows(), direct_part(c, plan, batch), params->tf32, image_array.get(), filter_array.get(), *out,
        params->context, &args,
        [&](int row, const size_t *grid) { return filter_acts_launch(row, grid, &args, params->context); }, add_partials);
  };
  const ProductShape halves = params->float16 ? half_correlation_product(c, *out, 0) : ProductShape();
  const auto run_halves = [&] {
    HalfCorrelateArgs args;
    return half_correlation(
        op, filter_acts_f16_rows(), c, halves, image_array.get(), filter_array.get(), *out, params->context, &args,
        [&](int row, const size_t *grid) { return filter_acts_f16_launch(row, grid, &args, params->context); }, add_partials);
  };
  bool by_halves;
  if (choose_halves(params->float16, filter_acts_f16_rows(), halves, filter_acts_rows(), product(batch), params->context, *out,
                    run_halves, [&] { return run_direct(no_tiles()); }, &by_halves) != 0)
    return -1;
  const auto run = [&](const TilePlan &plan) {
    if (plan.row < 0) return by_halves ? run_halves() : run_direct(plan);
    TileOutputsArgs outputs;
    const int failed =
        tile_correlation(op, "filter_acts", plan, c, params->tf32, image_array.get(), filter_array.get(), *out, params->context,
                         tile_outputs_rows(), &outputs, [&](int row, const size_t *grid) {
                           return tile_outputs_launch(row, grid, &outputs, params->context);
                         });
    return failed || plan.images == s.n ? failed : run_direct(plan);
  };
  return run_correlation_plan(by_halves ? filter_acts_f16_rows() : filter_acts_rows(), by_halves ? halves : product(batch),
                              filter_acts_rows(), c, false, *out, params->context, run);
}
