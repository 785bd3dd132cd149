// The gradient of the images.
//
// Fast: with a stride, the pixels (y, x) of the images fall into stride_y * stride_x phases by ((y + pad_y) % stride_y,
// (x + pad_x) % stride_x), and all pixels of one phase see the same filter taps: r with (y + pad_y - r) % stride_y == 0.
// So the gradient is a correlation with stride 1 over the gradients of the outputs, with (channel, phase) as its output
// channels and filters of ceil(filter_rows / stride_y) x ceil(filter_cols / stride_x) taps. Few channels would leave a
// tile of correlate.cuh nearly empty; then blocks of block_y x block_x phases count as phases too: the correlation has
// stride (block_y, block_x), and block - 1 more taps a direction, some of them zero. arrange_filters builds the filters,
// flipped, zero where a phase has no tap; correlate.cuh does the rest and scatters the phases.
//
// By columns: where images and batches are small, each tap's share of the gradient, for all outputs, is one matrix product
// (columns.cu), and add_taps sums for each pixel what the taps that reach it give. The product has none with padding, and loads 4
// filters at once whatever the batch.
//
// Plain: one thread gathers one pixel, in double precision.

struct ArrangeFiltersArgs {
  const float *filters;  // (channels, filter_rows, filter_cols, groups * filters_per_group)
  float *out;            // (filters_per_group, taps_y, taps_x, groups, filter_group): last (channel, phase_y, phase_x)
  int channels;          // of one group
  int filter_rows;
  int filter_cols;
  int filter_count;      // of all groups
  int filters_per_group;
  int filter_group;      // channels * phases_y * phases_x, or a little more: the rest is zeros
  int taps_y;
  int stride_y;
  int stride_x;
  int block_y;
  int block_x;
  Divisor by_taps_x;
  Divisor by_phases_y;   // stride_y * block_y
  Divisor by_phases_x;
  Divisor by_groups;
};

// A block moves 32 channels x 32 filters of one tap through shared memory: they are read with adjacent filters, and stored
// with adjacent channels. gridDim.x counts the taps with their phases, and the groups.
__device__ __forceinline__ void arrange_filters(const ArrangeFiltersArgs &a) {
  __shared__ float tile[32][33];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int rest, group, phase_x, phase_y, tap_x;
  rest = a.by_groups.divide(blockIdx.x, group);
  rest = a.by_phases_x.divide(rest, phase_x);
  rest = a.by_phases_y.divide(rest, phase_y);
  const int tap_y = a.by_taps_x.divide(rest, tap_x);
  const int r = phase_y + a.stride_y * (a.taps_y - a.block_y - tap_y);
  const int s = phase_x + a.stride_x * (a.by_taps_x.value - a.block_x - tap_x);
  const bool inside = r >= 0 && r < a.filter_rows && s >= 0 && s < a.filter_cols;
  const int channel_begin = blockIdx.y * 32, filter_begin = blockIdx.z * 32;
  for (int i = warp; i < 32; i += 8) {
    const int channel = channel_begin + i, filter = filter_begin + lane;
    tile[i][lane] = inside && channel < a.channels && filter < a.filters_per_group
                        ? a.filters[((channel * a.filter_rows + r) * a.filter_cols + s) * a.filter_count +
                                    group * a.filters_per_group + filter]
                        : 0.f;
  }
  __syncthreads();
  for (int i = warp; i < 32; i += 8) {
    const int filter = filter_begin + i;
    const int m = ((channel_begin + lane) * a.by_phases_y.value + phase_y) * a.by_phases_x.value + phase_x;
    if (filter < a.filters_per_group && m < a.filter_group)
      a.out[(((filter * a.taps_y + tap_y) * a.by_taps_x.value + tap_x) * a.by_groups.value + group) * a.filter_group + m] =
          tile[lane][i];
  }
}

struct AddTapsArgs {
  const float *columns;  // (splits, channels, filter_rows, filter_cols, out_rows, out_cols, n)
  float *out;            // (channels, rows, cols, n)
  int filter_rows;
  int filter_cols;
  int splits;
  int split_size;        // of columns
  int row_size;          // out_rows * out_cols * n
  int out_rows;
  int out_cols;
  int pad_y;
  int pad_x;
  int size;              // of out
  Divisor by_n;
  Divisor by_cols;
  Divisor by_rows;
  Divisor by_stride_y;
  Divisor by_stride_x;
};

