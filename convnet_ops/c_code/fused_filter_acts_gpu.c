#section support_code

#include "activation.h"
#include "gpu_conv.h"

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
  const auto product = [&](npy_int64 n) { return padded_product(c, n, params->tf32); };
  const npy_int64 batch = cheapest_batch(fused_filter_acts_rows(), s.n, card_of(params->context), product);
  const auto add_partials = [&](const SplitSums &sums) {
    FusedSumPartialsArgs sum_args;
    fill_sum_args(sums, *out, &sum_args, grid);
    sum_args.bias = device_array(bias_array.get());
    sum_args.activation = (int)params->activation_code;
    sum_args.slope = (float)params->slope;
    sum_args.by_plane = make_divisor(s.out_rows * s.out_cols * sums.inner);
    return fused_sum_partials_launch(0, grid, &sum_args, params->context);
  };
  const auto run_direct = [&](const TilePlan &plan) {
    FusedFilterActsArgs args;
    fill(&args);
    return direct_correlation(
        op, fused_filter_acts_rows(), direct_part(c, plan, batch), params->tf32, image_array.get(), filter_array.get(), *out,
        params->context, &args,
        [&](int row, const size_t *row_grid) { return fused_filter_acts_launch(row, row_grid, &args, params->context); },
        add_partials);
  };
  const ProductShape halves = params->float16 ? half_correlation_product(c, *out, 0) : ProductShape();
  const auto run_halves = [&] {
    FusedHalfFilterActsArgs args;
    fill(&args);
    return half_correlation(
        op, fused_filter_acts_f16_rows(), c, halves, image_array.get(), filter_array.get(), *out, params->context, &args,
        [&](int row, const size_t *row_grid) { return fused_filter_acts_f16_launch(row, row_grid, &args, params->context); },
        add_partials);
  };
  bool by_halves;
  if (choose_halves(params->float16, fused_filter_acts_f16_rows(), halves, fused_filter_acts_rows(), product(batch),
                    params->context, *out, run_halves, [&] { return run_direct(no_tiles()); }, &by_halves) != 0)
    return -1;
  const auto run = [&](const TilePlan &plan) {
    if (plan.row < 0) return by_halves ? run_halves() : run_direct(plan);
    FusedTileOutputsArgs outputs;
    outputs.bias = device_array(bias_array.get());
    outputs.activation = (int)params->activation_code;
    outputs.slope = (float)params->slope;
    const int failed =
        tile_correlation(op, "fused_filter_acts", plan, c, params->tf32, image_array.get(), filter_array.get(), *out,
                         params->context, fused_tile_outputs_rows(), &outputs, [&](int row, const size_t *row_grid) {
                           return fused_tile_outputs_launch(row, row_grid, &outputs, params->context);
                         });
    return failed || plan.images == s.n ? failed : run_direct(plan);
  };
  return run_correlation_plan(by_halves ? fused_filter_acts_f16_rows() : fused_filter_acts_rows(),
                              by_halves ? halves : product(batch), fused_filter_acts_rows(), c, false, *out, params->context, run);
}
