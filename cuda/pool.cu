// Max-pooling, its gradient, and its derivative along a direction. All are bound by memory: adjacent threads take
// adjacent images, so every access is coalesced, and no value is read twice from device memory but through overlapping
// windows, which the caches serve.
//
// A window covers ds_y x ds_x pixels from (start_y + y * stride_y, start_x + x * stride_x), clipped to the image.
// A thread owns kVec adjacent images of one pixel of its output.
// Limits   arrays under 2^31 elements. kVec = 4 wants n divisible by 4 and 16-byte aligned arrays; 1 takes everything.

struct PoolArgs {
  const float *images;  // (channels, rows, cols, n)
  const float *maxout;  // (channels, out_rows, out_cols, n); max_pool and its direction repeat `images` here
  const float *values;  // the gradients of the outputs, or the direction; max_pool repeats `images` here
  float *out;
  int rows;
  int cols;
  int n;
  int out_rows;
  int out_cols;
  int ds_y;
  int ds_x;
  int stride_y;
  int stride_x;
  int start_y;
  int start_x;
  int size;             // threads that have something to do: elements of out / kVec
  Divisor by_copies;    // n / kVec
  Divisor by_width;     // columns of out
  Divisor by_height;    // rows of out
};

// A NaN stays, wherever in the window it lies.
__device__ __forceinline__ float larger(float best, float value) {
  return value > best || value != value ? value : best;
}

struct PoolPosition {
  int image, x, y, channel;
};

__device__ __forceinline__ PoolPosition pool_position(const PoolArgs &a, int i, int vec) {
  PoolPosition p;
  const int pixel = a.by_copies.divide(i, p.image);
  const int row = a.by_width.divide(pixel, p.x);
  p.channel = a.by_height.divide(row, p.y);
  p.image *= vec;
  return p;
}

template <int kVec>
__device__ __forceinline__ Values<kVec> window_max(const PoolArgs &a, const float *image, int y_begin, int y_end,
                                                   int x_begin, int x_end) {
  Values<kVec> best = load_values<kVec>(image + (y_begin * a.cols + x_begin) * a.n);
  for (int y = y_begin; y < y_end; ++y)
    for (int x = x_begin; x < x_end; ++x) {
      const Values<kVec> v = load_values<kVec>(image + (y * a.cols + x) * a.n);
#pragma unroll
      for (int j = 0; j < kVec; ++j) best.value[j] = larger(best.value[j], v.value[j]);
    }
  return best;
}

// out (channels, out_rows, out_cols, n): the maximum of each window.
template <int kVec>
__device__ __forceinline__ void max_pool(const PoolArgs &a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.size) return;
  const PoolPosition p = pool_position(a, i, kVec);
  const int y_begin = a.start_y + p.y * a.stride_y, x_begin = a.start_x + p.x * a.stride_x;
  const float *image = a.images + p.channel * a.rows * a.cols * a.n + p.image;
  store_values<kVec>(a.out + i * kVec, window_max<kVec>(a, image, max(y_begin, 0), min(y_begin + a.ds_y, a.rows),
                                                        max(x_begin, 0), min(x_begin + a.ds_x, a.cols)));
}

// out (channels, rows, cols, n): each pixel takes the gradients of the windows whose maximum it equals.
template <int kVec>
__device__ __forceinline__ void max_pool_grad(const PoolArgs &a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.size) return;
  const PoolPosition p = pool_position(a, i, kVec);
  const int y = p.y - a.start_y, x = p.x - a.start_x;
  // Windows that reach this pixel: first_y * stride > y - ds, last_y * stride <= y.
  const int first_y = y < a.ds_y ? 0 : (y - a.ds_y) / a.stride_y + 1;
  const int first_x = x < a.ds_x ? 0 : (x - a.ds_x) / a.stride_x + 1;
  const int last_y = y < 0 ? -1 : min(y / a.stride_y, a.out_rows - 1);
  const int last_x = x < 0 ? -1 : min(x / a.stride_x, a.out_cols - 1);
  const Values<kVec> pixel = load_values<kVec>(a.images + i * kVec);
  Values<kVec> sum;
#pragma unroll
  for (int j = 0; j < kVec; ++j) sum.value[j] = 0.f;
  for (int oy = first_y; oy <= last_y; ++oy)
    for (int ox = first_x; ox <= last_x; ++ox) {
      const int offset = ((p.channel * a.out_rows + oy) * a.out_cols + ox) * a.n + p.image;
      const Values<kVec> top = load_values<kVec>(a.maxout + offset);
      const Values<kVec> grad = load_values<kVec>(a.values + offset);
#pragma unroll
      for (int j = 0; j < kVec; ++j) sum.value[j] += pixel.value[j] == top.value[j] ? grad.value[j] : 0.f;
    }
  store_values<kVec>(a.out + i * kVec, sum);
}

// out (channels, out_rows, out_cols, n): the sum of the direction over the pixels that equal the window's maximum.
template <int kVec>
__device__ __forceinline__ void max_pool_rop(const PoolArgs &a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.size) return;
  const PoolPosition p = pool_position(a, i, kVec);
  const int y_begin = max(a.start_y + p.y * a.stride_y, 0), x_begin = max(a.start_x + p.x * a.stride_x, 0);
  const int y_end = min(a.start_y + p.y * a.stride_y + a.ds_y, a.rows);
  const int x_end = min(a.start_x + p.x * a.stride_x + a.ds_x, a.cols);
  const int first = p.channel * a.rows * a.cols * a.n + p.image;
  const Values<kVec> top = window_max<kVec>(a, a.images + first, y_begin, y_end, x_begin, x_end);
  Values<kVec> sum;
#pragma unroll
  for (int j = 0; j < kVec; ++j) sum.value[j] = 0.f;
  for (int y = y_begin; y < y_end; ++y)
    for (int x = x_begin; x < x_end; ++x) {
      const int offset = first + (y * a.cols + x) * a.n;
      const Values<kVec> pixel = load_values<kVec>(a.images + offset);
      const Values<kVec> direction = load_values<kVec>(a.values + offset);
#pragma unroll
      for (int j = 0; j < kVec; ++j) sum.value[j] += pixel.value[j] == top.value[j] ? direction.value[j] : 0.f;
    }
  store_values<kVec>(a.out + i * kVec, sum);
}