// One thread sums one pixel's taps, always in the same order. It reads 2 x 4 of them at once, since it would else wait for each.
__device__ __forceinline__ void add_taps(const AddTapsArgs &a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.size) return;
  int image, row, col, r_first, s_first;
  const int pixel = a.by_n.divide(i, image);
  const int channel = a.by_rows.divide(a.by_cols.divide(pixel, col), row);
  // Taps r_first + j * stride reach it, from outputs y - j; likewise in columns.
  const int y = a.by_stride_y.divide(row + a.pad_y, r_first);
  const int x = a.by_stride_x.divide(col + a.pad_x, s_first);
  const int stride_y = a.by_stride_y.value, stride_x = a.by_stride_x.value;
  const int y_begin = max(0, y - a.out_rows + 1), x_begin = max(0, x - a.out_cols + 1);
  const int y_end = min(y + 1, a.by_stride_y.quotient(a.filter_rows - r_first + stride_y - 1));
  const int x_end = min(x + 1, a.by_stride_x.quotient(a.filter_cols - s_first + stride_x - 1));
  const int step_y = stride_y * a.filter_cols * a.row_size - a.out_cols * a.by_n.value;
  const int step_x = stride_x * a.row_size - a.by_n.value;
  const int first = (channel * a.filter_rows + r_first) * a.filter_cols + s_first;
  const float *taps = a.columns + first * a.row_size + (y * a.out_cols + x) * a.by_n.value + image;
  float sum = 0.f;
  for (int split = 0; split < a.splits; ++split, taps += a.split_size)
    for (int j_y = y_begin; j_y < y_end; j_y += 2)
      for (int j_x = x_begin; j_x < x_end; j_x += 4) {
        float values[2][4];
#pragma unroll
        for (int e = 0; e < 8; ++e) {
          const int tap_y = j_y + e / 4, tap_x = j_x + e % 4;
          values[e / 4][e % 4] = tap_y < y_end && tap_x < x_end ? taps[tap_y * step_y + tap_x * step_x] : 0.f;
        }
#pragma unroll
        for (int e = 0; e < 8; ++e) sum += values[e / 4][e % 4];
      }
  a.out[i] = sum;
}

struct ImgActsArgs {
  const float *hid_acts;  // (groups * filters_per_group, out_rows, out_cols, n)
  const float *filters;   // (channels, filter_rows, filter_cols, groups * filters_per_group)
  float *out;             // (groups * channels, rows, cols, n)
  int channels;           // of one group
  int rows;
  int cols;
  int n;
  int filter_rows;
  int filter_cols;
  int filter_count;       // of all groups
  int filters_per_group;
  int out_rows;
  int out_cols;
  int stride_y;
  int stride_x;
  int pad_y;
  int pad_x;
  int size;               // pixels of out
};

__device__ __forceinline__ void img_acts(const ImgActsArgs &a) {
  for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < a.size; i += (size_t)gridDim.x * blockDim.x) {
    const int image = i % a.n;
    const int col = i / a.n % a.cols;
    const int row = i / a.n / a.cols % a.rows;
    const int channel = i / a.n / a.cols / a.rows;
    const int c = channel % a.channels;
    const int first_filter = channel / a.channels * a.filters_per_group;
    double sum = 0;
    for (int r = 0; r < a.filter_rows; ++r) {
      const int y = row + a.pad_y - r;
      if (y < 0 || y % a.stride_y || y / a.stride_y >= a.out_rows) continue;
      for (int s = 0; s < a.filter_cols; ++s) {
        const int x = col + a.pad_x - s;
        if (x < 0 || x % a.stride_x || x / a.stride_x >= a.out_cols) continue;
        const float *hid = a.hid_acts + (y / a.stride_y * a.out_cols + x / a.stride_x) * a.n + image;
        const float *tap = a.filters + ((c * a.filter_rows + r) * a.filter_cols + s) * a.filter_count;
        for (int f = first_filter; f < first_filter + a.filters_per_group; ++f)
          sum += (double)hid[(size_t)f * a.out_rows * a.out_cols * a.n] * tap[f];
      }
    }
    a.out[i] = (float)sum;
  }
}
