// Which row of a kernel table to launch: pure functions of the shape and the card, without CUDA or Python, so that they
// run (and are tested) anywhere.
#ifndef CONVNET_OPS_CHOOSE_ROW_H
#define CONVNET_OPS_CHOOSE_ROW_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

// kernels.py generates the tables and says what the fields mean.
struct GpuRow {
  const char *name, *kernel_name;
  int threads, blocks_per_sm, tile_m, tile_n, vec_m, vec_n, weight, window, stride, capability, tf32, depth;
};

struct GpuRows {
  const char *family;
  const GpuRow *rows;
  int count;
};

struct Card {
  int multiprocessors;
  int capability;  // times 10
};

static inline bool same_card(const Card &a, const Card &b) {
  return a.multiprocessors == b.multiprocessors && a.capability == b.capability;
}

// A product of m x n results, `batches` of them, each a sum of equal length. vec_m and vec_n are 4 or 1: how many
// adjacent floats may be loaded at once along m and n. `run` adjacent columns belong to one pixel, and blocks that cover few
// pixels can leave out all but a share of `trimmed` of the products. window and stride are those of pooling, 0 where rows
// and columns differ. depth is the length of the sums, which blocks may share: least_splits to most_splits of them; tf32
// says whether operands may be rounded to TF32. workspace counts the bytes of copies made for the kernel beforehand. accurate
// asks for sums with the rounding of few additions, whatever their length: those of tensor cores. streamed: a block goes on to its
// next tile with the loads under way. before_us: microseconds of what else is done beforehand. wide_n: floats along n are loaded by
// fours, whatever the row. Ops that multiply nothing leave the last ones 0.
struct ProductShape {
  long long m, n, batches;
  int vec_m, vec_n;
  long long run;
  double trimmed;
  long long window, stride;
  long long depth, least_splits, most_splits;
  bool tf32;
  long long workspace;
  bool accurate;
  bool streamed;
  double before_us;
  bool wide_n;
};

// A row of a table, and how many blocks share a sum.
struct Choice {
  int row;
  long long splits;
};

static inline bool row_supports(const GpuRow &row, const ProductShape &shape, const Card &card) {
  return row.vec_m <= shape.vec_m && row.vec_n <= shape.vec_n && (row.window == 0 || row.window == shape.window) &&
         (row.stride == 0 || row.stride == shape.stride) && row.capability <= card.capability &&
         (shape.tf32 || !row.tf32) && (row.capability > 0 || !shape.accurate);
}

// The row that CONVNET_OPS_VARIANT ("filter_acts=plain,weight_acts=...") names for a family, or NULL; *length is set.
static inline const char *forced_row(const char *family, size_t *length) {
  const char *variants = getenv("CONVNET_OPS_VARIANT");
  const size_t family_length = strlen(family);
  while (variants != NULL && *variants != '\0') {
    const char *end = strchr(variants, ',');
    if (end == NULL) end = variants + strlen(variants);
    if (strncmp(variants, family, family_length) == 0 && variants[family_length] == '=') {
      *length = end - (variants + family_length + 1);
      return variants + family_length + 1;
    }
    variants = *end == ',' ? end + 1 : end;
  }
  return NULL;
}

static inline bool row_is_forced(const char *family, const char *row) {
  size_t length;
  const char *forced = forced_row(family, &length);
  return forced != NULL && length == strlen(row) && strncmp(forced, row, length) == 0;
}

// How fast a row's arithmetic is here, relative to its weight. The weights are those of an H200. Datacentre cards (8.0, 9.0,
// 10.0) have tensor cores in about the same proportion; on the others TF32 is no faster than multiply-adds (data sheets).
static inline double card_speed(const GpuRow &row, const Card &card) {
  return row.capability == 0 || card.capability % 10 == 0 && card.capability <= 100 ? 1 : row.tf32 ? 0.4 : 0.25;
}

