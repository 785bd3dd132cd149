// FusedFilterActs: the kernels of FilterActs (correlate.cuh and filter_acts.cu), which hand their sums to these
// functions before they store them. A bias and an activation then cost no pass over memory.
//
// The activation is applied to all 64 sums of a thread at once: one branch for each activation, not one for each sum.

struct FusedFilterActsArgs : CorrelateArgs {
  const float *bias;     // (groups * m)
  int activation;
  float slope;
};

template <int kLanesM>
__device__ __forceinline__ void finish_sums(const FusedFilterActsArgs &a, int group, int m_begin, float (&sum)[8][8]) {
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int m = m_begin + i / 4 * 4 * kLanesM + i % 4;
    const float bias = m < a.m ? a.bias[group * a.m + m] : 0.f;
#pragma unroll
    for (int j = 0; j < 8; ++j) sum[i][j] += bias;
  }
  const auto activate_all = [&](int activation) {
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
      for (int j = 0; j < 8; ++j) sum[i][j] = activate(activation, a.slope, sum[i][j]);
  };
  if (a.activation == kRectify)
    activate_all(kRectify);
  else if (a.activation == kTanh)
    activate_all(kTanh);
  else if (a.activation == kSigmoid)
    activate_all(kSigmoid);
}

struct FusedFilterActsPlainArgs : FilterActsArgs {
  const float *bias;     // (groups * filters_per_group)
  int activation;
  float slope;
};

__device__ __forceinline__ float finish_sum(const FusedFilterActsPlainArgs &a, int filter, double sum) {
  return activate(a.activation, a.slope, (float)(sum + a.bias[filter]));
}
