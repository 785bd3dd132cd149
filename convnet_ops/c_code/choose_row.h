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
  int threads, blocks_per_sm, tile_m, tile_n, vec_m, vec_n, trim, weight, window, stride;
};

struct GpuRows {
  const char *family;
  const GpuRow *rows;
  int count;
};

// A product of m x n results, `batches` of them, each a sum of equal length. vec_m and vec_n are 4 or 1: how many
// adjacent floats may be loaded at once along m and n. `run` adjacent columns belong to one pixel, and a row that trims
// leaves a share of `trimmed` of the products, if its blocks cover few pixels. window and stride are those of pooling,
// 0 where rows and columns differ; the other ops leave them 0.
struct ProductShape {
  long long m, n, batches;
  int vec_m, vec_n;
  long long run;
  double trimmed;
  long long window, stride;
};

static inline bool row_supports(const GpuRow &row, const ProductShape &shape) {
  return row.vec_m <= shape.vec_m && row.vec_n <= shape.vec_n && (row.window == 0 || row.window == shape.window) &&
         (row.stride == 0 || row.stride == shape.stride);
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

// Relative time of a row: the products of the blocks of the multiprocessor that gets most, over its speed.
static inline double row_cost(const GpuRow &row, const ProductShape &shape, int multiprocessors) {
  const double blocks = (double)((shape.m + row.tile_m - 1) / row.tile_m) *
                        (double)((shape.n + row.tile_n - 1) / row.tile_n) * (double)shape.batches;
  const double most = ceil(blocks / multiprocessors);
  // With fewer blocks than it holds it hides less of the latency; the root is near what was measured at a half.
  const double fill = most < row.blocks_per_sm ? most / row.blocks_per_sm : 1;
  const double speed = row.weight * sqrt(fill) / (row.vec_m * row.vec_n < 16 ? 1.1 : 1);
  // Trimming itself cost 7 to 21 % on layers with little padding.
  double share = 1;
  if (row.trim) share = 1.15 * (row.tile_n <= 2 * shape.run ? shape.trimmed : 1);
  return most * row.tile_m * row.tile_n * share / speed;
}

// The cheapest row that supports the shape, or -1.
static inline int cheapest_row(const GpuRows &table, const ProductShape &shape, int multiprocessors) {
  int best = -1;
  double best_cost = 0;
  for (int i = 0; i < table.count; ++i) {
    if (table.rows[i].weight == 0 || !row_supports(table.rows[i], shape)) continue;
    const double cost = row_cost(table.rows[i], shape, multiprocessors);
    if (best < 0 || cost < best_cost) {
      best = i;
      best_cost = cost;
    }
  }
  return best;
}

#endif