// How much longer a convolution's row takes that loads floats one by one: one of the n is loaded for m products, one of the m for
// n. WeightActs loads both so, or with shape.wide_n those of the m. 0.3 is between what single images make (alex3 and vgg3_2, the
// gradient of the filters) and odd batches (alex1, forward, with TF32: 1.7); multiply-adds of FilterActs hide more of it (lenet1).
static inline double narrow_loads(const GpuRow &row, const ProductShape &shape) {
  const double load = row.capability == 0 && row.vec_m > 1 ? 0.2 : 0.3;
  return 1 + load * row.weight * ((shape.wide_n ? 0 : 1. / row.tile_m) + (row.vec_m == 1 ? 1. / row.tile_n : 0));
}

// Microseconds of a copy of so many bytes, read and written at 2.5 TB/s: between the rate of a copy, 4.1, and what they were seen
// to add on alex1, 1.9.
static inline double copy_us(double bytes) { return 2. * bytes / 2.5e6; }

// How long the host takes to start one, which small layers wait for (lenet1, 129 images).
static const double kCopyStartUs = 5;

// The estimated time of a row: the products of the multiprocessor that gets most blocks, over its speed, and the sum of the
// splits. In microseconds, for the convolutions on an H200; for others in units that mean nothing but to each other.
static inline double row_cost(const GpuRow &row, const ProductShape &shape, long long splits, const Card &card) {
  const double blocks = (double)((shape.m + row.tile_m - 1) / row.tile_m) *
                        (double)((shape.n + row.tile_n - 1) / row.tile_n) * (double)shape.batches * (double)splits;
  const double most = ceil(blocks / card.multiprocessors);
  // With fewer blocks than it holds, as in the last round, a multiprocessor hides less of the latency; the root is near
  // what was measured at a half.
  const double rounds = floor(most / row.blocks_per_sm), last = most - rounds * row.blocks_per_sm;
  const double full_blocks = rounds * row.blocks_per_sm + sqrt(last * row.blocks_per_sm);
  // What is no sum takes the last blocks as long as one.
  const double overhead_blocks = rounds * row.blocks_per_sm + (last > 0 ? sqrt(row.blocks_per_sm) : 0);
  const double narrow = row.vec_n > 1 ? 1 : shape.depth == 0 ? 1.25 : narrow_loads(row, shape);
  const double flop_per_us = row.weight * card_speed(row, card) / narrow * 1e6 / 132;
  // What a block does before and after its sums takes as long as so many products of each of them: of tensor cores 1.05 of the
  // row's weight, of multiply-adds 0.6, with which lenet1 and VGG's first layer, of sums of 25 and 27, keep the rows that were
  // measured to be the fastest there. Half the weight where TF32 sums of correlations are whole, longer, and load by fours (108
  // to 363 products: galaxy_6x6, maxout_cifar, overfeat1, alex1, cb1).
  const bool steady = row.tf32 && row.vec_m > 1 && row.vec_n > 1 && splits == 1 && shape.depth >= 64;
  const double overhead = shape.streamed ? 16 : row.weight * (row.capability == 0 ? 0.6 : steady ? 0.5 : 1.05);
  // Trimmed sums differ from block to block, and the last may be a whole one.
  const double trimmed = row.tile_n <= 2 * shape.run ? shape.trimmed : 1;
  const double all_rounds = blocks / ((double)card.multiprocessors * row.blocks_per_sm);
  const double products = shape.depth * (trimmed + (1 - trimmed) / (all_rounds > 1 ? all_rounds : 1)) / splits;
  const double depth = ceil(products / row.depth) * row.depth;
  double time = (full_blocks * depth + overhead_blocks * overhead) * row.tile_m * row.tile_n * 2 / flop_per_us;
  if (shape.workspace > 0) time += kCopyStartUs + copy_us(shape.workspace);
  time += shape.before_us;
  // A second kernel, which reads all that the splits have written.
  if (splits > 1) time += 3 + 8. * splits * shape.m * shape.n * shape.batches / 3e6;
  return time;
}

