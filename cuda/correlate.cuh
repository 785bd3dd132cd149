// Correlation of images with filters as one matrix product that never builds the matrix of image patches.
//
//   out[m, column] = sum over k of  filters[k, m] * images[channel(k), row(column) + r(k), col(column) + s(k), n(column)]
//
// m       output channel of a group          column  (output row, output column, image), image fastest
// k       (channel, r, s), s fastest         c01b    every k and every output pixel give N adjacent floats
//
// FilterActs is this as it stands. ImageActs is it too, over the output's gradients, with arranged filters (img_acts.cu):
// there m counts (channel, phase), and the kPhases version of the last step scatters the phases to their pixels.
// FusedFilterActs (fused_filter_acts.cu) is it with another struct, whose finish_sums() adds a bias and an activation.
//
// Block    kTileM x kTileN outputs of one group; consecutive blocks share a column tile, so that its images are read
//          from L2 by all but the first, and the filters stay in L2 throughout.
// kTrim    leaves out the rows and columns of taps that see only padding from all pixels of a block: with one pixel a
//          block, the gradient of 7 x 7 filters on 16 x 16 images has 2.6 times fewer products. It costs registers, and
//          8 % of the speed where there is nothing to leave out.
// Warp     (8 * kLanesM) x (8 * kLanesN) outputs, its lanes laid out kLanesM x kLanesN.
// Thread   8 x 8 outputs, in four pieces of 4 x 4, so that its shared memory reads are 16 bytes wide and conflict-free.
// Shared   kStages * kDepth * (kTileM + kTileN) floats; kStages - 1 steps of k are under way while one is multiplied.
// Limits   arrays under 2^31 elements. kVecM = 4 wants m and filter_stride divisible by 4, kVecN = 4 wants n
//          divisible by 4, both 16-byte aligned arrays; 1 takes everything.

struct CorrelateArgs {
  const float *images;   // (groups * channels, rows, cols, n)
  const float *filters;  // (channels, taps_y, tap columns, filter_stride): group g's filters are columns g * m ... (g + 1) * m
  float *out;            // (groups * m / phases, out_rows, out_cols, n)
  int channels;          // of one group
  int rows;
  int cols;
  int m;                 // output channels of one group, times the phases
  int filter_stride;
  int stride_y;
  int stride_x;
  int pad_y;
  int pad_x;
  int taps_y;            // rows of the filters
  int columns;           // grid rows * grid columns * n
  int out_rows;
  int out_cols;
  int phases_y;          // output pixels that one pixel of the grid computes
  int phases_x;
  int base_y;            // output row of the grid's first row in phase 0
  int base_x;
  Divisor by_n;
  Divisor by_grid_cols;
  Divisor by_taps;       // rows * columns of the filters
  Divisor by_tap_cols;
  Divisor by_phases;     // phases_y * phases_x
  Divisor by_phases_x;
  Divisor by_m_tiles;
};

// What happens to a thread's sums before they are stored, in an overload for another struct: here nothing. m_begin is
// the output channel of the first of them.
template <int kLanesM>
__device__ __forceinline__ void finish_sums(const CorrelateArgs &, int group, int m_begin, float (&sum)[8][8]) {}

template <int kLanesM, int kWarpsM, int kWarpsN, int kDepth, int kStages, int kVecM, int kVecN, bool kPhases,
          bool kTrim, typename Args>
