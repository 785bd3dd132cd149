// Convolutions by tiles (cuda/winograd.cu, cuda/fft.cu): which tiles, how many at once, and whether they pay. Pure functions, as
// in choose_row.h.
#ifndef CONVNET_OPS_TILES_H
#define CONVNET_OPS_TILES_H

#include "choose_row.h"

// A correlation without a stride: one with a stride has a channel for each of its phases (cuda/tiles.cuh). channels and m are
// those of one group; out_rows and out_cols those of the grid that is computed. arranged: a kernel of ImageActs arranges the filters
// beforehand.
struct TileProblem {
  long long groups, channels, m, n, out_rows, out_cols, taps_y, taps_x;
  bool tf32;
  bool arranged;
};

static inline bool same_problem(const TileProblem &a, const TileProblem &b) {
  return a.groups == b.groups && a.channels == b.channels && a.m == b.m && a.n == b.n && a.out_rows == b.out_rows &&
         a.out_cols == b.out_cols && a.taps_y == b.taps_y && a.taps_x == b.taps_x && a.tf32 == b.tf32 &&
         a.arranged == b.arranged;
}

// The tables that tiles need: the transforms', and those of the products of Winograd's tiles and of Fourier transforms.
struct TileTables {
  GpuRows tiles, products, fft_products;
};

struct TilePlan {
  int row;                        // of tile_operands and its like; -1: none
  long long elements;             // of a tile: so many products of matrices there are
  long long step_y, step_x;       // from tile to tile: their outputs
  long long tile_rows, tile_cols;
  long long images;               // of the batch, the first ones
  long long n;                    // of the transformed images: those, padded to a number divisible by 4
  long long chunk_rows;           // so many rows of tiles at once, which bounds the workspace
  double cost;                    // as cheapest_tiles estimates it
};

// At most so many bytes of transformed images and products, unless a single row of tiles has more.
static inline double tile_bytes() {
  const char *bytes = getenv("CONVNET_OPS_TILE_BYTES");
  return bytes == NULL ? 512 << 20 : atof(bytes);
}

// Whether a tile is one of Fourier transforms, of stride x stride pixels, not one of Winograd's.
static inline bool is_fft(const GpuRow &tile) { return tile.window == 0; }

// Whether products may be rounded to TF32: Winograd's tiles of more than 4 x 4 make 1e-3 and more of its 3e-4 (measured: 5e-4,
// and 2e-3 with 6 x 6). For the same reason those want the three products of product.cuh for float32's accuracy.
static inline bool tile_allows_tf32(const GpuRow &tile) { return is_fft(tile) || tile.stride + tile.window - 1 <= 4; }

// Whether taps fill less than half of a tile of Winograd's, which leaves small sums of large terms.
static inline bool is_thin(const GpuRow &tile, const TileProblem &p) {
  return !is_fft(tile) && 2 * p.taps_y * p.taps_x < tile.window * tile.window;
}

static inline bool rounds_to_tf32(const GpuRow &tile, const TileProblem &p) {
  return p.tf32 && tile_allows_tf32(tile) && !is_thin(tile, p);
}

