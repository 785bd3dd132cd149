// Max-pooling, its gradient and its derivative along a direction; average and sum pooling and their gradient. What a
// thread owns, and the limits: see pool.cuh.

struct MaxPoolArgs : PoolGeometry {
  const float *images;
  float *out;
};

// out (channels, out_rows, out_cols, n): the maximum of each window.
template <int kVec, int kDs>
__device__ __forceinline__ void max_pool(const MaxPoolArgs &a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.size) return;
  const PoolPosition p = pool_position(a, i, kVec);
  const Window<kVec, kDs> window(a, a.images + image_offset(a, p), p.y, p.x);
  store_values<kVec>(a.out + i * kVec, window_max(window));
}

struct MaxPoolGradArgs : PoolGeometry {
  const float *images;
  const float *maxout;
  const float *grads;   // of maxout
  float *out;
};

template <int kVec>
struct MaxPoolGradOp {
  static const bool kReadsImages = true;
  typedef KeyedTop<kVec, float> Top;
  const float *maxout, *grads;

  __device__ __forceinline__ explicit MaxPoolGradOp(const MaxPoolGradArgs &a) : maxout(a.maxout), grads(a.grads) {}
  __device__ __forceinline__ Top load(int, int, int offset) const {
    const Top top = {load_values<kVec>(maxout + offset), load_values<kVec>(grads + offset)};
    return top;
  }
  __device__ __forceinline__ Top none() const {
    const Top top = {all_values<kVec>(0.f), all_values<kVec>(0.f)};
    return top;
  }
  __device__ __forceinline__ void add(Values<kVec> &sum, const Values<kVec> &pixel, const Top &top, int) const {
#pragma unroll
    for (int j = 0; j < kVec; ++j) sum.value[j] += pixel.value[j] == top.key.value[j] ? top.grad.value[j] : 0.f;
  }
};

// out (channels, rows, cols, n): each pixel takes the gradients of the windows whose maximum it equals.
template <int kVec>
__device__ __forceinline__ void max_pool_grad(const MaxPoolGradArgs &a) {
  pool_grad_pixels<kVec>(a, MaxPoolGradOp<kVec>(a), a.images, a.out);
}

template <int kVec, int kDs, int kStride>
__device__ __forceinline__ void max_pool_grad_tiles(const MaxPoolGradArgs &a) {
  pool_grad_tiles<kVec, kDs, kStride>(a, MaxPoolGradOp<kVec>(a), a.images, a.out);
}

struct MaxPoolRopArgs : PoolGeometry {
  const float *images;
  const float *direction;
  float *out;
};

// out (channels, out_rows, out_cols, n): the sum of the direction over the pixels that equal the window's maximum.
template <int kVec, int kDs>
__device__ __forceinline__ void max_pool_rop(const MaxPoolRopArgs &a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.size) return;
  const PoolPosition p = pool_position(a, i, kVec);
  const Window<kVec, kDs> window(a, a.images + image_offset(a, p), p.y, p.x);
  const float *direction = a.direction + image_offset(a, p);
  const Values<kVec> top = window_max(window);
  Values<kVec> sum = all_values<kVec>(0.f);
  window.for_each([&](const WindowPixel &pixel, const Values<kVec> &v) {
    const Values<kVec> step = load_values<kVec>(direction + pixel.offset);
#pragma unroll
    for (int j = 0; j < kVec; ++j) sum.value[j] += v.value[j] == top.value[j] ? step.value[j] : 0.f;
  });
  store_values<kVec>(a.out + i * kVec, sum);
}

struct AvgPoolArgs : PoolGeometry {
  int average;          // 0: sums, 1: divided by the pixels inside the image
  const float *images;
  float *out;
};

// out (channels, out_rows, out_cols, n): the average or the sum of each window.
template <int kVec, int kDs>
__device__ __forceinline__ void avg_pool(const AvgPoolArgs &a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.size) return;
  const PoolPosition p = pool_position(a, i, kVec);
  const Window<kVec, kDs> window(a, a.images + image_offset(a, p), p.y, p.x);
  Values<kVec> sum = all_values<kVec>(0.f);
  window.for_each([&](const WindowPixel &, const Values<kVec> &v) {
#pragma unroll
    for (int j = 0; j < kVec; ++j) sum.value[j] += v.value[j];
  });
  const float count = a.average ? (float)window.count() : 1.f;
#pragma unroll
  for (int j = 0; j < kVec; ++j) sum.value[j] /= count;
  store_values<kVec>(a.out + i * kVec, sum);
}

struct AvgPoolGradArgs : PoolGeometry {
  int average;
  const float *grads;
  float *out;
};

template <int kVec>
struct AvgPoolGradOp {
  static const bool kReadsImages = false;
  typedef Values<kVec> Top;
  const AvgPoolGradArgs &a;

  __device__ __forceinline__ explicit AvgPoolGradOp(const AvgPoolGradArgs &args) : a(args) {}
  __device__ __forceinline__ Top load(int oy, int ox, int offset) const {
    Top top = load_values<kVec>(a.grads + offset);
    if (a.average) {
      const int y = a.start_y + oy * a.stride_y, x = a.start_x + ox * a.stride_x;
      const int count = (min(y + a.ds_y, a.rows) - max(y, 0)) * (min(x + a.ds_x, a.cols) - max(x, 0));
#pragma unroll
      for (int j = 0; j < kVec; ++j) top.value[j] /= (float)count;
    }
    return top;
  }
  __device__ __forceinline__ Top none() const { return all_values<kVec>(0.f); }
  __device__ __forceinline__ void add(Values<kVec> &sum, const Values<kVec> &, const Top &top, int) const {
#pragma unroll
    for (int j = 0; j < kVec; ++j) sum.value[j] += top.value[j];
  }
};

// out (channels, rows, cols, n): each pixel takes the gradients of its windows, over the pixels in each for averages.
template <int kVec>
__device__ __forceinline__ void avg_pool_grad(const AvgPoolGradArgs &a) {
  pool_grad_pixels<kVec>(a, AvgPoolGradOp<kVec>(a), a.grads, a.out);
}

template <int kVec, int kDs, int kStride>
__device__ __forceinline__ void avg_pool_grad_tiles(const AvgPoolGradArgs &a) {
  pool_grad_tiles<kVec, kDs, kStride>(a, AvgPoolGradOp<kVec>(a), a.grads, a.out);
}
