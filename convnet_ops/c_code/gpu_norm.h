// What the GPU host code of the response normalisation shares.
#ifndef CONVNET_OPS_GPU_NORM_H
#define CONVNET_OPS_GPU_NORM_H

#include "gpu_launch.h"
#include "norm_shape.h"

// How many channels a thread goes through: all of them, or, where the positions are too few for the card, a chunk.
// Each chunk reads its windows' channels outside it once more, so it is four windows long at least.
template <typename Args>
static void set_chunk(const GpuRow &row, npy_int64 channels, const ChannelWindow &w, PyGpuContextObject *context,
                      Args *args, size_t *grid) {
  const npy_int64 resident = 2048 * (npy_int64)multiprocessor_count(context);
  const npy_int64 wanted = resident / (npy_int64)(grid[0] * row.threads);
  npy_int64 chunk = channels;
  if (w.block == 0 && wanted > 1 && w.back < channels && w.ahead < channels) {
    chunk = (channels + wanted - 1) / wanted;
    if (chunk < 4 * (w.back + w.ahead + 1)) chunk = 4 * (w.back + w.ahead + 1);
    if (chunk > channels) chunk = channels;
  }
  args->chunk = (int)chunk;
  grid[1] = (channels + chunk - 1) / chunk;
}

// Fills the sizes in the arguments of cuda/response_norm.cu, and calls launch(row, grid), the grid one over the
// positions. `vec` is how many positions may be loaded at once.
template <typename Args, typename Launch>
static int launch_norm(const GpuRows &table, const npy_int64 *dims, const ChannelWindow &w, int vec, Args *args,
                       PyGpuContextObject *context, Launch launch) {
  const npy_int64 positions = dims[1] * dims[2] * dims[3];
  const npy_int64 window = w.block == 0 ? w.back + w.ahead + 1 : 0;
  const ProductShape shape = {1, positions, 1, 1, vec, 0, 1, window, 0};
  const int row = choose_row(table, shape, dims[0], context);
  if (row < 0) return -1;
  args->channels = (int)dims[0];
  args->positions = (int)positions;
  // Windows reach no further than there are channels.
  args->back = (int)(w.back < dims[0] ? w.back : dims[0]);
  args->ahead = (int)(w.ahead < dims[0] ? w.ahead : dims[0]);
  args->block = (int)(w.block < dims[0] ? w.block : dims[0]);
  size_t grid[3];
  elementwise_grid(positions, table.rows[row].tile_n, grid);
  return launch(row, grid);
}

#endif
