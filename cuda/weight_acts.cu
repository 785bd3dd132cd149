// The gradient of the filters:
//
//   gradient[k, f] = sum over q of  images[channel(k), row(q) + r(k), col(q) + s(k), n(q)] * hid_grads[f, q]
//
// k   a filter tap (channel, r, s)     q   (output row, output column, image), image fastest: N adjacent floats
//
// The sum over q is long and the result small, so it is cut into splits; every split writes a whole partial gradient,
// and sum_partials (partials.cu) adds them in their order: no atomics, the same bits on every run. Short splits also keep the
// float32 rounding of long sums low. Steps of kDepth adjacent q are dealt to the splits in turn: blocks that run at the same
// time read what lies together, which for arrays of 200 MB and more was up to 1.5 times as fast as ranges (alex1, 256 images,
// TF32).
//
// Block    Product::kTileM taps x Product::kTileN filters of one group, of one split.
// Product  which of them a thread computes, and how (product.cuh).
// Shared   both tiles as [row][q], as they lie in memory; rows are Product::kPad floats longer than kDepth.
//          kStages * (kTileM + kTileN) * (kDepth + kPad) floats and 4 ints a tap.
// Limits   arrays under 2^31 elements. kVec = 4 wants n divisible by 4 and 16-byte aligned arrays; 1 takes everything, and reads
//          hid_grads by fours where the length of q is divisible by 4.

struct WeightActsArgs {
  const float *images;     // (groups * channels, rows, cols, n)
  const float *hid_grads;  // (groups * filters_per_group, out_rows, out_cols, n)
  float *partials;         // (splits, channels, filter_rows, filter_cols, groups * filters_per_group)
  float *gradient;         // stored too where there is a single split, unless it is `partials` itself
  int channels;            // of one group
  int rows;
  int cols;
  int taps;                // channels * filter_rows * filter_cols
  int filters_per_group;
  int filter_count;        // of all groups
  int length;              // of q: out_rows * out_cols * n
  int stride_y;
  int stride_x;
  int pad_y;
  int pad_x;
  Divisor by_n;
  Divisor by_out_cols;
  Divisor by_window;       // filter_rows * filter_cols
  Divisor by_filter_cols;
  Divisor by_m_tiles;
};

// What happens to a thread's sums before they are stored, in an overload for another struct: here nothing.
template <int kRows, int kColumns>
__device__ __forceinline__ void finish_sums(const WeightActsArgs &, float (&sum)[kRows][kColumns]) {}

// Images and hid_grads are words of two halves each (halves.cu), and n counts words.
struct HalfWeightActsArgs : WeightActsArgs {
  const int *largest;      // the bits of both arrays' largest magnitudes
};

template <int kRows, int kColumns>
__device__ __forceinline__ void finish_sums(const HalfWeightActsArgs &a, float (&sum)[kRows][kColumns]) {
  HalfScale(a.largest).undo(sum);
}

// Copies q_step and the kDepth - 1 q after it of `filters` rows, at most Product::kTileN; what is not before `length` becomes
// zeros.
template <typename Product, int kVec, int kDepth, int kRow>
__device__ __forceinline__ void copy_hid_grads(float (&tile)[Product::kTileN][kRow], const float *hid_grads, int filters,
                                               int length, int q_step) {
  constexpr int kCopiesPerRow = kDepth / kVec;
  constexpr int kRowsAtOnce = Product::kThreads / kCopiesPerRow;
  const int copy_q = threadIdx.x % kCopiesPerRow * kVec, q = q_step + copy_q;
#pragma unroll
  for (int i = 0; i < (Product::kTileN + kRowsAtOnce - 1) / kRowsAtOnce; ++i) {
    const int f = threadIdx.x / kCopiesPerRow + i * kRowsAtOnce;
    if (Product::kTileN % kRowsAtOnce == 0 || f < Product::kTileN)
      copy_or_zero<kVec>(&tile[f][copy_q], hid_grads + (f * length + q), f < filters && q < length);
  }
}

