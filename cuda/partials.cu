// What the convolutions do before and after their products: rows padded with zeros, or parts of them, and sums of partial results.

struct PadRowsArgs {
  const float *source;   // (rows, pitch), of which the first `inner` are copied
  float *out;            // (rows, padded)
  int inner;
  int pitch;
  int size;              // of out
  Divisor by_padded;
};

// A warp copies 128 adjacent values: they are read one by one, adjacent ones by adjacent threads, and stored in fours.
__device__ __forceinline__ void pad_rows(const PadRowsArgs &a) {
  __shared__ __align__(16) float values[8][128];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  // Unsigned, since the last block may reach beyond 2^31.
  const unsigned size = a.size, begin = (blockIdx.x * 8 + warp) * 128, first = begin + 4 * lane;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const unsigned i = begin + 32 * j + lane;
    int column;
    const int row = a.by_padded.divide(i, column);
    values[warp][32 * j + lane] = i < size && column < a.inner ? a.source[row * a.pitch + column] : 0.f;
  }
  __syncwarp();
  if (first + 4 <= size) {
    store_values<4>(a.out + first, load_values<4>(&values[warp][4 * lane]));
    return;
  }
  for (unsigned i = first; i < size; ++i) a.out[i] = values[warp][i - begin];
}

struct SumPartialsArgs {
  const float *partials;  // (splits, size)
  float *out;             // (size / inner, pitch), of which the first `inner` are written
  int splits;
  int ways;               // a power of 2, at most 32
  int size;
  int pitch;
  Divisor by_inner;
};

// What is stored of a sum; another struct has another overload.
__device__ __forceinline__ float finish_partial(const SumPartialsArgs &, int i, float sum) { return sum; }

// out[i] = sum over splits of partials[split, i]. `ways` threads share an element: each adds every ways-th split, in order,
// and their sums are added by halves. So the grouping depends on nothing but the number of splits. A thread reads 16 at once, as
// it would else wait for each.
template <typename Args>
__device__ __forceinline__ void sum_partials(const Args &a) {
  __shared__ float sums[256];
  const int width = 256 / a.ways;
  const int lane = threadIdx.x % width, way = threadIdx.x / width;
  const int i = blockIdx.x * width + lane;
  float sum = 0.f;
  for (int first = way; first < a.splits; first += 16 * a.ways) {
    float values[16];
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      const int split = first + j * a.ways;
      values[j] = i < a.size && split < a.splits ? a.partials[(size_t)split * a.size + i] : 0.f;
    }
#pragma unroll
    for (int j = 0; j < 16; ++j) sum += values[j];
  }
  sums[threadIdx.x] = sum;
  for (int half = a.ways / 2; half > 0; half /= 2) {
    __syncthreads();
    if (way < half) sums[threadIdx.x] += sums[threadIdx.x + half * width];
  }
  if (way == 0 && i < a.size) {
    int column;
    const int row = a.by_inner.divide(i, column);
    a.out[row * a.pitch + column] = finish_partial(a, i, sums[lane]);
  }
}
