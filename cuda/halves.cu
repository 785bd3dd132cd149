// Copies of arrays as halves (float16), for tensor cores that multiply them twice as fast as TF32, of which halves have the 11
// bits but not the range: each array is multiplied by a power of two that its largest magnitude decides (half_exponent in
// common.cuh), and the sums of the products by what makes up for both (HalfScale).
//
// A word of 32 bits holds two halves that are adjacent in the sum: two channels of a pixel for correlate.cuh, two images of a
// pixel for weight_acts.cu. Tensor cores want their operands in such pairs, and to a kernel that copies words in place of
// floats nothing changes but that its sums are half as long. Where there is no second one, or no image, the half is 0.

struct LargestArgs {
  const float *first;
  const float *second;
  int *largest;          // two, zero before
  int first_size;
  int second_size;
};

// The bits of the largest finite magnitude of each array, which are in the magnitudes' order. Infinities and NaN stay what
// they are whatever they are multiplied by. gridDim.y is 2.
__device__ __forceinline__ void largest_magnitudes(const LargestArgs &a) {
  __shared__ int largest[8];
  const float *source = blockIdx.y == 0 ? a.first : a.second;
  const unsigned size = blockIdx.y == 0 ? a.first_size : a.second_size;
  int found = 0;
  for (unsigned begin = blockIdx.x * 1024 + threadIdx.x; begin < size; begin += gridDim.x * 1024)
#pragma unroll
    for (unsigned i = begin; i < begin + 1024; i += 256) {
      const int bits = i < size ? __float_as_int(source[i]) & 0x7FFFFFFF : 0;
      if (bits < 0x7F800000) found = max(found, bits);
    }
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) found = max(found, __shfl_xor_sync(0xffffffffu, found, lanes));
  if (threadIdx.x % 32 == 0) largest[threadIdx.x / 32] = found;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (int warp = 1; warp < 8; ++warp) found = max(found, largest[warp]);
  atomicMax(a.largest + blockIdx.y, found);
}

struct PairChannelsArgs {
  const float *source;   // (groups, channels, rows, inner)
  const int *largest;    // of it
  float *out;            // (groups, pairs, rows, padded), padded divisible by 4
  int channels;
  int inner;
  int size;              // of out, in kVec
  Divisor by_padded;     // padded / kVec
  Divisor by_rows;
  Divisor by_pairs;
};

// One thread makes kVec words. 4 wants inner divisible by 4, and the source aligned to 16 bytes.
template <int kVec>
__device__ __forceinline__ void pair_channels(const PairChannelsArgs &a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.size) return;
  int column, row, pair;
  const int group = a.by_pairs.divide(a.by_rows.divide(a.by_padded.divide(i, column), row), pair);
  column *= kVec;
  const int plane = a.by_rows.value * a.inner;
  const float *source = a.source + (size_t)(group * a.channels + 2 * pair) * plane + row * a.inner + column;
  const float scale = power_of_two(half_exponent(*a.largest));
  Values<kVec> first = all_values<kVec>(0.f), second = first;
  if (column < a.inner) first = load_values<kVec>(source);
  if (column < a.inner && 2 * pair + 1 < a.channels) second = load_values<kVec>(source + plane);
#pragma unroll
  for (int j = 0; j < kVec; ++j) first.value[j] = two_halves(first.value[j] * scale, second.value[j] * scale);
  store_values<kVec>(a.out + (size_t)i * kVec, first);
}

struct PairImagesArgs {
  const float *source;   // (rows, n)
  const int *largest;    // of it
  float *out;            // (rows, padded), padded divisible by 4: words of images 2 i and 2 i + 1
  int n;
  int size;              // of out, in kVec
  Divisor by_padded;     // padded / kVec
};

// One thread makes kVec words. 4 wants n divisible by 8, and the source aligned to 16 bytes.
template <int kVec>
__device__ __forceinline__ void pair_images(const PairImagesArgs &a) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.size) return;
  int column;
  const int row = a.by_padded.divide(i, column);
  column *= 2 * kVec;
  const float *source = a.source + (size_t)row * a.n + column;
  const float scale = power_of_two(half_exponent(*a.largest));
  Values<kVec> images[2] = {all_values<kVec>(0.f), all_values<kVec>(0.f)};
#pragma unroll
  for (int j = 0; j < 2; ++j)
    if (column + j * kVec < a.n) images[j] = load_values<kVec>(source + j * kVec);
  Values<kVec> words;
#pragma unroll
  for (int j = 0; j < kVec; ++j)
    words.value[j] = two_halves(images[2 * j / kVec].value[2 * j % kVec] * scale,
                                images[(2 * j + 1) / kVec].value[(2 * j + 1) % kVec] * scale);
  store_values<kVec>(a.out + (size_t)i * kVec, words);
}
