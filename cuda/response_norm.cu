// Local response normalisation across channels, its gradient, and the sum over its windows.
//
// Operands are (channels, positions); positions, the (row, column, image) of c01b, are adjacent. A thread owns kVec adjacent
// positions and goes through all channels, or, where there are few positions, a chunk of them: every access is coalesced, device memory is read once, and what a window reads
// again comes from the caches, of which 1024 threads a multiprocessor use some 16 KB a channel of the window and operand.
// Channel f's window is [f - back, f + ahead], or the block of `block` channels that f lies in, clipped.
//
// Sums begin anew for each window: adding one channel and taking another off would pile up rounding errors.
// Limits   arrays under 2^31 elements. kVec = 4 wants positions divisible by 4 and 16-byte aligned arrays.

// The first and the last channel of f's window.
__device__ __forceinline__ void window_of(int f, int channels, int back, int ahead, int block, int &first, int &last) {
  if (block > 0) {
    first = f / block * block;
    last = min(first + block, channels) - 1;
  } else {
    first = max(f - back, 0);
    last = min(f + ahead, channels - 1);
  }
}

// The sum over the channels first ... last of term(values), for kVec positions from `source` on.
template <int kVec, typename Term>
__device__ __forceinline__ Values<kVec> sum_channels(const float *source, int positions, int first, int last, Term term) {
  Values<kVec> sum;
  for (int i = 0; i < kVec; ++i) sum.value[i] = 0.f;
  for (int c = first; c <= last; ++c) {
    const Values<kVec> x = load_values<kVec>(source + (size_t)c * positions);
    for (int i = 0; i < kVec; ++i) sum.value[i] += term(x.value[i]);
  }
  return sum;
}

struct SumArgs {
  const float *images;
  float *out;
  int channels;
  int chunk;            // channels that one thread goes through
  int positions;
  int back;
  int ahead;
  int block;
};

template <int kVec>
__device__ __forceinline__ void cross_map_sum(const SumArgs &a) {
  const size_t position = (blockIdx.x * (size_t)blockDim.x + threadIdx.x) * kVec;
  if (position >= a.positions) return;
  Values<kVec> sum;
  int summed = -1;
  const int begin = blockIdx.y * a.chunk, end = min(begin + a.chunk, a.channels);
  for (int f = begin; f < end; ++f) {
    int first, last;
    window_of(f, a.channels, a.back, a.ahead, a.block, first, last);
    if (a.block == 0 || first != summed)
      sum = sum_channels<kVec>(a.images + position, a.positions, first, last, [](float x) { return x; });
    summed = first;
    store_values<kVec>(a.out + (size_t)f * a.positions + position, sum);
  }
}

struct NormArgs {
  const float *images;
  float *acts;
  float *denoms;
  int channels;
  int chunk;            // channels that one thread goes through
  int positions;
  int back;
  int ahead;
  int block;
  float add_scale;
  float pow_scale;
};

template <int kVec>
__device__ __forceinline__ void cross_map_norm(const NormArgs &a) {
  const size_t position = (blockIdx.x * (size_t)blockDim.x + threadIdx.x) * kVec;
  if (position >= a.positions) return;
  Values<kVec> sum;
  int summed = -1;
  const int begin = blockIdx.y * a.chunk, end = min(begin + a.chunk, a.channels);
  for (int f = begin; f < end; ++f) {
    int first, last;
    window_of(f, a.channels, a.back, a.ahead, a.block, first, last);
    if (a.block == 0 || first != summed)
      sum = sum_channels<kVec>(a.images + position, a.positions, first, last, [](float x) { return x * x; });
    summed = first;
    const size_t at = (size_t)f * a.positions + position;
    Values<kVec> acts = load_values<kVec>(a.images + at), denoms;
    for (int i = 0; i < kVec; ++i) {
      denoms.value[i] = 1.f + a.add_scale * sum.value[i];
      acts.value[i] *= powf(denoms.value[i], -a.pow_scale);
    }
    store_values<kVec>(a.acts + at, acts);
    store_values<kVec>(a.denoms + at, denoms);
  }
}

struct UndoArgs {
  const float *images;
  const float *acts;
  const float *denoms;
  const float *grads;   // of acts
  float *out;           // the gradient of the images
  float *out_acts;      // -2 * add_scale * pow_scale * grads * acts / denoms; may be the memory of acts
  int channels;
  int chunk;            // always all channels: a thread reads what it wrote, maybe over its input
  int positions;
  int back;             // of the transposed windows
  int ahead;
  int block;
  float add_scale;
  float pow_scale;
};

// A thread writes a channel of out_acts when a window first reaches it, and reads it back from there.
template <int kVec>
__device__ __forceinline__ void cross_map_norm_undo(const UndoArgs &a) {
  const size_t position = (blockIdx.x * (size_t)blockDim.x + threadIdx.x) * kVec;
  if (position >= a.positions) return;
  const float scale = -2.f * a.pow_scale * a.add_scale;
  Values<kVec> sum;
  int summed = -1, written = 0;
  for (int f = 0; f < a.channels; ++f) {
    int first, last;
    window_of(f, a.channels, a.back, a.ahead, a.block, first, last);
    for (; written <= last; ++written) {
      const size_t at = (size_t)written * a.positions + position;
      Values<kVec> values = load_values<kVec>(a.acts + at);
      const Values<kVec> grads = load_values<kVec>(a.grads + at), denoms = load_values<kVec>(a.denoms + at);
      for (int i = 0; i < kVec; ++i) values.value[i] = scale * grads.value[i] * values.value[i] / denoms.value[i];
      store_values<kVec>(a.out_acts + at, values);
    }
    if (a.block == 0 || first != summed)
      sum = sum_channels<kVec>(a.out_acts + position, a.positions, first, last, [](float x) { return x; });
    summed = first;
    const size_t at = (size_t)f * a.positions + position;
    Values<kVec> out = load_values<kVec>(a.grads + at);
    const Values<kVec> images = load_values<kVec>(a.images + at), denoms = load_values<kVec>(a.denoms + at);
    for (int i = 0; i < kVec; ++i)
      out.value[i] = out.value[i] * powf(denoms.value[i], -a.pow_scale) + images.value[i] * sum.value[i];
    store_values<kVec>(a.out + at, out);
  }
}