template <typename Product, int kDepth, int kStages, int kVec, typename Args>
__device__ __forceinline__ void weight_acts(const Args &a) {
  constexpr int kTileM = Product::kTileM;
  constexpr int kTileN = Product::kTileN;
  constexpr int kThreads = Product::kThreads;
  constexpr int kAdjacent = Product::kAdjacent;
  constexpr int kRow = kDepth + Product::kPad;
  constexpr int kCopiesPerRow = kDepth / kVec;
  constexpr int kRowsAtOnce = kThreads / kCopiesPerRow;
  constexpr int kOutside = 1 << 29;

  __shared__ __align__(16) float image_tile[kStages][kTileM][kRow];
  __shared__ __align__(16) float hid_tile[kStages][kTileN][kRow];
  __shared__ __align__(16) int tap_table[kTileM][4];  // offset in the images, r, s

  const int thread = threadIdx.x;
  const int group = blockIdx.z;
  int m_tile;
  const int n_tile = a.by_m_tiles.divide(blockIdx.x, m_tile);
  const int m_begin = m_tile * kTileM;
  const int n_begin = n_tile * kTileN;
  const int n = a.by_n.value;

  for (int i = thread; i < kTileM; i += kThreads) {
    int tap, s;
    const int channel = a.by_window.divide(m_begin + i, tap);
    const int r = a.by_filter_cols.divide(tap, s);
    tap_table[i][0] = ((channel * a.rows + r) * a.cols + s) * n;
    tap_table[i][1] = m_begin + i < a.taps ? r : kOutside;
    tap_table[i][2] = s;
  }
  __syncthreads();

  const float *images = a.images + (size_t)group * a.channels * a.rows * a.cols * n;
  const float *hid_grads = a.hid_grads + (size_t)(group * a.filters_per_group + n_begin) * a.length;
  const bool hid_by_fours = kVec == 4 || a.length % 4 == 0 && (size_t)a.hid_grads % 16 == 0;
  const int copy_q = thread % kCopiesPerRow * kVec;
  const int copy_row = thread / kCopiesPerRow;

  // The table is read for several copies at a time, since none of its loads passes a copy; where registers are few, for one.
  constexpr int kImageCopies = (kTileM + kRowsAtOnce - 1) / kRowsAtOnce;
  constexpr int kTapsAtOnce = Product::kParts == 3 && kTileM > 64 ? 1 : kImageCopies < 4 ? kImageCopies : 4;
  int4 taps[kTapsAtOnce];
  const auto read_taps = [&](int first) {
#pragma unroll
    for (int j = 0; j < kTapsAtOnce; ++j)
      taps[j] = *(const int4 *)tap_table[min(copy_row + (first + j) * kRowsAtOnce, kTileM - 1)];
  };

  auto load = [&](int stage, int q_step) {
    read_taps(0);
    const int q = q_step + copy_q;
    int image, x;
    const int pixel = a.by_n.divide(q, image);
    const int y = a.by_out_cols.divide(pixel, x);
    const int first_row = y * a.stride_y - a.pad_y;
    const int col = x * a.stride_x - a.pad_x;
    const int offset = (first_row * a.cols + col) * n + image;
    const int row = q < a.length ? first_row : -2 * kOutside;
#pragma unroll
    for (int i = 0; i < kImageCopies; ++i) {
      const int m = copy_row + i * kRowsAtOnce;
      if (i > 0 && i % kTapsAtOnce == 0) read_taps(i);
      if (kTileM % kRowsAtOnce == 0 || m < kTileM) {
        const int4 tap = taps[i % kTapsAtOnce];
        const bool valid = (unsigned)(row + tap.y) < (unsigned)a.rows && (unsigned)(col + tap.z) < (unsigned)a.cols;
        copy_or_zero<kVec>(&image_tile[stage][m][copy_q], images + (offset + tap.x), valid);
      }
    }
    if (hid_by_fours)
      copy_hid_grads<Product, 4, kDepth>(hid_tile[stage], hid_grads, a.filters_per_group - n_begin, a.length, q_step);
    else
      copy_hid_grads<Product, kVec, kDepth>(hid_tile[stage], hid_grads, a.filters_per_group - n_begin, a.length, q_step);
  };

  const Product product(thread);
  float sum[Product::kRows][Product::kColumns];
#pragma unroll
  for (int i = 0; i < Product::kRows; ++i)
#pragma unroll
    for (int j = 0; j < Product::kColumns; ++j) sum[i][j] = 0.f;

  // In steps of kDepth: this split's first one, and how far it is to its next.
  const int first = blockIdx.y * kDepth, apart = gridDim.y * kDepth;
  const int steps = (a.length - 1 - first) / apart + 1;
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < steps) load(stage, first + stage * apart);
    commit_copies();
  }

  int stage = 0;
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<kStages - 2>();
    // Also keeps a fast warp from overwriting the stage that a slow one still multiplies.
    __syncthreads();
    const int next = step + kStages - 1;
    if (next < steps) load(stage == 0 ? kStages - 1 : stage - 1, first + next * apart);
    commit_copies();
    product.multiply(image_tile[stage], hid_tile[stage], sum);
    stage = stage == kStages - 1 ? 0 : stage + 1;
  }

  finish_sums(a, sum);
  float *partial = a.partials + (size_t)blockIdx.y * a.taps * a.filter_count;
  const bool both = gridDim.y == 1 && a.gradient != a.partials;
  // Whether adjacent columns are stored at once.
  const bool whole = kAdjacent == 1 ||
                     (a.filters_per_group % 4 == 0 && ((size_t)a.partials | (size_t)a.gradient) % 16 == 0);
