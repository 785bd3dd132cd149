// What the GPU host code of the convolution ops shares: operands in the form that the kernels want, and the launch.
#ifndef CONVNET_OPS_GPU_CONV_H
#define CONVNET_OPS_GPU_CONV_H

#include <algorithm>

#include "autotune.h"
#include "conv_shape.h"
#include "gpu_launch.h"
#include "tiles.h"

// The shape in the arguments of the plain kernels of FilterActs and ImageActs; Args is FilterActsArgs or ImgActsArgs.
template <typename Args>
static void fill_plain_args(const ConvShape &s, Args *args) {
  args->channels = (int)s.channels;
  args->rows = (int)s.rows;
  args->cols = (int)s.cols;
  args->n = (int)s.n;
  args->filter_rows = (int)s.filter_rows;
  args->filter_cols = (int)s.filter_cols;
  args->filter_count = (int)(s.groups * s.filters);
  args->filters_per_group = (int)s.filters;
  args->out_rows = (int)s.out_rows;
  args->out_cols = (int)s.out_cols;
  args->stride_y = (int)s.stride_y;
  args->stride_x = (int)s.stride_x;
  args->pad_y = (int)s.pad_y;
  args->pad_x = (int)s.pad_x;
}

// The batch that the direct kernels see. One that 4 does not divide may be padded with zeros, in a copy of the images, where that
// adds at most a quarter.
static inline npy_int64 padded_batch(npy_int64 n) {
  const npy_int64 padded = (n + 3) / 4 * 4;
  return 4 * padded <= 5 * n ? padded : n;
}

// The same where it pays: loads of single floats may cost less than the copy. product(n) is the product with a batch of n. A row
// that is named gets the batch that it may load.
template <typename Product>
static npy_int64 cheapest_batch(const GpuRows &table, npy_int64 n, const Card &card, Product product) {
  const npy_int64 padded = padded_batch(n);
  size_t length;
  const char *forced = forced_row(table.family, &length);
  if (padded != n && forced != NULL) {
    const int row = row_named(table, std::string(forced, length));
    return row >= 0 && table.rows[row].vec_n == 1 ? n : padded;
  }
  if (padded == n) return n;
  const auto cost = [&](npy_int64 batch) { return cheapest_cost(table, product(batch), card); };
  return cost(padded) < cost(n) ? padded : n;
}

// The values from `first` on of each of an array's rows, which have `inner`, as `wanted` values: the array itself where it has as
// many, else a copy, with zeros behind them, made by launch(args, grid) of the family pad_rows.
class PaddedGpuArray {
 public:
  PaddedGpuArray() : array_(NULL), first_(0), pitch_(0), copied_bytes_(0) {}
  ~PaddedGpuArray() { Py_XDECREF(array_); }
  DeviceArray get() const {
    DeviceArray values = device_array(array_);
    values.offset += 4 * first_;
    return values;
  }
  // From row to row.
  npy_int64 pitch() const { return pitch_; }
  npy_int64 copied_bytes() const { return copied_bytes_; }
  // vector_width of `wanted` values in each row, beside `other`.
  int vectors(npy_int64 wanted, PyGpuArrayObject *other) const {
    return (first_ | pitch_) % 4 == 0 ? vector_width(wanted, array_, other) : 1;
  }

  template <typename Args, typename Launch>
  int fill(const char *op, PyGpuArrayObject *source, npy_int64 size, npy_int64 inner, npy_int64 first, npy_int64 wanted,
           Args *args, PyGpuContextObject *context, Launch launch) {
    if (first + wanted == inner) {
      Py_INCREF(source);
      array_ = source;
      first_ = first;
      pitch_ = inner;
      return 0;
    }
    const npy_int64 dims[4] = {1, 1, size / inner, wanted};
    if (check_index_limit(op, "padded copy", 4, dims) != 0) return -1;
    array_ = allocate(op, "padded copy", 4, dims, context);
    if (array_ == NULL) return -1;
    pitch_ = wanted;
    args->source = device_array(source);
    args->source.offset += 4 * first;
    args->out = device_array(array_);
    args->inner = (int)(inner - first);
    args->pitch = (int)inner;
    args->size = (int)(dims[2] * wanted);
    args->by_padded = make_divisor(wanted);
    copied_bytes_ = 4 * dims[2] * wanted;
    size_t grid[3];
    elementwise_grid(args->size, 1024, grid);
    return launch(args, grid);
  }

