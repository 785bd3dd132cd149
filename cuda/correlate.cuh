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
// Block    Product::kTileM x Product::kTileN outputs of one group, and of one split of the sum; consecutive blocks share a
//          column tile, so that its images are read from L2 by all but the first, and the filters stay in L2 throughout.
// Product  which of them a thread computes, and how (product.cuh).
// Trimming Rows and columns of taps that see only padding from all pixels of a block are left out: with one pixel a
//          block, the gradient of 7 x 7 filters on 16 x 16 images has 2.6 times fewer products.
// Taps     What a row of k means (where its images and filters lie, which r and s) is worked out by one thread, a step
//          ahead, and read from shared memory by those that copy.
// Splits   where tiles are few, gridDim.y blocks share the sum of one: each writes a whole output of its own, which
//          sum_partials (partials.cu) adds in their order.
// Shared   kStages * kDepth * (kTileM + kTileN + 4) floats; kStages - 1 steps of k are under way while one is multiplied.
// Limits   arrays under 2^31 elements. filter_stride and filter_group are divisible by 4 and the filters aligned to 16
//          bytes; kVecN = 4 wants that of n, image_n and the images too.

struct CorrelateArgs {
  const float *images;   // (groups * channels, rows, cols, image_n), of which the first n are convolved
  const float *filters;  // (channels, taps_y, tap columns, filter_stride): group g's are m columns from g * filter_group on
  float *out;            // (splits, groups * m / phases, out_rows, out_cols, out_n)
  int channels;          // of one group
  int rows;
  int cols;
  int image_n;
  int m;                 // output channels of one group, times the phases
  int filter_stride;
  int filter_group;
  int stride_y;
  int stride_x;
  int pad_y;
  int pad_x;
  int taps_y;            // rows of the filters
  int columns;           // grid rows * grid columns * n
  int out_rows;
  int out_cols;
  int out_n;             // at most n: further images are padding, and not stored
  int out_size;          // elements of one split's output
  int split_depth;       // products of one split's sums, divisible by kDepth
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

// What happens to a thread's sums before they are stored, in an overload for another struct: here nothing. m_begin is the
// block's first output channel in its group.
template <typename Product>
__device__ __forceinline__ void finish_sums(const CorrelateArgs &, const Product &, int group, int m_begin,
                                            float (&sum)[Product::kRows][Product::kPieces][4]) {}

// Images and filters are words of halves (halves.cu): `channels` counts pairs of channels, and n is divisible by 4.
struct HalfCorrelateArgs : CorrelateArgs {
  const int *largest;    // the bits of both arrays' largest magnitudes
};

template <typename Product>
__device__ __forceinline__ void finish_sums(const HalfCorrelateArgs &a, const Product &, int group, int m_begin,
                                            float (&sum)[Product::kRows][Product::kPieces][4]) {
  const HalfScale scale(a.largest);
#pragma unroll
  for (int i = 0; i < Product::kRows; ++i) scale.undo(sum[i]);
}

template <typename Product, int kDepth, int kStages, int kVecN, bool kPhases, typename Args>
__device__ __forceinline__ void correlate(const Args &a) {
  constexpr int kTileM = Product::kTileM;
  constexpr int kTileN = Product::kTileN;
  constexpr int kThreads = Product::kThreads;

  // Copies of filters: kTileM / 4 of them make a row of k.
  constexpr int kFilterCopiesPerRow = kTileM / 4;
  constexpr int kFilterCopies = kDepth * kFilterCopiesPerRow;
  // Copies of images: a thread's columns stay the same for the whole sum.
  constexpr int kImageCopiesPerRow = kTileN / kVecN;
  constexpr int kColumnsPerThread = kImageCopiesPerRow > kThreads ? kImageCopiesPerRow / kThreads : 1;
  constexpr int kRowsAtOnce = kImageCopiesPerRow > kThreads ? 1 : kThreads / kImageCopiesPerRow;
  static_assert(kDepth % kRowsAtOnce == 0, "every thread copies equally many image rows");

  __shared__ __align__(16) float filter_tile[kStages][kDepth][kTileM];
  __shared__ __align__(16) float image_tile[kStages][kDepth][kTileN];
  __shared__ __align__(16) int tap_table[kStages][kDepth][4];  // offset in the images, r, s, row of the filters

  const int thread = threadIdx.x;
  const int group = blockIdx.z;
  int m_tile;
  const int column_tile = a.by_m_tiles.divide(blockIdx.x, m_tile);
  const int m_begin = m_tile * kTileM;
  const int column_begin = column_tile * kTileN;

  const float *filters = a.filters + group * a.filter_group;
  const float *images = a.images + group * a.channels * a.rows * a.cols * a.image_n;

  // Where this thread's columns begin in the images. A column past the end starts so far up that no row is valid, and a
  // tap past the end reaches so far down.
  constexpr int kOutside = 1 << 29;
  const int first_copy = kImageCopiesPerRow > kThreads ? thread : thread % kImageCopiesPerRow;
  const int first_row = kImageCopiesPerRow > kThreads ? 0 : thread / kImageCopiesPerRow;
  int y_begin[kColumnsPerThread], x_begin[kColumnsPerThread], offset[kColumnsPerThread];
#pragma unroll
  for (int i = 0; i < kColumnsPerThread; ++i) {
    const int column = column_begin + (first_copy + i * kThreads) * kVecN;
    y_begin[i] = -2 * kOutside;
    x_begin[i] = 0;
    offset[i] = 0;
    if (column < a.columns) {
      int image, x;
      const int pixel = a.by_n.divide(column, image);
      const int y = a.by_grid_cols.divide(pixel, x);
      y_begin[i] = y * a.stride_y - a.pad_y;
      x_begin[i] = x * a.stride_x - a.pad_x;
      offset[i] = (y_begin[i] * a.cols + x_begin[i]) * a.image_n + image;
    }
  }

  // The taps [r_begin, r_end) x [s_begin, s_end) that reach into the images from any pixel of this block.
  int x_first, x_last;
  const int y_first = a.by_grid_cols.divide(a.by_n.quotient(column_begin), x_first);
  const int y_last = a.by_grid_cols.divide(a.by_n.quotient(min(column_begin + kTileN, a.columns) - 1), x_last);
  if (y_first != y_last) {
    x_first = 0;
    x_last = a.by_grid_cols.value - 1;
  }
  const int r_begin = max(0, a.pad_y - y_last * a.stride_y);
  const int s_begin = max(0, a.pad_x - x_last * a.stride_x);
  const int r_end = min(a.taps_y, a.rows + a.pad_y - y_first * a.stride_y);
  const int s_end = min(a.by_tap_cols.value, a.cols + a.pad_x - x_first * a.stride_x);
  const int tap_cols = max(0, s_end - s_begin);
  const int taps = max(0, r_end - r_begin) * tap_cols;
  const bool trimmed = taps != a.by_taps.value;
  const Divisor by_taps = trimmed ? device_divisor(max(1, taps)) : a.by_taps;
  const Divisor by_tap_cols = trimmed ? device_divisor(max(1, tap_cols)) : a.by_tap_cols;
  const int sum_begin = blockIdx.y * a.split_depth;
  const int depth = min(a.channels * taps, sum_begin + a.split_depth);

  auto describe_taps = [&](int stage, int k_begin) {
    if (thread < kDepth) {
      const int k = k_begin + thread;
      int tap, s;
      const int channel = by_taps.divide(k, tap);
      const int r = by_tap_cols.divide(tap, s) + r_begin;
      s += s_begin;
      int *entry = tap_table[stage][thread];
      entry[0] = ((channel * a.rows + r) * a.cols + s) * a.image_n;
      entry[1] = k < depth ? r : kOutside;
      entry[2] = s;
      entry[3] = k < depth ? (channel * a.taps_y + r) * a.by_tap_cols.value + s : -1;
    }
  };

  // The table is read for several copies at a time, since none of its loads passes a copy.
  auto load = [&](int stage, bool wanted) {
    constexpr int kFilterCopiesPerThread = (kFilterCopies + kThreads - 1) / kThreads;
    constexpr int kRowsPerThread = kDepth / kRowsAtOnce;
    constexpr int kTapsAtOnce = kRowsPerThread % 4 == 0 ? 4 : kRowsPerThread % 2 == 0 ? 2 : 1;
    int filter_rows[kFilterCopiesPerThread];
#pragma unroll
    for (int i = 0; i < kFilterCopiesPerThread; ++i) {
      const int row = (thread + i * kThreads) / kFilterCopiesPerRow;
      filter_rows[i] = kFilterCopies % kThreads == 0 || row < kDepth ? tap_table[stage][row][3] : -1;
    }
    int4 taps[kTapsAtOnce];
#pragma unroll
    for (int j = 0; j < kTapsAtOnce; ++j) taps[j] = *(const int4 *)tap_table[stage][first_row + j * kRowsAtOnce];
#pragma unroll
    for (int i = 0; i < kFilterCopiesPerThread; ++i) {
      const int copy = thread + i * kThreads;
      const int row = copy / kFilterCopiesPerRow;
      const int m = copy % kFilterCopiesPerRow * 4;
      if (kFilterCopies % kThreads == 0 || copy < kFilterCopies) {
        const bool valid = filter_rows[i] >= 0 && m_begin + m < a.m;
        const float *source = filters + filter_rows[i] * a.filter_stride + m_begin + m;
        copy_or_zero<4>(&filter_tile[stage][row][m ^ Product::swizzle_m(row)], source, valid, wanted);
      }
    }
#pragma unroll
    for (int j = 0; j < kRowsPerThread; ++j) {
      const int row = first_row + j * kRowsAtOnce;
      if (j > 0 && j % kTapsAtOnce == 0) {
#pragma unroll
        for (int i = 0; i < kTapsAtOnce; ++i) taps[i] = *(const int4 *)tap_table[stage][row + i * kRowsAtOnce];
      }
      const int4 tap = taps[j % kTapsAtOnce];
#pragma unroll
      for (int i = 0; i < kColumnsPerThread; ++i) {
        const bool valid = (unsigned)(y_begin[i] + tap.y) < (unsigned)a.rows &&
                           (unsigned)(x_begin[i] + tap.z) < (unsigned)a.cols;
        const int n = (first_copy + i * kThreads) * kVecN;
        copy_or_zero<kVecN>(&image_tile[stage][row][n ^ Product::swizzle_n(row)], images + (offset[i] + tap.x), valid,
                            wanted);
      }
    }
  };

  const Product product(thread);
  float sum[Product::kRows][Product::kPieces][4];
#pragma unroll
  for (int i = 0; i < Product::kRows; ++i)
#pragma unroll
    for (int piece = 0; piece < Product::kPieces; ++piece)
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[i][piece][j] = 0.f;

  const int steps = (depth - sum_begin + kDepth - 1) / kDepth;
#pragma unroll
  for (int stage = 0; stage < kStages; ++stage) describe_taps(stage, sum_begin + stage * kDepth);
  __syncthreads();
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < steps) load(stage, true);
    commit_copies();
  }

  int stage = 0;
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<kStages - 2>();
    // Also keeps a fast warp from overwriting the stage that a slow one still multiplies.
    __syncthreads();
    describe_taps(stage, sum_begin + (step + kStages) * kDepth);
    const int free_stage = stage == 0 ? kStages - 1 : stage - 1;
    const bool more = step + kStages - 1 < steps;
    // With two stages the copies have no more time than this step.
    constexpr bool kLate = kStages > 2 && Product::kParts > 0;
    if (!kLate) {
      if (more) load(free_stage, true);
      commit_copies();
    }
    product.multiply(filter_tile[stage], image_tile[stage], sum, [&] {
      if (kLate) {
        load(free_stage, more);
        commit_copies();
      }
    });
    stage = stage == kStages - 1 ? 0 : stage + 1;
  }

  finish_sums(a, product, group, m_begin, sum);
  float *out = a.out + (size_t)blockIdx.y * a.out_size;
  // What a row of the tile means: the index of its first output, then its phase, so far down that no output is valid if
  // the row is none.
  const auto describe_row = [&](int m) {
    int phase_y = 0, phase_x = 0, channel = m;
    if (kPhases) {
      int phase;
      channel = a.by_phases.divide(m, phase);
      phase_y = a.by_phases_x.divide(phase, phase_x);
    }
    const int channels = kPhases ? a.by_phases.quotient(a.m) : a.m;
    const int pixel = ((group * channels + channel) * a.out_rows + phase_y) * a.out_cols + phase_x;
    return make_int4(pixel * a.out_n, m < a.m ? phase_y : kOutside, phase_x, 0);
  };
  // What a column of the tile means: what it adds to that index, and the pixel that its phase is to be added to.
  const auto describe_column = [&](int column) {
    int image, y = 0, x = 0;
    const int pixel = a.by_n.divide(column, image);
    int place = pixel * a.out_n + image;
    if (kPhases) {
      y = a.by_grid_cols.divide(pixel, x) * a.phases_y + a.base_y;
      x = x * a.phases_x + a.base_x;
      place = (y * a.out_cols + x) * a.out_n + image;
    }
    return make_int4(place, column < a.columns && image < a.out_n ? y : kOutside, x, 0);
  };
  const auto is_output = [&](const int4 &row, const int4 &column) {
    return (unsigned)(row.y + column.y) < (unsigned)a.out_rows &&
           (!kPhases || (unsigned)(row.z + column.z) < (unsigned)a.out_cols);
  };

  // Without phases and padding all of a row's columns are adjacent outputs. With phases 4 are, images of one pixel, if 4
  // divides the batch.
  const bool unpadded = a.out_n == a.by_n.value;
  const bool by_fours = unpadded && (kVecN == 4 || (!kPhases && a.columns % 4 == 0 && (size_t)a.out % 16 == 0));
  int4 *const row_table = (int4 *)filter_tile;
  if (kPhases || !by_fours) {
    __syncthreads();
    for (int row = thread; row < kTileM; row += kThreads) row_table[row] = describe_row(m_begin + row);
    __syncthreads();
  }
  if (by_fours) {
    int4 columns[Product::kPieces];
#pragma unroll
    for (int piece = 0; piece < Product::kPieces; ++piece)
      columns[piece] = describe_column(column_begin + product.column(piece));
#pragma unroll
    for (int i = 0; i < Product::kRows; ++i) {
      const int4 row = kPhases ? row_table[product.row(i)] : describe_row(m_begin + product.row(i));
#pragma unroll
      for (int piece = 0; piece < Product::kPieces; ++piece) {
        const float *value = sum[i][piece];
        if (is_output(row, columns[piece]))
          *(float4 *)(out + row.x + columns[piece].x) = make_float4(value[0], value[1], value[2], value[3]);
      }
    }
    return;
  }
  // One at a time, adjacent ones by adjacent threads: by way of the memory of the images, as many rows as it has.
  constexpr int kStagedRows = kStages * kDepth < kTileM ? kStages * kDepth : kTileM;
  constexpr int kColumnsAtOnce = kThreads < kTileN ? kThreads : kTileN;
  float(*const staged)[kTileN] = image_tile[0];
#pragma unroll 1
  for (int first = 0; first < kTileM; first += kStagedRows) {
    if (first > 0) __syncthreads();
#pragma unroll
    for (int i = 0; i < Product::kRows; ++i) {
      const int row = product.row(i) - first;
      if ((unsigned)row >= (unsigned)kStagedRows) continue;
#pragma unroll
      for (int piece = 0; piece < Product::kPieces; ++piece) {
        const float *value = sum[i][piece];
        *(float4 *)&staged[row][product.column(piece)] = make_float4(value[0], value[1], value[2], value[3]);
      }
    }
    __syncthreads();
    const int rows = min(kStagedRows, kTileM - first);
#pragma unroll 1
    for (int i = thread % kColumnsAtOnce; i < kTileN; i += kColumnsAtOnce) {
      const int4 column = describe_column(column_begin + i);
#pragma unroll 8
      for (int row = thread / kColumnsAtOnce; row < rows; row += kThreads / kColumnsAtOnce) {
        const int4 described = row_table[first + row];
        if (is_output(described, column)) out[described.x + column.x] = staged[row][i];
      }
    }
  }
}
