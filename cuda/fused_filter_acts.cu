// FusedFilterActs: the kernels of FilterActs (correlate.cuh, filter_acts.cu, partials.cu, winograd.cu and fft.cu), which hand their
// sums to these functions before they store them. A bias and an activation then cost no pass over memory.
//
// The activation is applied to all sums of a thread at once: one branch for each activation, not one for each sum.

struct FusedFilterActsArgs : CorrelateArgs {
  const float *bias;     // (groups * m)
  int activation;
  float slope;
};

template <typename Product>
__device__ __forceinline__ void finish_sums(const FusedFilterActsArgs &a, const Product &product, int group, int m_begin,
                                            float (&sum)[Product::kRows][Product::kPieces][4]) {
  // The sums of a split are finished when they are added.
  if (gridDim.y > 1) return;
#pragma unroll
  for (int i = 0; i < Product::kRows; ++i) {
    const int m = m_begin + product.row(i);
    const float bias = m < a.m ? a.bias[group * a.m + m] : 0.f;
#pragma unroll
    for (int j = 0; j < 4 * Product::kPieces; ++j) sum[i][j / 4][j % 4] += bias;
  }
  const auto activate_all = [&](int activation) {
#pragma unroll
    for (int i = 0; i < Product::kRows; ++i)
#pragma unroll
      for (int j = 0; j < 4 * Product::kPieces; ++j)
        sum[i][j / 4][j % 4] = activate(activation, a.slope, sum[i][j / 4][j % 4]);
  };
  if (a.activation == kRectify)
    activate_all(kRectify);
  else if (a.activation == kTanh)
    activate_all(kTanh);
  else if (a.activation == kSigmoid)
    activate_all(kSigmoid);
}

struct FusedHalfFilterActsArgs : FusedFilterActsArgs {
  const int *largest;    // as in HalfCorrelateArgs
};

template <typename Product>
__device__ __forceinline__ void finish_sums(const FusedHalfFilterActsArgs &a, const Product &product, int group, int m_begin,
                                            float (&sum)[Product::kRows][Product::kPieces][4]) {
  const HalfScale scale(a.largest);
#pragma unroll
  for (int i = 0; i < Product::kRows; ++i) scale.undo(sum[i]);
  finish_sums(static_cast<const FusedFilterActsArgs &>(a), product, group, m_begin, sum);
}

struct FusedFilterActsPlainArgs : FilterActsArgs {
  const float *bias;     // (groups * filters_per_group)
  int activation;
  float slope;
};

__device__ __forceinline__ float finish_sum(const FusedFilterActsPlainArgs &a, int filter, double sum) {
  return activate(a.activation, a.slope, (float)(sum + a.bias[filter]));
}

struct FusedTileOutputsArgs : TileOutputsArgs {
  const float *bias;      // (channels)
  int activation;
  float slope;
};

__device__ __forceinline__ float finish_output(const FusedTileOutputsArgs &a, int channel, float output) {
  return activate(a.activation, a.slope, output + a.bias[channel]);
}

struct FusedSumPartialsArgs : SumPartialsArgs {
  const float *bias;      // one for every plane
  int activation;
  float slope;
  Divisor by_plane;       // out_rows * out_cols * n
};

__device__ __forceinline__ float finish_partial(const FusedSumPartialsArgs &a, int i, float sum) {
  return activate(a.activation, a.slope, sum + a.bias[a.by_plane.quotient(i)]);
}