 private:
  PaddedGpuArray(const PaddedGpuArray &);
  void operator=(const PaddedGpuArray &);
  PyGpuArrayObject *array_;
  npy_int64 first_, pitch_, copied_bytes_;
};

// The operands of FilterActs: c->n images from c->out_first on, padded where there are fewer, and the filters of each group, so
// that they begin at an address divisible by 4 floats. Sets the sizes in *c.
template <typename Args, typename Launch>
static int pad_operands(const char *op, PyGpuArrayObject *images, PyGpuArrayObject *filters, Correlation *c,
                        PaddedGpuArray *padded_images, PaddedGpuArray *padded_filters, Args *args,
                        PyGpuContextObject *context, Launch launch) {
  const npy_int64 n = c->out_n, m = c->m;
  // A single group's filters need no more than rows that begin there; they are copied too where they do not.
  c->filter_group = (m + 3) / 4 * 4;
  c->filter_stride = c->groups * c->filter_group;
  const bool misplaced = m == c->filter_group && filters->ga.offset % 16 != 0;
  if (misplaced) {
    c->filter_group += 4;
    c->filter_stride += 4 * c->groups;
  }
  const npy_int64 image_size = c->groups * c->channels * c->rows * c->cols * n;
  const npy_int64 filter_size = c->channels * c->taps_y * c->taps_x * c->groups * m;
  return padded_images->fill(op, images, image_size, n, c->out_first, c->n, args, context, launch) != 0 ||
                 padded_filters->fill(op, filters, filter_size, m, 0, c->filter_group, args, context, launch) != 0
             ? -1
             : 0;
}

// Partial results, (splits, size), whose sums go to `inner` values of each `pitch` of the output, from `first` on.
struct SplitSums {
  PyGpuArrayObject *partials;
  npy_int64 splits, size, inner, pitch, first;
};

// The arguments of sum_partials.
template <typename Args>
static void fill_sum_args(const SplitSums &sums, PyGpuArrayObject *out, Args *args, size_t *grid) {
  args->partials = device_array(sums.partials);
  args->out = device_array(out);
  args->out.offset += 4 * sums.first;
  args->splits = (int)sums.splits;
  args->ways = 1;
  while (args->ways < 32 && 8 * args->ways <= sums.splits) args->ways *= 2;
  args->size = (int)sums.size;
  args->pitch = (int)sums.pitch;
  args->by_inner = make_divisor(sums.inner);
  elementwise_grid(sums.size, 256 / args->ways, grid);
}

// At most so many bytes of partial sums.
static const npy_int64 kPartialBytes = 64 << 20;

// The images that a correlation computes outputs of, without padding, and these outputs.
static npy_int64 correlation_images(const Correlation &c) { return std::min(c.n, c.out_n); }
static npy_int64 correlation_outputs(const Correlation &c) {
  return c.groups * c.m / (c.phases_y * c.phases_x) * c.out_rows * c.out_cols * correlation_images(c);
}

// The plan of a convolution by direct kernels alone.
static TilePlan no_tiles() {
  const TilePlan plan = {-1};
  return plan;
}

// What the tiles of `plan` leave of a correlation to the direct kernels: the images behind theirs, or all of them, padded to n.
static Correlation direct_part(Correlation c, const TilePlan &plan, npy_int64 n) {
  c.out_first = plan.images;
  c.n = plan.row < 0 ? n : c.out_n - plan.images;
  return c;
}

