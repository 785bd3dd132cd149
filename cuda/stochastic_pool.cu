// Stochastic pooling, its gradient and its derivative along a direction; weighted pooling and its gradient (Zeiler and
// Fergus 2013). What a thread owns, and the limits: see pool.cuh; random numbers: philox.cuh.
//
// A window's weights are its values, negative ones counting as 0.

// What a value weighs in a window that needs a scale: 0 says that it has infinite values, which then share.
__device__ __forceinline__ float scaled_weight(float value, float scale) {
  if (scale == 0.f) return value == __int_as_float(0x7f800000) ? 1.f : 0.f;
  return (value < 0.f ? 0.f : value) * scale;
}

// The sum of image j's weights in a window; a NaN makes it one.
template <int kVec, int kDs>
__device__ __forceinline__ float sum_weights(const Window<kVec, kDs> &window, int j, float scale) {
  float sum = 0.f;
  window.for_each([&](const WindowPixel &, const Values<kVec> &v) { sum += scaled_weight(v.value[j], scale); });
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

// Draws kVec outputs from number i * kVec on by as many words: a value of each window with probability weight / sum of
// weights. The sums, the products and their order are the CPU's, so that both draw the same. Instructions are what this
// kernel waits for: written with selections for the branches, or with a call for the rare case, it took 5 to 40 % longer.
template <int kVec, int kDs>
__device__ __forceinline__ void draw_values(const StochasticMaxPoolArgs &a, int i, const unsigned *words) {
  const PoolPosition p = pool_position(a, i, kVec);
  const Window<kVec, kDs> window(a, a.images + image_offset(a, p), p.y, p.x);
  Values<kVec> sum = all_values<kVec>(0.f), before = all_values<kVec>(0.f), out;
  Values<kVec, int> positions;
  window.for_each([&](const WindowPixel &, const Values<kVec> &v) {
#pragma unroll
    for (int j = 0; j < kVec; ++j)
      if (!(v.value[j] < 0.f)) sum.value[j] += v.value[j];
  });
  bool infinite = false;
#pragma unroll
  for (int j = 0; j < kVec; ++j) {
    infinite = infinite || sum.value[j] == __int_as_float(0x7f800000);
    out.value[j] = sum.value[j] != sum.value[j] ? sum.value[j] : 0.f;
    positions.value[j] = -1;
  }
  // Drawn is the last value of weight whose predecessors weigh no more than the threshold.
  if (!infinite) {
    Values<kVec> threshold;
#pragma unroll
    for (int j = 0; j < kVec; ++j) threshold.value[j] = unit_interval(words[j]) * sum.value[j];
    window.for_each([&](const WindowPixel &pixel, const Values<kVec> &v) {
#pragma unroll
      for (int j = 0; j < kVec; ++j)
        if (v.value[j] > 0.f) {
          if (before.value[j] <= threshold.value[j]) {
            out.value[j] = v.value[j];
            positions.value[j] = pixel.number;
          }
          before.value[j] += v.value[j];
        }
    });
  } else {
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      float scale = 1.f;
      if (sum.value[j] == __int_as_float(0x7f800000)) {
        // An infinite value, or a sum beyond float32, which 2^-64 brings back.
        sum.value[j] = sum_weights(window, j, scale = 0.f);
        if (sum.value[j] == 0.f) sum.value[j] = sum_weights(window, j, scale = 5.42101086242752217e-20f);
      }
      const float threshold = unit_interval(words[j]) * sum.value[j];
      window.for_each([&](const WindowPixel &pixel, const Values<kVec> &v) {
        const float weight = scaled_weight(v.value[j], scale);
        if (weight > 0.f && before.value[j] <= threshold) {
          out.value[j] = v.value[j];
          positions.value[j] = pixel.number;
        }
        before.value[j] += weight;
      });
    }
  }
  store_values<kVec>(a.out + i * kVec, out);
  store_values<kVec>(a.positions + i * kVec, positions);
}

// out, positions (channels, out_rows, out_cols, n): a drawn value of each window, and its number in the window, row by row;
// 0 and -1 where all weights are 0, NaN and -1 where there is a NaN. Output e is drawn by word e % 4 of the counter
// (e / 4, draw). With kVec = 1 a warp draws 128 adjacent outputs, each thread 4 of them 32 apart: it makes the words of
// 4 adjacent ones, and the warp exchanges them.
template <int kVec, int kDs>
__device__ __forceinline__ void stochastic_max_pool(const StochasticMaxPoolArgs &a) {
  const int thread = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32;
  const PhiloxWords counter = {{(unsigned)thread, 0u, a.draw_low, a.draw_high}};
  const PhiloxWords words = philox(counter, a.seed_low, a.seed_high);
  if (kVec == 4) {
    if (thread < a.size) draw_values<kVec, kDs>(a, thread, words.word);
    return;
  }
#pragma unroll 1
  for (int k = 0; k < 4; ++k) {
    const int i = 4 * (thread - lane) + 32 * k + lane;
    unsigned word = 0;
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const unsigned other = __shfl_sync(0xffffffffu, words.word[w], 8 * k + lane / 4);
      if (lane % 4 == w) word = other;
    }
    if (i < a.size) draw_values<kVec, kDs>(a, i, &word);
  }
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
  __device__ __forceinline__ Top load(int, int, int offset) const {
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
  const Values<kVec, int> positions = load_values<kVec>(a.positions + i * kVec);
  const float *direction = a.direction + image_offset(a, p);
  Values<kVec> out = all_values<kVec>(0.f);
#pragma unroll
  for (int j = 0; j < kVec; ++j) {
    const int k = positions.value[j], y = a.start_y + p.y * a.stride_y + k / a.ds_x;
    const int x = a.start_x + p.x * a.stride_x + k % a.ds_x;
    // Whatever the positions hold, nothing outside the image is read.
    if (k >= 0 && y >= 0 && y < a.rows && x >= 0 && x < a.cols)
      out.value[j] = direction[(y * a.cols + x) * a.n + j];
  }
  store_values<kVec>(a.out + i * kVec, out);
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
      const float weight = v.value[j] < 0.f ? 0.f : v.value[j];
      sum.value[j] += weight;
      squares.value[j] += weight * weight;
    }
  });
#pragma unroll
  for (int j = 0; j < kVec; ++j) squares.value[j] = sum.value[j] == 0.f ? 0.f : squares.value[j] / sum.value[j];
  store_values<kVec>(a.out + i * kVec, squares);
  store_values<kVec>(a.sums + i * kVec, sum);
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
  __device__ __forceinline__ Top load(int, int, int offset) const {
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
