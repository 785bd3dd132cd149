// What the GPU host code of the three pooling ops shares.
#ifndef CONVNET_OPS_GPU_POOL_H
#define CONVNET_OPS_GPU_POOL_H

#include "gpu_launch.h"
#include "pool_shape.h"

// Fills the arguments of cuda/pool.cu but its arrays, and calls launch(row, grid). (rows, cols) are the pixels of the
// kernel's output; `vec` is how many images may be loaded at once.
template <typename Args, typename Launch>
static int launch_pool(const GpuRows &table, const PoolShape &s, npy_int64 rows, npy_int64 cols, int vec, Args *args,
                       PyGpuContextObject *context, Launch launch) {
  const ProductShape shape = {1, s.channels * rows * cols * s.n, 1, 1, vec, 0, 1};
  const int row = choose_row(table, shape, s.ds_y * s.ds_x, context);
  if (row < 0) return -1;
  const int width = table.rows[row].vec_n;
  args->rows = (int)s.rows;
  args->cols = (int)s.cols;
  args->n = (int)s.n;
  args->out_rows = (int)s.out_rows;
  args->out_cols = (int)s.out_cols;
  args->ds_y = (int)s.ds_y;
  args->ds_x = (int)s.ds_x;
  args->stride_y = (int)s.stride_y;
  args->stride_x = (int)s.stride_x;
  args->start_y = (int)s.start_y;
  args->start_x = (int)s.start_x;
  args->size = (int)(shape.n / width);
  args->by_copies = make_divisor(s.n / width);
  args->by_width = make_divisor(cols);
  args->by_height = make_divisor(rows);
  size_t grid[3];
  elementwise_grid(args->size, table.rows[row].threads, grid);
  return launch(row, grid);
}

#endif