// The product that a correlation is. Its filters are in rows divisible by 4.
static ProductShape correlation_product(const Correlation &c, int vec_n, bool tf32, npy_int64 workspace) {
  const npy_int64 out_bytes = 4 * correlation_outputs(c);
  const npy_int64 splits = kPartialBytes / (out_bytes > 0 ? out_bytes : 1);
  const ProductShape shape = {c.m, correlation_columns(&c), c.groups, 4, vec_n, c.n, correlation_inside_share(&c), 0, 0,
                              correlation_depth(&c), 1, std::max<npy_int64>(1, std::min<npy_int64>(64, splits)), tf32,
                              workspace, false};
  return shape;
}

// The same of a batch that is padded to n, estimated before.
static ProductShape padded_product(Correlation c, npy_int64 n, bool tf32) {
  c.n = n;
  const npy_int64 copied = c.n == c.out_n ? 0 : 4 * c.groups * c.channels * c.rows * c.cols * c.n;
  return correlation_product(c, c.n % 4 == 0 ? 4 : 1, tf32, copied);
}

// Runs a correlation into `out`: chooses the row and the splits, fills the arguments, and calls launch(row, grid), and where
// the sums are split sum(split sums) after it. args->images, image_n and filters are set.
template <typename Args, typename Launch, typename Sum>
static int run_correlation(const char *op, const GpuRows &table, const Correlation &c, const ProductShape &shape,
                           const DeviceArray &out, PyGpuContextObject *context, Args *args, Launch launch, Sum sum) {
  const npy_int64 columns = correlation_columns(&c);
  args->channels = (int)c.channels;
  args->rows = (int)c.rows;
  args->cols = (int)c.cols;
  args->m = (int)c.m;
  args->filter_stride = (int)c.filter_stride;
  args->filter_group = (int)c.filter_group;
  args->stride_y = (int)c.stride_y;
  args->stride_x = (int)c.stride_x;
  args->pad_y = (int)c.pad_y;
  args->pad_x = (int)c.pad_x;
  args->taps_y = (int)c.taps_y;
  args->columns = (int)columns;
  args->out_rows = (int)c.out_rows;
  args->out_cols = (int)c.out_cols;
  args->out_size = (int)correlation_outputs(c);
  args->phases_y = (int)c.phases_y;
  args->phases_x = (int)c.phases_x;
  args->base_y = (int)c.base_y;
  args->base_x = (int)c.base_x;
  args->by_n = make_divisor(c.n);
  args->by_grid_cols = make_divisor(c.grid_cols);
  args->by_taps = make_divisor(c.taps_y * c.taps_x);
  args->by_tap_cols = make_divisor(c.taps_x);
  args->by_phases = make_divisor(c.phases_y * c.phases_x);
  args->by_phases_x = make_divisor(c.phases_x);

  const auto run = [&](const Choice &choice) {
    const GpuRow &row = table.rows[choice.row];
    const npy_int64 split_depth =
        ((shape.depth + choice.splits - 1) / choice.splits + row.depth - 1) / row.depth * row.depth;
    const npy_int64 splits = (shape.depth + split_depth - 1) / split_depth;
    const npy_int64 m_tiles = (c.m + row.tile_m - 1) / row.tile_m;
    args->split_depth = (int)split_depth;
    args->by_m_tiles = make_divisor(m_tiles);
    const size_t grid[3] = {(size_t)(m_tiles * ((columns + row.tile_n - 1) / row.tile_n)), (size_t)splits,
                            (size_t)c.groups};
    if (splits == 1) {
      args->out = out;
      args->out.offset += 4 * c.out_first;
      args->out_n = (int)c.out_n;
      return launch(choice.row, grid);
    }
    args->out_n = (int)correlation_images(c);
    const npy_int64 dims[4] = {1, 1, splits, args->out_size};
    PyGpuArrayObject *partials = allocate(op, "partial sums", 4, dims, context);
    if (partials == NULL) return -1;
    args->out = device_array(partials);
    const SplitSums sums = {partials, splits, args->out_size, args->out_n, c.out_n, c.out_first};
    const int failed = launch(choice.row, grid) != 0 || sum(sums) != 0 ? -1 : 0;
    Py_DECREF(partials);
    return failed;
  };
  return run_choice(table, shape, context, out.data, run);
}

