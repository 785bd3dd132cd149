// Local response normalisation across channels, its gradient, and the sum over its windows.
//
// Operands are (channels, positions); positions, the (row, column, image) of c01b, are adjacent. A thread owns kVec
// adjacent positions and goes through all channels, or, where there are few positions, a chunk of them: every access is
// coalesced. Channel f's window is [f - back, f + ahead], or the block of `block` channels that f lies in, clipped.
//
// Kernels for any window read it again for each channel, from the caches: 1024 threads a multiprocessor use some 16 KB
// a channel of the window and operand. The `sized` ones, for one size and no blocks, keep the window in registers, read
// each value once (a chunk its windows' channels outside it too), and take kGroup channels a step: the next step's
// loads are issued before this one's arithmetic and stores, whereas the others wait for each small load. On an H100,
// for 5 channels, they reach 82 to 95 % of the rate of a copy, those for any size 39 to 84.
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
__device__ __forceinline__ Values<kVec> sum_channels(const float *source, int positions, int first, int last,
                                                     Term term) {
  Values<kVec> sum;
  for (int i = 0; i < kVec; ++i) sum.value[i] = 0.f;
  for (int c = first; c <= last; ++c) {
    const Values<kVec> x = load_values<kVec>(source + c * positions);
    for (int i = 0; i < kVec; ++i) sum.value[i] += term(x.value[i]);
  }
  return sum;
}

// Loads kCount channels from `first` on for kVec positions from `source` on; those not in [0, channels) are `outside`.
template <int kVec, int kCount>
__device__ __forceinline__ void load_channels(Values<kVec> *values, const float *source, int positions, int first,
                                              int channels, float outside) {
#pragma unroll
  for (int k = 0; k < kCount; ++k) {
    const int c = first + k;
#pragma unroll
    for (int i = 0; i < kVec; ++i) values[k].value[i] = outside;
    if (c >= 0 && c < channels) values[k] = load_values<kVec>(source + c * positions);
  }
}

// x to the power -exponent, and to -1. powf() takes some 100 instructions, the exponents in use a handful; all threads
// take the same branch. As with powf(), infinity gives 0, and a NaN or a root of a number below 0 a NaN.
template <int kVec>
struct Powers {
  Values<kVec> power, inverse;
};

template <int kVec>
__device__ __forceinline__ Powers<kVec> negative_powers(const Values<kVec> &x, float exponent) {
  Powers<kVec> result;
#pragma unroll
  for (int i = 0; i < kVec; ++i) {
    if (exponent == 0.75f || exponent == 0.5f) {
      // Not sqrtf(), which rounds exactly in a dozen instructions; the bound is for an infinite x, of root 0.
      const float root = rsqrtf(x.value[i]), square = root * root;
      result.power.value[i] = exponent == 0.75f ? square * rsqrtf(fmaxf(root, 1e-37f)) : root;
      result.inverse.value[i] = square;
    } else {
      result.inverse.value[i] = 1.f / x.value[i];
      result.power.value[i] = exponent == 1.f ? result.inverse.value[i] : powf(x.value[i], -exponent);
    }
  }
  return result;
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
  const unsigned position = (blockIdx.x * blockDim.x + threadIdx.x) * kVec;
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
    store_values<kVec>(a.out + f * a.positions + position, sum);
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

// Writes acts and denoms of the images at `at`, whose windows' squares add up to `sum`.
template <int kVec>
__device__ __forceinline__ void store_norm(const NormArgs &a, int at, const Values<kVec> &sum,
                                           const Values<kVec> &images) {
  Values<kVec> acts, denoms;
#pragma unroll
  for (int i = 0; i < kVec; ++i) denoms.value[i] = 1.f + a.add_scale * sum.value[i];
  const Values<kVec> power = negative_powers(denoms, a.pow_scale).power;
#pragma unroll
  for (int i = 0; i < kVec; ++i) acts.value[i] = images.value[i] * power.value[i];
  store_values<kVec>(a.acts + at, acts);
  store_values<kVec>(a.denoms + at, denoms);
}

template <int kVec>
__device__ __forceinline__ void cross_map_norm(const NormArgs &a) {
  const unsigned position = (blockIdx.x * blockDim.x + threadIdx.x) * kVec;
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
    const int at = f * a.positions + position;
    store_norm(a, at, sum, load_values<kVec>(a.images + at));
  }
}