__device__ __forceinline__ void correlate(const Args &a) {
  constexpr int kLanesN = 32 / kLanesM;
  constexpr int kTileM = 8 * kLanesM * kWarpsM;
  constexpr int kTileN = 8 * kLanesN * kWarpsN;
  constexpr int kThreads = 32 * kWarpsM * kWarpsN;

  // Copies of filters: kTileM / kVecM of them make a row of k.
  constexpr int kFilterCopiesPerRow = kTileM / kVecM;
  constexpr int kFilterCopies = kDepth * kFilterCopiesPerRow;
  // Copies of images: a thread's columns stay the same for the whole sum.
  constexpr int kImageCopiesPerRow = kTileN / kVecN;
  constexpr int kColumnsPerThread = kImageCopiesPerRow > kThreads ? kImageCopiesPerRow / kThreads : 1;
  constexpr int kRowsAtOnce = kImageCopiesPerRow > kThreads ? 1 : kThreads / kImageCopiesPerRow;
  static_assert(kDepth % kRowsAtOnce == 0, "every thread copies equally many image rows");

  __shared__ __align__(16) float filter_tile[kStages][kDepth][kTileM];
  __shared__ __align__(16) float image_tile[kStages][kDepth][kTileN];

  const int thread = threadIdx.x;
  const int group = blockIdx.z;
  int m_tile;
  const int column_tile = a.by_m_tiles.divide(blockIdx.x, m_tile);
  const int m_begin = m_tile * kTileM;
  const int column_begin = column_tile * kTileN;

  const float *filters = a.filters + group * a.m;
  const float *images = a.images + (size_t)group * a.channels * a.rows * a.cols * a.by_n.value;

  // Where this thread's columns begin in the images. A column past the end starts so far up that no row is valid.
  const int first_copy = kImageCopiesPerRow > kThreads ? thread : thread % kImageCopiesPerRow;
  const int first_row = kImageCopiesPerRow > kThreads ? 0 : thread / kImageCopiesPerRow;
  int y_begin[kColumnsPerThread], x_begin[kColumnsPerThread], offset[kColumnsPerThread];
#pragma unroll
  for (int i = 0; i < kColumnsPerThread; ++i) {
    const int column = column_begin + (first_copy + i * kThreads) * kVecN;
    y_begin[i] = -(1 << 30);
    x_begin[i] = 0;
    offset[i] = 0;
    if (column < a.columns) {
      int image, x;
      const int pixel = a.by_n.divide(column, image);
      const int y = a.by_grid_cols.divide(pixel, x);
      y_begin[i] = y * a.stride_y - a.pad_y;
      x_begin[i] = x * a.stride_x - a.pad_x;
      offset[i] = (y_begin[i] * a.cols + x_begin[i]) * a.by_n.value + image;
    }
  }

  int r_begin = 0, s_begin = 0, taps = a.by_taps.value;
  Divisor by_taps = a.by_taps, by_tap_cols = a.by_tap_cols;
  if (kTrim) {
    // The taps [r_begin, r_end) x [s_begin, s_end) that reach into the images from any pixel of this block.
    int x_first, x_last;
    const int y_first = a.by_grid_cols.divide(a.by_n.quotient(column_begin), x_first);
    const int y_last = a.by_grid_cols.divide(a.by_n.quotient(min(column_begin + kTileN, a.columns) - 1), x_last);
    if (y_first != y_last) {
      x_first = 0;
      x_last = a.by_grid_cols.value - 1;
    }
    r_begin = max(0, a.pad_y - y_last * a.stride_y);
    s_begin = max(0, a.pad_x - x_last * a.stride_x);
    const int r_end = min(a.taps_y, a.rows + a.pad_y - y_first * a.stride_y);
    const int s_end = min(a.by_tap_cols.value, a.cols + a.pad_x - x_first * a.stride_x);
    const int tap_cols = max(0, s_end - s_begin);
    taps = max(0, r_end - r_begin) * tap_cols;
    by_taps = device_divisor(max(1, taps));
    by_tap_cols = device_divisor(max(1, tap_cols));
  }
  const int depth = a.channels * taps;

  auto load = [&](int stage, int k_begin) {
#pragma unroll
    for (int i = 0; i < (kFilterCopies + kThreads - 1) / kThreads; ++i) {
      const int copy = thread + i * kThreads;
      const int row = copy / kFilterCopiesPerRow;
      const int m = copy % kFilterCopiesPerRow * kVecM;
      if (kFilterCopies % kThreads == 0 || copy < kFilterCopies) {
        const bool valid = k_begin + row < depth && m_begin + m < a.m;
        int filter_row = k_begin + row;
        if (kTrim) {
          int tap, s;
          const int channel = by_taps.divide(filter_row, tap);
          const int r = by_tap_cols.divide(tap, s);
          filter_row = (channel * a.taps_y + r_begin + r) * a.by_tap_cols.value + s_begin + s;
        }
        const float *source = valid ? filters + filter_row * a.filter_stride + m_begin + m : filters;
        copy_or_zero<kVecM>(&filter_tile[stage][row][m], source, valid);
      }
    }
#pragma unroll
    for (int j = 0; j < kDepth / kRowsAtOnce; ++j) {
      const int row = first_row + j * kRowsAtOnce;
      const int k = k_begin + row;
      int tap, s;
      const int channel = by_taps.divide(k, tap);
      const int r = by_tap_cols.divide(tap, s) + r_begin;
      s += s_begin;
      const int k_offset = ((channel * a.rows + r) * a.cols + s) * a.by_n.value;
#pragma unroll
      for (int i = 0; i < kColumnsPerThread; ++i) {
        const bool valid = k < depth && (unsigned)(y_begin[i] + r) < (unsigned)a.rows &&
                           (unsigned)(x_begin[i] + s) < (unsigned)a.cols;
        const float *source = valid ? images + offset[i] + k_offset : images;
        copy_or_zero<kVecN>(&image_tile[stage][row][(first_copy + i * kThreads) * kVecN], source, valid);
      }
    }
  };

  const int warp = thread / 32, lane = thread % 32;
  const int warp_m = warp / kWarpsN * 8 * kLanesM + lane / kLanesN * 4;
  const int warp_n = warp % kWarpsN * 8 * kLanesN + lane % kLanesN * 4;

  float sum[8][8];
#pragma unroll
  for (int i = 0; i < 8; ++i)
#pragma unroll
    for (int j = 0; j < 8; ++j) sum[i][j] = 0.f;

  const int steps = (depth + kDepth - 1) / kDepth;
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < steps) load(stage, stage * kDepth);
    commit_copies();
  }

  int stage = 0;
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<kStages - 2>();
    // Also keeps a fast warp from overwriting the stage that a slow one still multiplies.
    __syncthreads();
    const int next = step + kStages - 1;
    if (next < steps) load((stage + kStages - 1) % kStages, next * kDepth);
    commit_copies();
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      float f[8], v[8];
      *(float4 *)&f[0] = *(const float4 *)&filter_tile[stage][k][warp_m];
      *(float4 *)&f[4] = *(const float4 *)&filter_tile[stage][k][warp_m + 4 * kLanesM];
      *(float4 *)&v[0] = *(const float4 *)&image_tile[stage][k][warp_n];
      *(float4 *)&v[4] = *(const float4 *)&image_tile[stage][k][warp_n + 4 * kLanesN];
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[i][j] += f[i] * v[j];
    }
    stage = (stage + 1) % kStages;
  }

  finish_sums<kLanesM>(a, group, m_begin + warp_m, sum);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int piece = 0; piece < 4; piece += kVecN) {
      const int column = column_begin + warp_n + half * 4 * kLanesN + piece;
      if (column >= a.columns) continue;
      int image = 0, x = 0, y = 0;
      if (kPhases) {
        const int pixel = a.by_n.divide(column, image);
        y = a.by_grid_cols.divide(pixel, x);
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int m = m_begin + warp_m + i / 4 * 4 * kLanesM + i % 4;
        if (m >= a.m) continue;
        float *target;
        if (kPhases) {
          int phase, phase_x;
          const int channel = a.by_phases.divide(m, phase);
          const int phase_y = a.by_phases_x.divide(phase, phase_x);
          const int out_y = y * a.phases_y + phase_y + a.base_y;
          const int out_x = x * a.phases_x + phase_x + a.base_x;
          if ((unsigned)out_y >= (unsigned)a.out_rows || (unsigned)out_x >= (unsigned)a.out_cols) continue;
          const int out_channel = group * a.by_phases.quotient(a.m) + channel;
          target = a.out + ((out_channel * a.out_rows + out_y) * a.out_cols + out_x) * a.by_n.value + image;
        } else {
          target = a.out + (group * a.m + m) * a.columns + column;
        }
        const float *value = &sum[i][half * 4 + piece];
        if (kVecN == 4)
          *(float4 *)target = make_float4(value[0], value[1], value[2], value[3]);
        else
          *target = *value;
      }
    }
  }
}