static npy_int64 array_bytes(const npy_int64 *dims) { return 4 * dims[0] * dims[1] * dims[2] * dims[3]; }

// A correlation as one of words, which hold two channels each (cuda/halves.cu).
static Correlation paired_correlation(Correlation c) {
  c.channels = (c.channels + 1) / 2;
  c.n = (c.out_n + 3) / 4 * 4;
  c.filter_group = (c.filter_group + 3) / 4 * 4;
  c.filter_stride = c.groups * c.filter_group;
  return c;
}

static npy_int64 image_count(const Correlation &c) { return c.groups * c.channels * c.rows * c.cols * c.n; }
static npy_int64 filter_count(const Correlation &c) { return c.channels * c.taps_y * c.taps_x * c.groups * c.filter_group; }

// The product that a correlation is to halves, with what is copied to workspace before.
static ProductShape half_correlation_product(const Correlation &c, PyGpuArrayObject *out, npy_int64 workspace) {
  const Correlation pairs = paired_correlation(c);
  return with_half_copies(correlation_product(pairs, vector_width(pairs.n, out, NULL), true, workspace),
                          image_count(c) + filter_count(c), image_count(pairs) + filter_count(pairs));
}

// Whether a convolution multiplies halves, by run_halves(), or takes the direct kernels, by run_direct(): as
// CONVNET_OPS_VARIANT names a row of theirs or of the others, else what is estimated to be faster, or with tuning was.
// Returns 0, or -1 with an exception.
template <typename Halves, typename Direct>
static int choose_halves(bool allowed, const GpuRows &half_rows, const ProductShape &halves, const GpuRows &direct_rows,
                         const ProductShape &direct, PyGpuContextObject *context, PyGpuArrayObject *out, Halves run_halves,
                         Direct run_direct, bool *by_halves) {
  size_t length;
  const char *forced = forced_row(half_rows.family, &length);
  *by_halves = forced != NULL;
  if (forced != NULL && !allowed) {
    PyErr_Format(PyExc_ValueError, "CONVNET_OPS_VARIANT: %s=%.200s wants precision 'float16'", half_rows.family, forced);
    return -1;
  }
  if (forced != NULL || !allowed || forced_row(direct_rows.family, &length) != NULL) return 0;
  const Card card = card_of(context);
  *by_halves = cheapest_cost(half_rows, halves, card) < cheapest_cost(direct_rows, direct, card);
  if (tuning_file() == NULL || cheapest_row(half_rows, halves, card).row < 0) return 0;
  // Not of the direct kernels too: which of these are the fastest is measured, and may come out otherwise another time.
  const std::string key = "halves_" + tuning_key(half_rows, halves, card);
  const Way halves_way = {"halves", 1}, direct_way = {"direct", 1};
  Way way;
  if (fastest_way(
          key, out->ga.data, [&](const Way &known) { return known.name == halves_way.name || known.name == direct_way.name; },
          [&] { return std::vector<Way>{direct_way, halves_way}; },
          [&](const Way &tried) { return tried.name == halves_way.name ? run_halves() : run_direct(); }, &way) != 0)
    return -1;
  *by_halves = way.name == halves_way.name;
  return 0;
}

static TileProblem tile_problem(const Correlation &c, bool tf32, bool arranged = false) {
  const TileProblem problem = {c.groups,
                               c.channels * c.stride_y * c.stride_x,
                               c.m,
                               c.n,
                               c.grid_rows,
                               c.grid_cols,
                               (c.taps_y + c.stride_y - 1) / c.stride_y,
                               (c.taps_x + c.stride_x - 1) / c.stride_x,
                               tf32,
                               arranged};
  return problem;
}