// For windows of kSize channels. Where a channel begins inside a sector, the 32 bytes that memory moves, warps of 32
// adjacent positions would write parts of sectors: 55 % of the rate of a copy against 84 with whole ones. So with
// kVec = 1 a warp computes 8 positions of the next one's too, and writes the sectors that begin in its own 24.
template <int kVec, int kSize, int kGroup>
__device__ __forceinline__ void cross_map_norm_sized(const NormArgs &a) {
  const int kBack = kSize / 2, kAhead = kSize - 1 - kBack, kSector = 8, kOwn = 32 - kSector;
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned position = kVec == 1 ? thread - thread / 32 * kSector : thread * kVec;
  if (position >= a.positions) return;
  const float *images = a.images + position;
  const int begin = blockIdx.y * a.chunk, end = min(begin + a.chunk, a.channels), seen = min(end + kAhead, a.channels);
  // The channels from f - kBack on: the windows of this step, and kGroup more, which the next one needs.
  Values<kVec> window[kSize - 1 + 2 * kGroup];
  load_channels<kVec, kSize - 1 + kGroup>(window, images, a.positions, begin - kBack, seen, 0.f);
  for (int f = begin; f < end; f += kGroup) {
    load_channels<kVec, kGroup>(window + kSize - 1 + kGroup, images, a.positions, f + kAhead + kGroup, seen, 0.f);
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      if (f + k >= end) break;
      Values<kVec> sum;
#pragma unroll
      for (int i = 0; i < kVec; ++i) {
        sum.value[i] = 0.f;
#pragma unroll
        for (int w = 0; w < kSize; ++w) sum.value[i] += window[k + w].value[i] * window[k + w].value[i];
      }
      const int at = (f + k) * a.positions + position;
      const int sector = (int)(threadIdx.x % 32) - (int)(at % kSector);
      if (kVec > 1 || (sector < kOwn && (sector >= 0 || thread < 32))) store_norm(a, at, sum, window[k + kBack]);
    }
#pragma unroll
    for (int w = 0; w < kSize - 1 + kGroup; ++w) window[w] = window[w + kGroup];
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
  int positions;
  int back;             // of the transposed windows
  int ahead;
  int block;
  int own;              // positions that a warp of the sized kernels for kVec = 1 writes: 32, or 24 as in the forward one
  float add_scale;
  float pow_scale;
};

// By the reciprocal: a division of 0, as where the next layer's gradient is sparse, takes a slow path.
template <int kVec>
__device__ __forceinline__ Values<kVec> out_acts_of(const UndoArgs &a, const Values<kVec> &acts,
                                                    const Values<kVec> &grads, const Values<kVec> &inverse) {
  const float scale = -2.f * a.pow_scale * a.add_scale;
  Values<kVec> out_acts;
#pragma unroll
  for (int i = 0; i < kVec; ++i) out_acts.value[i] = scale * grads.value[i] * acts.value[i] * inverse.value[i];
  return out_acts;
}

// Always for all channels: out_acts may lie over acts, so no other thread may read what this one overwrites.
// A thread writes a channel of out_acts when a window first reaches it, and reads it back from there.
template <int kVec>
__device__ __forceinline__ void cross_map_norm_undo(const UndoArgs &a) {
  const unsigned position = (blockIdx.x * blockDim.x + threadIdx.x) * kVec;
  if (position >= a.positions) return;
  Values<kVec> sum;
  int summed = -1, written = 0;
  for (int f = 0; f < a.channels; ++f) {
    int first, last;
    window_of(f, a.channels, a.back, a.ahead, a.block, first, last);
    for (; written <= last; ++written) {
      const int at = written * a.positions + position;
      const Values<kVec> acts = load_values<kVec>(a.acts + at), grads = load_values<kVec>(a.grads + at);
      const Values<kVec> inverse = negative_powers(load_values<kVec>(a.denoms + at), a.pow_scale).inverse;
      store_values<kVec>(a.out_acts + at, out_acts_of(a, acts, grads, inverse));
    }
    if (a.block == 0 || first != summed)
      sum = sum_channels<kVec>(a.out_acts + position, a.positions, first, last, [](float x) { return x; });
    summed = first;
    const int at = f * a.positions + position;
    const Values<kVec> grads = load_values<kVec>(a.grads + at), images = load_values<kVec>(a.images + at);
    Values<kVec> out = negative_powers(load_values<kVec>(a.denoms + at), a.pow_scale).power;
#pragma unroll
    for (int i = 0; i < kVec; ++i) out.value[i] = grads.value[i] * out.value[i] + images.value[i] * sum.value[i];
    store_values<kVec>(a.out + at, out);
  }
}

