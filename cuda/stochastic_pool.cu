// Stochastic pooling, its gradient and its derivative along a direction; weighted pooling and its gradient (Zeiler and
// Fergus 2013). What a thread owns, and the limits: see pool.cuh; random numbers: philox.cuh.
//
// A window's weights are its values, negative ones counting as 0.

// What a value weighs. A scale of 0 says that the window has infinite values, which then share.
__device__ __forceinline__ float weight_of(float value, float scale) {
  if (scale == 0.f) return value == __int_as_float(0x7f800000) ? 1.f : 0.f;
  return (value < 0.f ? 0.f : value) * scale;
}

template <int kVec, int kDs>
__device__ __forceinline__ Values<kVec> sum_weights(const Window<kVec, kDs> &window, const Values<kVec> &scale) {
  Values<kVec> sum = all_values<kVec>(0.f);
  window.for_each([&](const WindowPixel &, const Values<kVec> &v) {
#pragma unroll
    for (int j = 0; j < kVec; ++j) sum.value[j] += weight_of(v.value[j], scale.value[j]);
  });
  return sum;
}

struct StochasticMaxPoolArgs : PoolGeometry {
  unsigned seed_low;
  unsigned seed_high;
  unsigned draw_low;
  unsigned draw_high;
  const float *images;
  float *out;
  int *positions;
};

// out, positions (channels, out_rows, out_cols, n): a value of each window, drawn with probability weight / sum of weights,
// and its number in the window, row by row; 0 and -1 where all weights are 0, NaN and -1 where there is a NaN.
// Output e is drawn by word e % 4 of the counter (e / 4, draw). Sums and products are the CPU's, in its order, so that
// both draw the same.
template <int kVec, int kDs>
__device__ __forceinline__ void stochastic_max_pool(const StochasticMaxPoolArgs &a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.size) return;
  const PoolPosition p = pool_position(a, i, kVec);
  const Window<kVec, kDs> window(a, a.images + image_offset(a, p), p.y, p.x);
  const PhiloxWords counter = {{kVec == 4 ? (unsigned)i : (unsigned)i / 4, 0u, a.draw_low, a.draw_high}};
  const PhiloxWords words = philox(counter, a.seed_low, a.seed_high);
  Values<kVec> scale = all_values<kVec>(1.f);
  Values<kVec> sum = sum_weights(window, scale);
#pragma unroll
  for (int j = 0; j < kVec; ++j)
    if (sum.value[j] == __int_as_float(0x7f800000)) {
      // An infinite value, or a sum beyond float32, which 2^-64 brings back.
      scale.value[j] = 0.f;
      sum.value[j] = sum_weights(window, scale).value[j];
      if (sum.value[j] == 0.f) {
        scale.value[j] = 5.42101086242752217e-20f;
        sum.value[j] = sum_weights(window, scale).value[j];
      }
    }
  Values<kVec> threshold, before = all_values<kVec>(0.f), out;
  Values<kVec, int> positions;
#pragma unroll
  for (int j = 0; j < kVec; ++j) {
    const unsigned word = kVec == 4 ? words.word[j] : i % 4 < 2 ? words.word[i % 2] : words.word[2 + i % 2];
    threshold.value[j] = unit_interval(word) * sum.value[j];
    out.value[j] = sum.value[j] != sum.value[j] ? sum.value[j] : 0.f;
    positions.value[j] = -1;
  }
  // The last value of weight whose predecessors weigh no more than the threshold.
  window.for_each([&](const WindowPixel &pixel, const Values<kVec> &v) {
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      const float weight = weight_of(v.value[j], scale.value[j]);
      if (weight > 0.f && before.value[j] <= threshold.value[j]) {
        out.value[j] = v.value[j];
        positions.value[j] = pixel.number;
      }
      before.value[j] += weight;
    }
  });
  store_values<kVec>(a.out + (size_t)i * kVec, out);
  store_values<kVec>(a.positions + (size_t)i * kVec, positions);
}

struct StochasticMaxPoolGradArgs : PoolGeometry {
  const int *positions;
  const float *grads;
  float *out;
};

template <int kVec>
struct StochasticMaxPoolGradOp {
  static const bool kReadsImages = false;
  typedef KeyedTop<kVec, int> Top;
  const int *positions;
  const float *grads;

  __device__ __forceinline__ explicit StochasticMaxPoolGradOp(const StochasticMaxPoolGradArgs &a)
      : positions(a.positions), grads(a.grads) {}
  __device__ __forceinline__ Top load(int, int, size_t offset) const {
    const Top top = {load_values<kVec>(positions + offset), load_values<kVec>(grads + offset)};
    return top;
  }
  __device__ __forceinline__ Top none() const {
    Top top;
    top.grad = all_values<kVec>(0.f);
#pragma unroll
    for (int j = 0; j < kVec; ++j) top.key.value[j] = -1;
    return top;
  }
  __device__ __forceinline__ void add(Values<kVec> &sum, const Values<kVec> &, const Top &top, int number) const {
#pragma unroll
    for (int j = 0; j < kVec; ++j) sum.value[j] += top.key.value[j] == number ? top.grad.value[j] : 0.f;
  }
};

// out (channels, rows, cols, n): each pixel takes the gradients of the windows that drew it.
template <int kVec>
__device__ __forceinline__ void stochastic_max_pool_grad(const StochasticMaxPoolGradArgs &a) {
  pool_grad_pixels<kVec>(a, StochasticMaxPoolGradOp<kVec>(a), a.grads, a.out);
}