// The arguments of largest_magnitudes for two arrays; *largest becomes two zeros. No more blocks than the card holds at once.
template <typename Args>
static int fill_largest_args(const char *op, PyGpuArrayObject *first, npy_int64 first_size, PyGpuArrayObject *second,
                             npy_int64 second_size, PyGpuArrayObject *largest, PyGpuContextObject *context, Args *args,
                             size_t *grid) {
  const int error = GpuArray_memset(&largest->ga, 0);
  if (error != GA_NO_ERROR) {
    PyErr_Format(PyExc_RuntimeError, "%s: %s", op, GpuArray_error(&largest->ga, error));
    return -1;
  }
  args->first = device_array(first);
  args->second = device_array(second);
  args->largest = device_array(largest);
  args->first_size = (int)first_size;
  args->second_size = (int)second_size;
  elementwise_grid(std::max(first_size, second_size), 1024, grid);
  grid[0] = std::min<size_t>(grid[0], 8 * multiprocessor_count(context));
  grid[1] = 2;
  return 0;
}

// The grid of a kernel whose blocks go on from tile to tile (cuda/fft_products.cu): as many as the card holds.
static inline void streaming_grid(npy_int64 tiles, const GpuRow &row, const Card &card, size_t *grid) {
  grid[0] = (size_t)std::min<npy_int64>(tiles, (npy_int64)card.multiprocessors * row.blocks_per_sm);
  grid[1] = grid[2] = 1;
}

// The arguments of tile_operands for the images of a correlation: of tile_rows rows of tiles from first_row on.
template <typename Args>
static void fill_patches_args(const TilePlan &plan, PyGpuArrayObject *images, const Correlation &c, npy_int64 first_row,
                              npy_int64 tile_rows, const DeviceArray &out, Args *args) {
  args->images = device_array(images);
  args->out = out;
  args->rows = (int)c.rows;
  args->cols = (int)c.cols;
  args->n = (int)c.n;
  args->pad_y = (int)c.pad_y;
  args->pad_x = (int)c.pad_x;
  args->stride_y = (int)c.stride_y;
  args->step_y = (int)plan.step_y;
  args->step_x = (int)plan.step_x;
  args->first_row = (int)first_row;
  args->size = (int)(c.groups * c.channels * c.stride_y * c.stride_x * tile_rows * plan.tile_cols * plan.n);
  args->by_n = make_divisor(plan.n);
  args->by_tile_cols = make_divisor(plan.tile_cols);
  args->by_tile_rows = make_divisor(tile_rows);
  args->by_phases = make_divisor(c.stride_y * c.stride_x);
  args->by_phases_x = make_divisor(c.stride_x);
}

// The grid of tile_operands for these patches and `others` filters or gradients: `at_once` to a block.
template <typename Args>
static void operands_grid(npy_int64 others, int at_once, Args *args, size_t *grid) {
  elementwise_grid(args->size, at_once, grid);
  args->patch_blocks = (int)grid[0];
  grid[0] += (others + at_once - 1) / at_once;
}

// As print_choice.
static void print_plan(const GpuRows &tiles, const TilePlan &plan, const char *family, npy_int64 workspace) {
  if (!prints_config()) return;
  PySys_WriteStderr("%s: tiles %lld x %lld of %lld images, %lld rows of them at once, row %s, splits 1, workspace %lld bytes\n",
                    family, plan.tile_rows, plan.tile_cols, plan.images, plan.chunk_rows, tiles.rows[plan.row].name,
                    (long long)workspace);
}

// find(), or its last answer for the same arguments: it takes as long as a small batch.
template <typename Find>
static TilePlan remembered_plan(const GpuRows &direct_rows, const ProductShape &direct, const TileProblem &problem,
                                const Card &card, Find find) {
  struct Answer {
    const GpuRow *rows;
    ProductShape direct;
    TileProblem problem;
    Card card;
    double bytes;
    TilePlan plan;
  };
  // Enough for the layers of a network.
  constexpr int count = 64;
  static Answer answers[count];
  static int next = 0;
  const double bytes = tile_bytes();
  for (const Answer &known : answers)
    if (known.rows == direct_rows.rows && known.bytes == bytes && same_shape(known.direct, direct) &&
        same_problem(known.problem, problem) && same_card(known.card, card))
      return known.plan;
  const Answer answer = {direct_rows.rows, direct, problem, card, bytes, find()};
  answers[next] = answer;
  next = (next + 1) % count;
  return answer.plan;
}