// The best number of splits for a row.
static inline long long cheapest_splits(const GpuRow &row, const ProductShape &shape, const Card &card) {
  long long best = shape.least_splits > 1 ? shape.least_splits : 1;
  double best_cost = row_cost(row, shape, best, card);
  // Sums shorter than 32 are not worth a block.
  const long long most = shape.most_splits < shape.depth / 32 ? shape.most_splits : shape.depth / 32;
  const long long blocks = ((shape.m + row.tile_m - 1) / row.tile_m) * ((shape.n + row.tile_n - 1) / row.tile_n) *
                           shape.batches;
  for (long long splits = best + 1; splits <= most; splits += 1 + splits / 4) {
    // More blocks than the card holds four times need no more splits.
    if (blocks * splits > 4ll * card.multiprocessors * row.blocks_per_sm) break;
    const double cost = row_cost(row, shape, splits, card);
    if (cost < best_cost) {
      best = splits;
      best_cost = cost;
    }
  }
  return best;
}

// cheapest_row, worked out: a microsecond or two, which small batches would feel at every call.
static inline Choice search_cheapest_row(const GpuRows &table, const ProductShape &shape, const Card &card) {
  Choice best = {-1, 1};
  double best_cost = 0;
  for (int i = 0; i < table.count; ++i) {
    if (table.rows[i].weight == 0 || !row_supports(table.rows[i], shape, card)) continue;
    const long long splits = cheapest_splits(table.rows[i], shape, card);
    const double cost = row_cost(table.rows[i], shape, splits, card);
    if (best.row < 0 || cost < best_cost) {
      best.row = i;
      best.splits = splits;
      best_cost = cost;
    }
  }
  return best;
}

static inline bool same_shape(const ProductShape &a, const ProductShape &b) {
  return a.m == b.m && a.n == b.n && a.batches == b.batches && a.vec_m == b.vec_m && a.vec_n == b.vec_n &&
         a.run == b.run && a.trimmed == b.trimmed && a.window == b.window && a.stride == b.stride && a.depth == b.depth &&
         a.least_splits == b.least_splits && a.most_splits == b.most_splits && a.tf32 == b.tf32 &&
         a.workspace == b.workspace && a.accurate == b.accurate && a.streamed == b.streamed &&
         a.before_us == b.before_us && a.wide_n == b.wide_n;
}

// The cheapest row that supports the shape, with its splits; row -1 if there is none. The last answers are remembered.
static inline Choice cheapest_row(const GpuRows &table, const ProductShape &shape, const Card &card) {
  struct Answer {
    const GpuRow *rows;
    ProductShape shape;
    Card card;
    Choice choice;
  };
  // Enough for the layers of a network, which this is called for in turn.
  constexpr int count = 128;
  static Answer answers[count];
  static int next = 0;
  for (const Answer &known : answers)
    if (known.rows == table.rows && same_card(known.card, card) && same_shape(known.shape, shape)) return known.choice;
  const Answer answer = {table.rows, shape, card, search_cheapest_row(table, shape, card)};
  answers[next] = answer;
  next = (next + 1) % count;
  return answer.choice;
}

// The estimated microseconds of the best row, or infinity.
static inline double cheapest_cost(const GpuRows &rows, const ProductShape &shape, const Card &card) {
  const Choice choice = cheapest_row(rows, shape, card);
  return choice.row < 0 ? HUGE_VAL : row_cost(rows.rows[choice.row], shape, choice.splits, card);
}

// A product of halves whose operands are so many values: makes it count how these are read, once for the largest magnitude
// and once for the copy, of which row_cost knows no more than what is written. Zeroing two words, and two more kernels, take
// 2 or 3 each.
static inline ProductShape with_half_copies(ProductShape shape, long long values, long long words) {
  shape.workspace += 4 * words;
  shape.before_us = 8 + (8. * values - 4. * words) / 2.5e6;
  return shape;
}

#endif