// The plan for a tile, row -1 if it cannot be used.
static inline TilePlan plan_tiles(const GpuRows &tiles, int row, const TileProblem &p) {
  const GpuRow &tile = tiles.rows[row];
  TilePlan plan = {row};
  bool possible;
  if (is_fft(tile)) {
    const long long size = tile.stride;
    plan.elements = size * size + 4;
    plan.step_y = size - p.taps_y + 1;
    plan.step_x = size - p.taps_x + 1;
    possible = plan.step_y > 0 && plan.step_x > 0;
  } else {
    const long long size = tile.stride + tile.window - 1;
    plan.elements = size * size;
    plan.step_y = plan.step_x = tile.stride;
    possible = p.taps_y <= tile.window && p.taps_x <= tile.window && (size <= 4 || !is_thin(tile, p));
  }
  if (!possible) {
    plan.row = -1;
    return plan;
  }
  plan.tile_rows = (p.out_rows + plan.step_y - 1) / plan.step_y;
  plan.tile_cols = (p.out_cols + plan.step_x - 1) / plan.step_x;
  plan.images = p.n;
  plan.n = (p.n + 3) / 4 * 4;
  // Of a row of tiles, before and after the products.
  const double before = (double)plan.elements * p.groups * p.channels * plan.tile_cols * plan.n;
  const double after = (double)plan.elements * p.groups * p.m * plan.tile_cols * plan.n;
  const long long fitting = (long long)(tile_bytes() / (4 * (before + after)));
  const long long most = fitting < 1 ? 1 : fitting > plan.tile_rows ? plan.tile_rows : fitting;
  const long long chunks = (plan.tile_rows + most - 1) / most;
  plan.chunk_rows = (plan.tile_rows + chunks - 1) / chunks;
  const double filters = (double)plan.elements * p.groups * (p.m + 3) * p.channels;
  // No more than 2 GB, which keeps arrays under 2^31 elements too, and no more products than the grid has places for.
  const double workspace = 4 * (filters + (before + after) * plan.chunk_rows);
  const bool large = workspace > 2147483648. || plan.elements * p.groups > 65535;
  if (large) plan.row = -1;
  return plan;
}

static inline long long tile_chunks(const TilePlan &plan) {
  return (plan.tile_rows + plan.chunk_rows - 1) / plan.chunk_rows;
}

// The products of a chunk, for FilterActs and ImageActs.
static inline ProductShape tile_product(const TilePlan &plan, const GpuRow &tile, const TileProblem &p) {
  if (is_fft(tile)) {
    const ProductShape shape = {p.m, plan.chunk_rows * plan.tile_cols * plan.n, plan.elements / 2 * p.groups, 4, 4, 0, 1,
                                0, 0, p.channels, 1, 1, p.tf32, 0, true, true};
    return shape;
  }
  const ProductShape shape = {p.m, plan.chunk_rows * plan.tile_cols * plan.n, plan.elements * p.groups, 4, 4, plan.n, 1,
                              0, 0, p.channels, 1, 1, rounds_to_tf32(tile, p), 0,
                              !tile_allows_tf32(tile), false};
  return shape;
}

// The same for WeightActs: sums over a chunk's tiles, no longer than 8192.
static inline ProductShape tile_gradient_product(const TilePlan &plan, const GpuRow &tile, const TileProblem &p) {
  const long long depth = plan.chunk_rows * plan.tile_cols * plan.n;
  const long long least = (depth + 8191) / 8192;
  const long long fitting = (long long)(tile_bytes() / (4. * plan.elements * p.channels * p.groups * p.m * tile_chunks(plan)));
  const long long batches = (is_fft(tile) ? plan.elements / 2 : plan.elements) * p.groups;
  const ProductShape shape = {p.channels, p.m, batches, is_fft(tile) ? 4 : 1, 4, 0, 1, 0, 0, depth, least,
                              fitting < least ? least : fitting,
                              rounds_to_tf32(tile, p), 0, is_fft(tile) || !tile_allows_tf32(tile), is_fft(tile)};
  return shape;
}

// The estimated microseconds of a plan with the best row for its products, or -1 if none will do: as row_cost, on an H200, but for
// what waits for memory, which is between an H100's and an H200's: the transforms' rates, which are a tile's weight in 0.1 TB/s,
// read and written, and the least time of products.
static inline double tile_cost(const TilePlan &plan, const TileProblem &p, const TileTables &tables, bool gradient,
                               const Card &card) {
  const GpuRow &tile = tables.tiles.rows[plan.row];
  const GpuRows &products = is_fft(tile) ? tables.fft_products : tables.products;
  const ProductShape shape = gradient ? tile_gradient_product(plan, tile, p) : tile_product(plan, tile, p);
  const Choice choice = cheapest_row(products, shape, card);
  if (choice.row < 0) return -1;
  const double chunks = (double)tile_chunks(plan);
  const double bytes = 4. * plan.elements * p.groups * plan.n;
  const double before = bytes * p.channels * plan.tile_rows * plan.tile_cols;
  const double after = bytes * p.m * plan.tile_rows * plan.tile_cols;
  const double filters = 4. * plan.elements * p.groups * p.m * p.channels * (gradient ? chunks * choice.splits : 1);
  if (filters > 2147483648.) return -1;  // as in plan_tiles
  double products_us = row_cost(products.rows[choice.row], shape, choice.splits, card);
  // Products of Fourier transforms are short: most wait for memory.
  const double moved_us = (before + after + filters) / chunks / 3.5e6;
  if (is_fft(tile) && products_us < moved_us) products_us = moved_us;
  const double arrays = 4. * p.groups * (p.channels + p.m) * p.out_rows * p.out_cols * p.n;
  double us = chunks * (6 + products_us) + (before + after + filters + arrays) / (1e5 * tile.weight) + 3;
  if (p.arranged) us += kCopyStartUs + copy_us(4. * p.groups * p.channels * p.m * p.taps_y * p.taps_x);
  // The host takes 4 to 5 us to start a kernel, which small layers wait for (lenet2, 32 to 128 images).
  const double host_us = 4.5 * (3 * chunks + p.arranged);
  return us > host_us ? us : host_us;
}

