#section support_code

#include <algorithm>

#include "gpu_launch.h"
#include "shuffle_shape.h"

// What shuffle_thin keeps in shared memory.
const npy_int64 kThinFloats = 4096;

static inline npy_int64 tile_count(npy_int64 size, npy_int64 tile) { return (size + tile - 1) / tile; }

// The part of the matrix that a block of this row takes. A thin row fills shared memory, of which a column takes an odd
// number of floats, with as much as there is of its short side.
static inline void set_tile(const GpuRow &row, const ShuffleShape &s, npy_int64 *rows, npy_int64 *cols) {
  *rows = row.tile_m;
  *cols = row.tile_n;
  if (row.tile_m < row.tile_n) {
    *rows = std::min(s.rows, (npy_int64)row.tile_m);
    *cols = std::min(s.cols, kThinFloats / (*rows | 1));
  } else if (row.tile_m > row.tile_n) {
    *cols = std::min(s.cols, (npy_int64)row.tile_n);
    *rows = std::min(s.rows, (kThinFloats / *cols - 1) | 1);
  }
}

#section support_code_struct

int APPLY_SPECIFIC(shuffle_dims)(PyGpuArrayObject *x, PyGpuArrayObject **out, PARAMS_TYPE *params) {
  const char *op = "ShuffleDims";
  npy_int64 dims[4], out_dims[4];
  copy_dims(x, dims);
  const ShuffleShape s = shuffle_shape(dims, params, out_dims);
  if (check_index_limit(op, "x", 4, dims) != 0) return -1;
  const ContiguousGpuArray source(x);
  if (source.failed() || prepare_output(op, "output", out, 4, out_dims, params->context) != 0) return -1;
  if (s.rows == 0 || s.cols == 0) return 0;
  const int vec_rows = vector_width(s.rows, *out, NULL), vec_cols = vector_width(s.cols, source.get(), NULL);
  const GpuRows table = shuffle_dims_rows();
  const ProductShape shape = {s.rows, s.cols, 1, vec_rows, vec_cols, 0, 1, 0, 0};
  const int row = choose_row(table, shape, 1, params->context);
  if (row < 0) return -1;
  npy_int64 tile_rows, tile_cols;
  set_tile(table.rows[row], s, &tile_rows, &tile_cols);
  const npy_int64 row_tiles = tile_count(s.rows, tile_rows), col_tiles = tile_count(s.cols, tile_cols);
  ShuffleArgs args;
  args.source = device_array(source.get());
  args.target = device_array(*out);
  args.rows = (int)s.rows;
  args.cols = (int)s.cols;
  args.tile_rows = (int)tile_rows;
  args.tile_cols = (int)tile_cols;
  args.to_c01b = s.to_c01b;
  args.flip = s.flip;
  args.by_area = make_divisor(s.area);
  args.by_rows = make_divisor(s.rows);
  args.by_tile_rows = make_divisor(tile_rows);
  args.by_tile_cols = make_divisor(tile_cols);
  args.by_tiles = make_divisor(s.to_c01b ? row_tiles : col_tiles);
  // The plain row's blocks go over elements, a thread each.
  const bool plain = table.rows[row].tile_m * table.rows[row].tile_n == 1;
  size_t grid[3];
  elementwise_grid(plain ? s.rows * s.cols : row_tiles * col_tiles, plain ? table.rows[row].threads : 1, grid);
  return shuffle_dims_launch(row, grid, &args, params->context);
}