template <int kVec, int kDs, int kStride>
__device__ __forceinline__ void stochastic_max_pool_grad_tiles(const StochasticMaxPoolGradArgs &a) {
  pool_grad_tiles<kVec, kDs, kStride>(a, StochasticMaxPoolGradOp<kVec>(a), a.grads, a.out);
}

struct StochasticMaxPoolRopArgs : PoolGeometry {
  const float *direction;
  const int *positions;
  float *out;
};

// out (channels, out_rows, out_cols, n): the direction where the window drew, 0 where it did not.
template <int kVec>
__device__ __forceinline__ void stochastic_max_pool_rop(const StochasticMaxPoolRopArgs &a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.size) return;
  const PoolPosition p = pool_position(a, i, kVec);
  const Values<kVec, int> positions = load_values<kVec>(a.positions + (size_t)i * kVec);
  const float *direction = a.direction + image_offset(a, p);
  Values<kVec> out = all_values<kVec>(0.f);
#pragma unroll
  for (int j = 0; j < kVec; ++j) {
    const int k = positions.value[j], y = a.start_y + p.y * a.stride_y + k / a.ds_x;
    const int x = a.start_x + p.x * a.stride_x + k % a.ds_x;
    // Whatever the positions hold, nothing outside the image is read.
    if (k >= 0 && y >= 0 && y < a.rows && x >= 0 && x < a.cols)
      out.value[j] = direction[(size_t)(y * a.cols + x) * a.n + j];
  }
  store_values<kVec>(a.out + (size_t)i * kVec, out);
}

struct WeightedMaxPoolArgs : PoolGeometry {
  const float *images;
  float *out;
  float *sums;
};

// out, sums (channels, out_rows, out_cols, n): the sum of squared weights over the sum of weights, 0 if that is 0; that sum.
template <int kVec, int kDs>
__device__ __forceinline__ void weighted_max_pool(const WeightedMaxPoolArgs &a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.size) return;
  const PoolPosition p = pool_position(a, i, kVec);
  const Window<kVec, kDs> window(a, a.images + image_offset(a, p), p.y, p.x);
  Values<kVec> sum = all_values<kVec>(0.f), squares = all_values<kVec>(0.f);
  window.for_each([&](const WindowPixel &, const Values<kVec> &v) {
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      const float weight = weight_of(v.value[j], 1.f);
      sum.value[j] += weight;
      squares.value[j] += weight * weight;
    }
  });
#pragma unroll
  for (int j = 0; j < kVec; ++j) squares.value[j] = sum.value[j] == 0.f ? 0.f : squares.value[j] / sum.value[j];
  store_values<kVec>(a.out + (size_t)i * kVec, squares);
  store_values<kVec>(a.sums + (size_t)i * kVec, sum);
}

struct WeightedMaxPoolGradArgs : PoolGeometry {
  const float *images;
  const float *weighted;
  const float *sums;
  const float *grads;   // of weighted
  float *out;
};

// The gradient of a window's output q / s to a pixel x is (2 * x - q / s) / s.
template <int kVec>
struct WeightedMaxPoolGradOp {
  static const bool kReadsImages = true;
  struct Top {
    Values<kVec> weighted, scaled;  // q / s, and the gradient over s
  };
  const float *weighted, *sums, *grads;

  __device__ __forceinline__ explicit WeightedMaxPoolGradOp(const WeightedMaxPoolGradArgs &a)
      : weighted(a.weighted), sums(a.sums), grads(a.grads) {}
  __device__ __forceinline__ Top load(int, int, size_t offset) const {
    Top top = {load_values<kVec>(weighted + offset), load_values<kVec>(grads + offset)};
    const Values<kVec> sum = load_values<kVec>(sums + offset);
#pragma unroll
    for (int j = 0; j < kVec; ++j) top.scaled.value[j] = sum.value[j] == 0.f ? 0.f : top.scaled.value[j] / sum.value[j];
    return top;
  }
  __device__ __forceinline__ Top none() const {
    const Top top = {all_values<kVec>(0.f), all_values<kVec>(0.f)};
    return top;
  }
  __device__ __forceinline__ void add(Values<kVec> &sum, const Values<kVec> &pixel, const Top &top, int) const {
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      // Nothing where the gradient is 0, also for infinite pixels.
      const float term = top.scaled.value[j] * (2.f * pixel.value[j] - top.weighted.value[j]);
      sum.value[j] += pixel.value[j] < 0.f || top.scaled.value[j] == 0.f ? 0.f : term;
    }
  }
};

// out (channels, rows, cols, n): the sum over each pixel's windows; 0 for negative pixels and windows without weight.
template <int kVec>
__device__ __forceinline__ void weighted_max_pool_grad(const WeightedMaxPoolGradArgs &a) {
  pool_grad_pixels<kVec>(a, WeightedMaxPoolGradOp<kVec>(a), a.images, a.out);
}

template <int kVec, int kDs, int kStride>
__device__ __forceinline__ void weighted_max_pool_grad_tiles(const WeightedMaxPoolGradArgs &a) {
  pool_grad_tiles<kVec, kDs, kStride>(a, WeightedMaxPoolGradOp<kVec>(a), a.images, a.out);
}
