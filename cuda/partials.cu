// What the convolutions do before and after their products: rows padded with zeros, and sums of partial results.

struct PadRowsArgs {
  const float *source;   // (rows, inner)
  float *out;            // (rows, padded), padded divisible by 4
  int inner;
  int size;              // of out, in fours
  Divisor by_padded;     // padded / 4
};

// A thread stores four values.
__device__ __forceinline__ void pad_rows(const PadRowsArgs &a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.size) return;
  int column;
  const int row = a.by_padded.divide(i, column);
  column *= 4;
  Values<4> values;
#pragma unroll
  for (int j = 0; j < 4; ++j) values.value[j] = column + j < a.inner ? a.source[row * a.inner + column + j] : 0.f;
  store_values<4>(a.out + 4 * (size_t)i, values);
}

struct SumPartialsArgs {
  const float *partials;  // (splits, size)
  float *out;             // (size)
  int splits;
  int size;
};

// What is stored of a sum; another struct has another overload.
__device__ __forceinline__ float finish_partial(const SumPartialsArgs &, int i, float sum) { return sum; }

// out[i] = sum over splits of partials[split, i]. A block owns 32 elements; each of its 8 warps adds every eighth
// split, in order, and the 8 sums are added in order: the grouping depends on nothing but the number of splits.
template <typename Args>
__device__ __forceinline__ void sum_partials(const Args &a) {
  __shared__ float sums[8][32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int i = blockIdx.x * 32 + lane;
  float sum = 0.f;
  if (i < a.size)
    for (int split = warp; split < a.splits; split += 8) sum += a.partials[(size_t)split * a.size + i];
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp == 0 && i < a.size) {
    for (int other = 1; other < 8; ++other) sum += sums[other][lane];
    a.out[i] = finish_partial(a, i, sum);
  }
}