// For windows of kSize channels, of which kAhead lie ahead in the transposed window. A step takes kGroup channels from
// c on of acts, grads and denoms, writes them of out_acts, and of out those kAhead before.
template <int kVec, int kSize, int kGroup>
__device__ __forceinline__ void cross_map_norm_undo_sized(const UndoArgs &a) {
  const int kAhead = kSize / 2, kSector = 8;
  const unsigned thread = blockIdx.x * blockDim.x + threadIdx.x;
  const unsigned position = kVec == 1 ? thread / 32 * a.own + thread % 32 : thread * kVec;
  if (position >= a.positions) return;
  // out_acts from channel c - kSize + 1 on, grads * denoms ** -pow_scale from c - kAhead on; zeros before channel 0.
  Values<kVec> window[kSize - 1 + kGroup], direct[kAhead + kGroup];
#pragma unroll
  for (int i = 0; i < kVec; ++i) {
#pragma unroll
    for (int k = 0; k < kSize - 1; ++k) window[k].value[i] = 0.f;
#pragma unroll
    for (int k = 0; k < kAhead; ++k) direct[k].value[i] = 0.f;
  }
  // This step's channels and the next one's.
  Values<kVec> acts[2 * kGroup], grads[2 * kGroup], denoms[2 * kGroup], images[2 * kGroup];
  const auto load = [&](int to, int c) {
    load_channels<kVec, kGroup>(acts + to, a.acts + position, a.positions, c, a.channels, 0.f);
    load_channels<kVec, kGroup>(grads + to, a.grads + position, a.positions, c, a.channels, 0.f);
    load_channels<kVec, kGroup>(denoms + to, a.denoms + position, a.positions, c, a.channels, 1.f);
    load_channels<kVec, kGroup>(images + to, a.images + position, a.positions, c - kAhead, a.channels, 0.f);
  };
  load(0, 0);
  for (int c = 0; c < a.channels + kAhead; c += kGroup) {
    load(kGroup, c + kGroup);
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      const Powers<kVec> powers = negative_powers(denoms[k], a.pow_scale);
      window[kSize - 1 + k] = out_acts_of(a, acts[k], grads[k], powers.inverse);
      Values<kVec> out;
#pragma unroll
      for (int i = 0; i < kVec; ++i) {
        direct[kAhead + k].value[i] = grads[k].value[i] * powers.power.value[i];
        float sum = 0.f;
#pragma unroll
        for (int w = 0; w < kSize; ++w) sum += window[k + w].value[i];
        out.value[i] = direct[k].value[i] + images[k].value[i] * sum;
      }
      const auto store = [&](float *target, int f, const Values<kVec> &values) {
        const int at = f * a.positions + position;
        const int sector = (int)(threadIdx.x % 32) - (int)(at % kSector);
        if (kVec > 1 || a.own == 32 || (sector < a.own && (sector >= 0 || thread < 32)))
          store_values<kVec>(target + at, values);
      };
      const int f = c + k - kAhead;
      if (c + k < a.channels) store(a.out_acts, c + k, window[kSize - 1 + k]);
      if (f >= 0 && f < a.channels) store(a.out, f, out);
    }
#pragma unroll
    for (int w = 0; w < kSize - 1; ++w) window[w] = window[w + kGroup];
#pragma unroll
    for (int w = 0; w < kAhead; ++w) direct[w] = direct[w + kGroup];
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      acts[k] = acts[k + kGroup];
      grads[k] = grads[k + kGroup];
      denoms[k] = denoms[k + kGroup];
      images[k] = images[k + kGroup];
    }
  }
}
