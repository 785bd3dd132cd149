// What the GPU host code of the pooling ops shares.
#ifndef CONVNET_OPS_GPU_POOL_H
#define CONVNET_OPS_GPU_POOL_H

#include "gpu_launch.h"
#include "pool_shape.h"

// What the threads of a kernel go over (cuda/pool.cuh): outputs, pixels, or tiles of stride x stride pixels. A row that knows
// its stride takes tiles where the others take pixels.
enum PoolGrid { kOverOutputs, kOverPixels, kOverTiles };

// Tiles before that of window 0, and all of them, in one direction.
static inline npy_int64 tiles_before(npy_int64 start, npy_int64 stride) {
  return start > 0 ? (start + stride - 1) / stride : 0;
}

static inline npy_int64 tile_count(npy_int64 size, npy_int64 start, npy_int64 stride) {
  return (size - start + tiles_before(start, stride) * stride + stride - 1) / stride;
}

// How many tiles of a column a thread goes through: many, so that fewer windows are read by two threads, as long as the
// card has threads enough.
static inline npy_int64 tile_chunk(npy_int64 columns, npy_int64 tile_rows, PyGpuContextObject *context) {
  const npy_int64 wanted = 2 * 1024 * (npy_int64)multiprocessor_count(context);
  npy_int64 chunk = columns * tile_rows / wanted;
  if (chunk < 1) chunk = 1;
  if (chunk > 8) chunk = 8;
  return chunk < tile_rows ? chunk : tile_rows;
}

// Fills the geometry in the arguments of a pooling kernel, and calls launch(row, grid). `arrays` are all that it touches.
template <typename Args, typename Launch>
static int launch_pool(const GpuRows &table, const PoolShape &s, PoolGrid over, PyGpuArrayObject *const *arrays,
                       int array_count, Args *args, PyGpuContextObject *context, Launch launch) {
  const int vec = vector_width(s.n, arrays, array_count);
  const npy_int64 elements = s.channels * s.n * (over == kOverOutputs ? s.out_rows * s.out_cols : s.rows * s.cols);
  const ProductShape shape = {1, elements, 1, 1, vec, 0, 1, s.ds_y == s.ds_x ? s.ds_y : 0,
                              s.stride_y == s.stride_x ? s.stride_y : 0};
  const int row = choose_row(table, shape, s.ds_y * s.ds_x, context);
  if (row < 0) return -1;
  const npy_int64 copies = s.n / table.rows[row].vec_n;
  npy_int64 width = over == kOverOutputs ? s.out_cols : s.cols, height = over == kOverOutputs ? s.out_rows : s.rows;
  args->tile_rows = (int)tile_count(s.rows, s.start_y, s.stride_y);
  args->chunk = 1;
  if (over == kOverTiles || table.rows[row].stride > 0) {
    width = tile_count(s.cols, s.start_x, s.stride_x);
    if (over == kOverPixels)
      args->chunk = (int)tile_chunk(s.channels * width * copies, args->tile_rows, context);
    height = (args->tile_rows + args->chunk - 1) / args->chunk;
  }
  args->rows = (int)s.rows;
  args->cols = (int)s.cols;
  args->n = (int)s.n;
  args->out_rows = (int)s.out_rows;
  args->out_cols = (int)s.out_cols;
  args->ds_y = (int)s.ds_y;
  args->ds_x = (int)s.ds_x;
  // A larger stride than any array has a single window, as has this one.
  args->stride_y = (int)(s.stride_y < 2147483647 ? s.stride_y : 2147483647);
  args->stride_x = (int)(s.stride_x < 2147483647 ? s.stride_x : 2147483647);
  args->start_y = (int)s.start_y;
  args->start_x = (int)s.start_x;
  args->shift_y = (int)tiles_before(s.start_y, s.stride_y);
  args->shift_x = (int)tiles_before(s.start_x, s.stride_x);
  args->size = (int)(s.channels * width * height * copies);
  args->by_copies = make_divisor(copies);
  args->by_width = make_divisor(width);
  args->by_height = make_divisor(height);
  size_t grid[3];
  elementwise_grid((npy_int64)args->size * table.rows[row].vec_n, table.rows[row].tile_n, grid);
  return launch(row, grid);
}

#endif
