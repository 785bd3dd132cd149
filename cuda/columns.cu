// The first step of ImageActs by columns: what each tap of the filters adds to the gradient, for all outputs,
//
//   columns[tap, output] = sum over filters of  filters[tap, f] * hid_acts[f, output]
//
// which add_taps (img_acts.cu) sums for each pixel. Both operands lie as they are wanted: of filters 16 adjacent floats are a
// step of the sum, of hid_acts a row.
//
// tap     (channel, r, s)      output  (output row, output column, image)
//
// Block   Product::kTileM x Product::kTileN columns of one split of the sum; add_taps adds the splits, in their order.
// Shared  kStages * 16 * (kTileM + kTileN) floats.
// Limits  one group; arrays under 2^31 elements. kVecM = 4 wants filter counts divisible by 4 and filters aligned to 16 bytes;
//         kVecN = 4 the same of outputs and hid_acts.

struct TapColumnsArgs {
  const float *filters;   // (taps, filter_count)
  const float *hid_acts;  // (filter_count, outputs)
  float *columns;         // (splits, taps, outputs)
  int taps;
  int filter_count;
  int outputs;
  int split_depth;        // filters of one split, divisible by 16
  Divisor by_m_tiles;
};

template <typename Product, int kStages, int kVecM, int kVecN>
__device__ __forceinline__ void tap_columns(const TapColumnsArgs &a) {
  constexpr int kTileM = Product::kTileM, kTileN = Product::kTileN, kThreads = Product::kThreads, kDepth = 16;
  constexpr int kTapCopies = kTileM * kDepth / kVecM, kHidCopies = kTileN * kDepth / kVecN;
  static_assert(kTapCopies % kThreads == 0 && kHidCopies % kThreads == 0, "every thread copies equally much");
  __shared__ __align__(16) float tap_tile[kStages][kTileM][kDepth];
  __shared__ __align__(16) float hid_tile[kStages][kDepth][kTileN];
  const int thread = threadIdx.x;
  int m_begin;
  const int n_begin = a.by_m_tiles.divide(blockIdx.x, m_begin) * kTileN;
  m_begin *= kTileM;
  const int begin = blockIdx.y * a.split_depth;
  const int end = min(a.filter_count, begin + a.split_depth);

  const auto load = [&](int stage, int first) {
#pragma unroll
    for (int i = 0; i < kTapCopies / kThreads; ++i) {
      const int copy = thread + i * kThreads;
      const int k = copy % (kDepth / kVecM) * kVecM, m = copy / (kDepth / kVecM);
      copy_or_zero<kVecM>(&tap_tile[stage][m][k], a.filters + (m_begin + m) * a.filter_count + first + k,
                          m_begin + m < a.taps && first + k < end);
    }
#pragma unroll
    for (int i = 0; i < kHidCopies / kThreads; ++i) {
      const int copy = thread + i * kThreads;
      const int n = copy % (kTileN / kVecN) * kVecN, k = copy / (kTileN / kVecN);
      copy_or_zero<kVecN>(&hid_tile[stage][k][n ^ Product::swizzle_n(k)], a.hid_acts + (first + k) * a.outputs + n_begin + n,
                          first + k < end && n_begin + n < a.outputs);
    }
  };

  const Product product(thread);
  float sum[Product::kRows][Product::kPieces][4];
#pragma unroll
  for (int i = 0; i < Product::kRows; ++i)
#pragma unroll
    for (int j = 0; j < 4 * Product::kPieces; ++j) sum[i][j / 4][j % 4] = 0.f;

  const int steps = (end - begin + kDepth - 1) / kDepth;
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    if (stage < steps) load(stage, begin + stage * kDepth);
    commit_copies();
  }
  int stage = 0;
  for (int step = 0; step < steps; ++step) {
    wait_for_copies<kStages - 2>();
    // Also keeps a fast warp from overwriting the stage that a slow one still multiplies.
    __syncthreads();
    const int next = step + kStages - 1;
    if (next < steps) load(stage == 0 ? kStages - 1 : stage - 1, begin + next * kDepth);
    commit_copies();
    product.multiply(tap_tile[stage], hid_tile[stage], sum);
    stage = stage == kStages - 1 ? 0 : stage + 1;
  }

  float *columns = a.columns + (size_t)blockIdx.y * a.taps * a.outputs;
#pragma unroll
  for (int i = 0; i < Product::kRows; ++i) {
    const int m = m_begin + product.row(i);
    if (m >= a.taps) continue;
#pragma unroll
    for (int piece = 0; piece < Product::kPieces; ++piece) {
      const int n = n_begin + product.column(piece);
      float *target = columns + m * a.outputs + n;
      const float *value = sum[i][piece];
      if (kVecN == 4 && n < a.outputs) *(float4 *)target = make_float4(value[0], value[1], value[2], value[3]);
#pragma unroll
      for (int e = 0; e < 4; ++e)
        if (kVecN == 1 && n + e < a.outputs) target[e] = value[e];
    }
  }
}