#pragma unroll
  for (int i = 0; i < Product::kRows; ++i) {
    const int m = m_begin + product.row(i);
    if (m >= a.taps) continue;
#pragma unroll
    for (int j = 0; j < Product::kColumns; j += kAdjacent) {
      const int f = n_begin + product.column(j);
      const int target = m * a.filter_count + group * a.filters_per_group + f;
      Values<kAdjacent> values;
#pragma unroll
      for (int e = 0; e < kAdjacent; ++e) values.value[e] = sum[i][j + e];
      if (whole && f < a.filters_per_group) {
        store_values<kAdjacent>(partial + target, values);
        if (both) store_values<kAdjacent>(a.gradient + target, values);
      }
#pragma unroll
      for (int e = 0; e < kAdjacent; ++e) {
        if (whole || f + e >= a.filters_per_group) continue;
        partial[target + e] = values.value[e];
        if (both) a.gradient[target + e] = values.value[e];
      }
    }
  }
}

// One thread computes one gradient, in double precision, as a single partial result.
__device__ __forceinline__ void weight_acts_plain(const WeightActsArgs &a) {
  const int size = a.taps * a.filter_count;
  for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < size; i += (size_t)gridDim.x * blockDim.x) {
    const int filter = i % a.filter_count;
    const int k = i / a.filter_count;
    const int s = k % a.by_filter_cols.value;
    const int r = k % a.by_window.value / a.by_filter_cols.value;
    const int channel = filter / a.filters_per_group * a.channels + k / a.by_window.value;
    const int n = a.by_n.value;
    double sum = 0;
    for (int pixel = 0; pixel < a.length / n; ++pixel) {
      const int row = pixel / a.by_out_cols.value * a.stride_y + r - a.pad_y;
      const int col = pixel % a.by_out_cols.value * a.stride_x + s - a.pad_x;
      if (row < 0 || row >= a.rows || col < 0 || col >= a.cols) continue;
      const float *images = a.images + ((channel * a.rows + row) * a.cols + col) * n;
      const float *hid_grads = a.hid_grads + ((size_t)filter * a.length + pixel * n);
      for (int image = 0; image < n; ++image) sum += (double)images[image] * hid_grads[image];
    }
    a.partials[i] = a.gradient[i] = (float)sum;
  }
}
