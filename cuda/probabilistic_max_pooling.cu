// Probabilistic max-pooling and its gradient (Lee, Grosse, Ranganath and Ng 2009). Blocks of ds x ds pixels do not overlap;
// a thread owns kVec images of one of them. Blocks are tiles in the sense of pool.cuh: of pixels that no output's block
// holds there are tiles too, where h and the gradients are 0. Template constants and limits: see pool.cuh.

// e ** (value - greatest); equal infinities are equal.
__device__ __forceinline__ float shifted_exp(float value, float greatest) {
  return value == greatest ? 1.f : expf(value - greatest);
}

// A block: the probabilities off, that no pixel is on, and on, that any is. The greatest exponent is taken off all of
// them, so that none overflows. In registers the window's values become shifted exponentials: expf() once a pixel.
template <int kVec, int kDs>
struct ProbBlock {
  Values<kVec> greatest, scale, off, on;

  __device__ __forceinline__ ProbBlock(Window<kVec, kDs> &z, const Values<kVec> &top_down) {
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      greatest.value[j] = -top_down.value[j];
      on.value[j] = 0.f;
    }
    z.for_each([&](const WindowPixel &, const Values<kVec> &v) {
#pragma unroll
      for (int j = 0; j < kVec; ++j) greatest.value[j] = larger(greatest.value[j], v.value[j]);
    });
    z.replace([&](float value, int j) { return shifted_exp(value, greatest.value[j]); });
    z.for_each([&](const WindowPixel &, const Values<kVec> &v) {
#pragma unroll
      for (int j = 0; j < kVec; ++j) on.value[j] += exponential(v, j);
    });
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      off.value[j] = shifted_exp(-top_down.value[j], greatest.value[j]);
      scale.value[j] = 1.f / (off.value[j] + on.value[j]);
      off.value[j] *= scale.value[j];
      on.value[j] *= scale.value[j];
    }
  }

  // Of what z.for_each gives for a pixel.
  __device__ __forceinline__ float exponential(const Values<kVec> &v, int j) const {
    return kDs > 0 ? v.value[j] : shifted_exp(v.value[j], greatest.value[j]);
  }

  __device__ __forceinline__ float pixel(const Values<kVec> &v, int j) const { return exponential(v, j) * scale.value[j]; }
};

__device__ __forceinline__ bool output_exists(const PoolGeometry &g, int oy, int ox) {
  return oy >= 0 && oy < g.out_rows && ox >= 0 && ox < g.out_cols;
}

struct ProbMaxPoolArgs : PoolGeometry {
  const float *z;
  const float *top_down;
  float *p;
  float *h;
};

// h (channels, rows, cols, n): the probability of each pixel; p (channels, out_rows, out_cols, n): of any in the block.
template <int kVec, int kDs>
__device__ __forceinline__ void prob_max_pool(const ProbMaxPoolArgs &a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.size) return;
  const PoolPosition p = pool_position(a, i, kVec);
  const int oy = p.y - a.shift_y, ox = p.x - a.shift_x;
  Window<kVec, kDs> z(a, a.z + image_offset(a, p), oy, ox);
  float *h = a.h + image_offset(a, p);
  if (!output_exists(a, oy, ox)) {
    z.for_each([&](const WindowPixel &pixel, const Values<kVec> &) {
      store_values<kVec>(h + pixel.offset, all_values<kVec>(0.f));
    });
    return;
  }
  const int output = output_offset(a, p, oy, ox);
  const ProbBlock<kVec, kDs> block(z, load_values<kVec>(a.top_down + output));
  z.for_each([&](const WindowPixel &pixel, const Values<kVec> &v) {
    Values<kVec> probability;
#pragma unroll
    for (int j = 0; j < kVec; ++j) probability.value[j] = block.pixel(v, j);
    store_values<kVec>(h + pixel.offset, probability);
  });
  store_values<kVec>(a.p + output, block.on);
}

struct ProbMaxPoolGradArgs : PoolGeometry {
  const float *z;
  const float *top_down;
  const float *p_grads;
  const float *h_grads;
  float *z_out;
  float *top_down_out;
};

// With q = 1 - p and s = the sum of h * h_grads over the block: z_out = h * (h_grads + q * p_grads - s),
// top_down_out = q * (p * p_grads + s).
template <int kVec, int kDs>
__device__ __forceinline__ void prob_max_pool_grad(const ProbMaxPoolGradArgs &a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.size) return;
  const PoolPosition p = pool_position(a, i, kVec);
  const int oy = p.y - a.shift_y, ox = p.x - a.shift_x;
  Window<kVec, kDs> z(a, a.z + image_offset(a, p), oy, ox);
  float *out = a.z_out + image_offset(a, p);
  if (!output_exists(a, oy, ox)) {
    z.for_each([&](const WindowPixel &pixel, const Values<kVec> &) {
      store_values<kVec>(out + pixel.offset, all_values<kVec>(0.f));
    });
    return;
  }
  const Window<kVec, kDs> h_grads(a, a.h_grads + image_offset(a, p), oy, ox);
  const int output = output_offset(a, p, oy, ox);
  const Values<kVec> p_grads = load_values<kVec>(a.p_grads + output);
  const ProbBlock<kVec, kDs> block(z, load_values<kVec>(a.top_down + output));
  Values<kVec> sum = all_values<kVec>(0.f), top_down_out;
  z.for_each([&](const WindowPixel &pixel, const Values<kVec> &v) {
    const Values<kVec> grads = h_grads.at(pixel);
#pragma unroll
    for (int j = 0; j < kVec; ++j) sum.value[j] += block.pixel(v, j) * grads.value[j];
  });
#pragma unroll
  for (int j = 0; j < kVec; ++j)
    top_down_out.value[j] = block.off.value[j] * (block.on.value[j] * p_grads.value[j] + sum.value[j]);
  store_values<kVec>(a.top_down_out + output, top_down_out);
  z.for_each([&](const WindowPixel &pixel, const Values<kVec> &v) {
    const Values<kVec> grads = h_grads.at(pixel);
    Values<kVec> gradient;
#pragma unroll
    for (int j = 0; j < kVec; ++j) {
      const float change = grads.value[j] + (block.off.value[j] * p_grads.value[j] - sum.value[j]);
      gradient.value[j] = block.pixel(v, j) * change;
    }
    store_values<kVec>(out + pixel.offset, gradient);
  });
}