// The cheapest plan that takes less than `limit` microseconds, or any if that is negative; row -1 if there is none. only is
// the one row to consider, or -1.
static inline TilePlan cheapest_tiles(const TileTables &tables, const TileProblem &p, bool gradient, double limit,
                                      int only, const Card &card) {
  TilePlan best = {-1};
  for (int row = 0; row < tables.tiles.count; ++row) {
    if (only >= 0 && row != only) continue;
    const TilePlan plan = plan_tiles(tables.tiles, row, p);
    if (plan.row < 0) continue;
    const double cost = tile_cost(plan, p, tables, gradient, card);
    if (cost < 0 || (limit >= 0 && cost >= limit)) continue;
    limit = cost;
    best = plan;
    best.cost = cost;
  }
  return best;
}

// The number that CONVNET_OPS_VARIANT gives as tile_images, or -1.
static inline long long forced_tile_images() {
  size_t length;
  const char *images = forced_row("tile_images", &length);
  return images == NULL ? -1 : atoll(images);
}

// cheapest_tiles for all images, or for whole blocks of 64 of them, if that with rest_us(images) for the others is cheaper: few
// images more than 64 or 128 would have a block of their own.
template <typename Rest>
static TilePlan cheapest_plan(const TileTables &tables, const TileProblem &problem, bool gradient, double limit, int only,
                              const Card &card, Rest rest_us) {
  const long long forced = forced_tile_images();
  TileProblem part = problem;
  part.n = forced < 0 ? problem.n / 64 * 64 : forced;
  const double rest = part.n > 0 && part.n < problem.n ? rest_us(problem.n - part.n) : -1;
  TilePlan whole = {-1};
  if (forced < 0 || rest < 0) whole = cheapest_tiles(tables, problem, gradient, limit, only, card);
  if (rest < 0) return whole;
  if (whole.row >= 0) limit = whole.cost;
  if (limit >= 0 && limit <= rest) return whole;
  const TilePlan split = cheapest_tiles(tables, part, gradient, limit < 0 ? -1 : limit - rest, only, card);
  return split.row < 0 ? whole : split;
}

// The row of the last transform: of tile `tile` the only one, or of two the second where 8 does not divide the batch of n and the
// `size` tiles make one of its wider blocks for each multiprocessor; or the one that CONVNET_OPS_VARIANT names, -1 if that is of
// another tile.
static inline int choose_outputs_row(const GpuRows &outputs, int tile, long long n, long long size, const Card &card) {
  size_t length;
  const bool forced = forced_row(outputs.family, &length) != NULL;
  int chosen = forced ? -1 : tile;
  for (int i = tile; i < outputs.count; ++i) {
    const GpuRow &row = outputs.rows[i];
    if (row.window != outputs.rows[tile].window || row.stride != outputs.rows[tile].stride) continue;
    const bool wide_enough = n % 8 != 0 && size >= (long long)card.multiprocessors * row.tile_n;
    if (forced ? row_is_forced(outputs.family, row.name) : wide_enough) chosen = i;
  }
  return chosen;
}

#endif