// How a convolution is computed: calls run(plan), which writes `out`, may be called several times and for row -1 takes the
// direct kernels. The plan is the one that CONVNET_OPS_VARIANT names ("tiles=none": row -1); unless that names a row of
// the direct kernels, one that is estimated to be faster than `direct`, the best of these; or the fastest, if tuning is asked
// for. rest_us(images) are the microseconds of the direct kernels for so many images beside tiles, negative where there is no
// such way. Returns what run does, or -1 with ValueError.
template <typename Rest, typename Run>
static int run_plan(const TileTables &tables, const TileProblem &problem, bool gradient,
                    const GpuRows &direct_rows, const ProductShape &direct, PyGpuContextObject *context,
                    PyGpuArrayObject *out, Rest rest_us, Run run) {
  const Card card = card_of(context);
  const auto cheapest = [&](double limit, int only) {
    return cheapest_plan(tables, problem, gradient, limit, only, card, rest_us);
  };
  const GpuRows &tiles = tables.tiles;
  const TilePlan none = no_tiles();
  size_t length;
  const char *forced = forced_row("tiles", &length);
  if (forced != NULL && !row_is_forced("tiles", "none")) {
    const int row = row_named(tiles, std::string(forced, length));
    if (row < 0) {
      PyErr_Format(PyExc_ValueError, "CONVNET_OPS_VARIANT: tiles has no row named '%.200s'", forced);
      return -1;
    }
    const TilePlan plan = cheapest(-1, row);
    if (plan.row >= 0) return run(plan);
    PyErr_Format(PyExc_ValueError,
                 "CONVNET_OPS_VARIANT: tiles of %s want filters of up to %s, by phases of the stride, a workspace of under 2 GB "
                 "and, but for winograd_2x2_3x3, compute capability 8.0; winograd_4x4_3x3 wants filters that fill "
                 "half of 3 x 3",
                 tiles.rows[row].name, is_fft(tiles.rows[row]) ? "the tile's size" : "3 x 3");
    return -1;
  }
  if (forced != NULL || forced_row(direct_rows.family, &length) != NULL) return run(none);
  const auto fastest = [&] { return cheapest(cheapest_cost(direct_rows, direct, card), -1); };
  if (forced_tile_images() >= 0) return run(fastest());
  if (tuning_file() == NULL) return run(remembered_plan(direct_rows, direct, problem, card, fastest));

  const double direct_us = cheapest_cost(direct_rows, direct, card);

  char sizes[100];
  snprintf(sizes, sizeof sizes, ":%lldx%lld:%lldx%lld", problem.out_rows, problem.out_cols, problem.taps_y, problem.taps_x);
  const auto plan_named = [&](const Way &way) { return cheapest(-1, row_named(tiles, way.name)); };
  Way way;
  if (fastest_way(
          "tiles_" + tuning_key(direct_rows, direct, card) + sizes, out->ga.data,
          [&](const Way &known) { return known.name == "none" || row_named(tiles, known.name) >= 0; },
          [&] {
            std::vector<Way> ways(1);
            ways[0].name = "none";
            ways[0].splits = 1;
            for (int row = 0; row < tiles.count; ++row)
              if (cheapest(2 * direct_us, row).row >= 0) {
                const Way tile = {tiles.rows[row].name, 1};
                ways.push_back(tile);
              }
            return ways;
          },
          [&](const Way &tried) { return run(tried.name == "none" ? none : plan_named(tried)); }, &way) != 0)
    return -1;
  return run(way.name == "none" ? none : plan_named(way));
}

#endif
