// Convolutions by Fourier transforms of kSize x kSize pixels, for even kSize of factors 2, 3 and 5: a tile has
// (kSize - R + 1) x (kSize - S + 1) outputs under R x S taps.
//
// The spectrum of a correlation is that of the images times the conjugate one of the filters: a matrix product, of filters with
// channels, for each frequency (fft_products.cu). Of a real tile's spectrum half is redundant: (kSize / 2 - 1) columns of kSize
// frequencies remain, and of columns 0 and kSize / 2 kSize / 2 + 1 each, of which the first and the last are real: kSize^2 / 2 + 2
// complex products, which three real ones make, in place of R * S for each output. A frequency is two elements (tiles.cuh), its
// real part and its imaginary one.
//
// fft_operands  images to elements, and filters or gradients of the outputs to conjugate ones
// fft_outputs   products to outputs
// fft_taps      products to the gradient of the filters
//
// Block   kLanes tiles (or filters) by kSize / 2 threads, each of which transforms two rows at once, as one complex row, and then
//         one column; columns 0 and kSize / 2 of real rows are real, and one complex column.
// Shared  kSize / 2 * kSize * kLanes floats and some padding, or where 48 KB do not hold them a half: the real, then the imaginary
//         parts between rows and columns.

// cos(2 pi i / n), 0 <= i < n, by its series: i and n are known when loops are unrolled, and the cosine then is too.
__device__ __forceinline__ float root_cosine(int i, int n) {
  const int folded = 2 * i > n ? n - i : i;
  const bool negative = 4 * folded > n;
  const double x = 6.283185307179586 * (negative ? 0.5 * n - folded : folded) / n;
  double term = 1, sum = 1;
#pragma unroll
  for (int k = 2; k <= 22; k += 2) {
    term *= -x * x / (k * (k - 1));
    sum += term;
  }
  return 4 * folded == n ? 0.f : (float)(negative ? -sum : sum);
}
__device__ __forceinline__ float root_sine(int i, int n) { return root_cosine(4 * i > n ? 4 * i - n : n - 4 * i, 4 * n); }

// The transform of 2, 4 or an odd number of complex numbers.
template <int kRadix>
__device__ __forceinline__ void transform_few(float (&re)[kRadix], float (&im)[kRadix]) {
  if (kRadix == 2) {
    const float x = re[0] - re[1], y = im[0] - im[1];
    re[0] += re[1];
    im[0] += im[1];
    re[1] = x;
    im[1] = y;
  } else if (kRadix == 4) {
    const float a = re[0] + re[kRadix - 2], b = re[0] - re[kRadix - 2], c = re[1] + re[kRadix - 1], d = re[1] - re[kRadix - 1];
    const float s = im[0] + im[kRadix - 2], t = im[0] - im[kRadix - 2], u = im[1] + im[kRadix - 1], v = im[1] - im[kRadix - 1];
    re[0] = a + c;
    im[0] = s + u;
    re[1] = b + v;
    im[1] = t - d;
    re[kRadix - 2] = a - c;
    im[kRadix - 2] = s - u;
    re[kRadix - 1] = b - v;
    im[kRadix - 1] = t + d;
  } else {
    // By pairs r and kRadix - r, whose roots are conjugate.
    constexpr int kPairs = kRadix / 2;
    const float first_re = re[0], first_im = im[0];
    float sum_re[kPairs], sum_im[kPairs], difference_re[kPairs], difference_im[kPairs];
#pragma unroll
    for (int r = 1; r <= kPairs; ++r) {
      sum_re[r - 1] = re[r] + re[kRadix - r];
      sum_im[r - 1] = im[r] + im[kRadix - r];
      difference_re[r - 1] = re[r] - re[kRadix - r];
      difference_im[r - 1] = im[r] - im[kRadix - r];
      re[0] += sum_re[r - 1];
      im[0] += sum_im[r - 1];
    }
#pragma unroll
    for (int q = 1; q <= kPairs; ++q) {
      float x = first_re, y = first_im, u = 0.f, v = 0.f;
#pragma unroll
      for (int r = 1; r <= kPairs; ++r) {
        const float cosine = root_cosine(q * r % kRadix, kRadix), sine = root_sine(q * r % kRadix, kRadix);
        x += cosine * sum_re[r - 1];
        y += cosine * sum_im[r - 1];
        u += sine * difference_re[r - 1];
        v += sine * difference_im[r - 1];
      }
      re[q] = x + v;
      im[q] = y - u;
      re[kRadix - q] = x - v;
      im[kRadix - q] = y + u;
    }
  }
}

// The transforms of kSize / kBlock times kBlock numbers, element i of each of which is then at place(i). With re and im exchanged
// they are the inverse ones, times kBlock.
template <int kSize, int kBlock = kSize>
struct FourierTransform {
  static constexpr int kRadix = kBlock % 4 == 0 ? 4 : kBlock % 2 == 0 ? 2 : kBlock % 3 == 0 ? 3 : 5;
  static constexpr int kPart = kBlock / kRadix;

  static __device__ __forceinline__ int place(int i) {
    return i % kRadix * kPart + FourierTransform<kSize, kPart>::place(i / kRadix);
  }

  static __device__ __forceinline__ void run(float (&re)[kSize], float (&im)[kSize]) {
#pragma unroll
    for (int begin = 0; begin < kSize; begin += kBlock)
#pragma unroll
      for (int j = 0; j < kPart; ++j) {
        float few_re[kRadix], few_im[kRadix];
#pragma unroll
        for (int q = 0; q < kRadix; ++q) {
          few_re[q] = re[begin + q * kPart + j];
          few_im[q] = im[begin + q * kPart + j];
        }
        transform_few<kRadix>(few_re, few_im);
#pragma unroll
        for (int q = 0; q < kRadix; ++q) {
          // Times exp(-2 pi i q j / kBlock).
          const float x = few_re[q], y = few_im[q];
          float &target_re = re[begin + q * kPart + j], &target_im = im[begin + q * kPart + j];
          if (q * j == 0) {
            target_re = x;
            target_im = y;
          } else if (4 * q * j == kBlock) {
            target_re = y;
            target_im = -x;
          } else {
            const float cosine = root_cosine(q * j, kBlock), sine = root_sine(q * j, kBlock);
            target_re = x * cosine + y * sine;
            target_im = y * cosine - x * sine;
          }
        }
      }
    FourierTransform<kSize, kPart>::run(re, im);
  }
};

template <int kSize>
struct FourierTransform<kSize, 1> {
  static __device__ __forceinline__ int place(int) { return 0; }
  static __device__ __forceinline__ void run(float (&)[kSize], float (&)[kSize]) {}
};

// A thread's part of a tile's transform.
template <int kSize, int kLanes>
struct FourierTile {
  static constexpr int kHalf = kSize / 2;
  static constexpr int kFrequencies = kSize * kHalf + 2;
  // Lanes of a warp that have another column are on other banks.
  static constexpr int kPitch = kSize * kLanes + kLanes % 32;
  // Columns that are exchanged at once: all, or where 48 KB do not hold them a half.
  static constexpr int kColumns = kHalf * kPitch > 12288 ? kHalf / 2 : kHalf;
  static constexpr int kShared = kColumns * kPitch;
  float *shared;
  int lane, line;

  __device__ __forceinline__ explicit FourierTile(float *memory) : shared(memory) {
    lane = threadIdx.x % kLanes;
    line = threadIdx.x / kLanes;
  }

  // Where element i of a spectrum is.
  template <bool kTransformed>
  static __device__ __forceinline__ int place(int i) {
    return kTransformed ? FourierTransform<kSize>::place(i) : i;
  }
  // Where that of element k < kHalf of the first (j = 0) or second of two real rows is, once they are told apart. Element 0,
  // which is real, has element kHalf, which is too, as its imaginary part.
  template <bool kTransformed>
  static __device__ __forceinline__ int place(int k, int j) {
    return place<kTransformed>(j == 0 ? k : k == 0 ? kHalf : kSize - k);
  }

  // From the spectrum of x + iy to those of the real x and y.
  template <bool kTransformed>
  static __device__ __forceinline__ void tell_apart(float (&re)[kSize], float (&im)[kSize]) {
    exchange(im[place<kTransformed>(0)], re[place<kTransformed>(kHalf)]);
#pragma unroll
    for (int k = 1; k < kHalf; ++k) {
      const int p = place<kTransformed>(k, 0), q = place<kTransformed>(k, 1);
      const float x_re = 0.5f * (re[p] + re[q]), x_im = 0.5f * (im[p] - im[q]);
      const float y_re = 0.5f * (im[p] + im[q]), y_im = 0.5f * (re[q] - re[p]);
      re[p] = x_re;
      im[p] = x_im;
      re[q] = y_re;
      im[q] = y_im;
    }
  }
  // And back.
  static __device__ __forceinline__ void put_together(float (&re)[kSize], float (&im)[kSize]) {
    exchange(im[0], re[kHalf]);
#pragma unroll
    for (int k = 1; k < kHalf; ++k) {
      const int p = k, q = kSize - k;
      const float x_re = re[p], x_im = im[p], y_re = re[q], y_im = im[q];
      re[p] = x_re - y_im;
      im[p] = x_im + y_re;
      re[q] = x_re + y_im;
      im[q] = y_re - x_im;
    }
  }
  static __device__ __forceinline__ void exchange(float &a, float &b) {
    const float kept = a;
    a = b;
    b = kept;
  }

  // Row 2 * line + j of column k, and row r of this thread's column.
  __device__ __forceinline__ float &of_row(int k, int j) const {
    return shared[k % kColumns * kPitch + (line + j * kHalf) * kLanes + lane];
  }
  __device__ __forceinline__ float &of_column(int r) const {
    return shared[line % kColumns * kPitch + (r / 2 + r % 2 * kHalf) * kLanes + lane];
  }
  // One part of two rows, told apart, to that of a column.
  __device__ __forceinline__ void rows_to_column(float (&part)[kSize]) const {
    float column[kSize];
#pragma unroll
    for (int first = 0; first < kHalf; first += kColumns) {
#pragma unroll
      for (int k = first; k < first + kColumns; ++k)
#pragma unroll
        for (int j = 0; j < 2; ++j) of_row(k, j) = part[place<true>(k, j)];
      __syncthreads();
      if (line - line % kColumns == first) {
#pragma unroll
        for (int r = 0; r < kSize; ++r) column[r] = of_column(r);
      }
      __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < kSize; ++r) part[r] = column[r];
  }
  __device__ __forceinline__ void column_to_rows(float (&part)[kSize]) const {
    float rows[kSize];
#pragma unroll
    for (int first = 0; first < kHalf; first += kColumns) {
      if (line - line % kColumns == first) {
#pragma unroll
        for (int r = 0; r < kSize; ++r) of_column(r) = part[place<true>(r)];
      }
      __syncthreads();
#pragma unroll
      for (int k = first; k < first + kColumns; ++k)
#pragma unroll
        for (int j = 0; j < 2; ++j) rows[place<false>(k, j)] = of_row(k, j);
      __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < kSize; ++i) part[i] = rows[i];
  }

  // From rows 2 * line (re) and 2 * line + 1 (im) to a column of the spectrum, which `store` takes. Without `rows` both are
  // zeros.
  template <typename Store>
  __device__ __forceinline__ void forward(float (&re)[kSize], float (&im)[kSize], bool rows, Store store) const {
    if (rows) {
      FourierTransform<kSize>::run(re, im);
      tell_apart<true>(re, im);
    }
    rows_to_column(re);
    rows_to_column(im);
    FourierTransform<kSize>::run(re, im);
    if (line == 0) tell_apart<true>(re, im);
    each_frequency<true>(re, im, store);
  }

  // From a column, the sum of what `splits` of load(split) add, to the rows, times kSize * kSize. Without `rows` nobody wants
  // these.
  template <typename Load>
  __device__ __forceinline__ void inverse(float (&re)[kSize], float (&im)[kSize], int splits, bool rows, Load load) const {
#pragma unroll
    for (int i = 0; i < kSize; ++i) re[i] = im[i] = 0.f;
#pragma unroll 1
    for (int split = 0; split < splits; ++split) {
      auto visit = load(split);
      each_frequency<false>(re, im, visit);
    }
    if (line == 0) put_together(re, im);
    FourierTransform<kSize>::run(im, re);
    column_to_rows(re);
    column_to_rows(im);
    if (!rows) return;
    put_together(re, im);
    FourierTransform<kSize>::run(im, re);
  }

  // visit.complex(frequency, re, im), or visit.real(frequency, value) where the imaginary part is 0, for each frequency of this
  // thread's column; or of column 0's and column kHalf's, told apart.
  template <bool kTransformed, typename Visit>
  __device__ __forceinline__ void each_frequency(float (&re)[kSize], float (&im)[kSize], Visit &visit) const {
    if (line > 0) {
      const int first = kSize * (line - 1);
#pragma unroll
      for (int i = 0; i < kSize; ++i) visit.complex(first + i, re[place<kTransformed>(i)], im[place<kTransformed>(i)]);
      return;
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int first = kSize * (kHalf - 1) + (kHalf + 1) * j;
      visit.real(first, re[place<kTransformed>(0, j)]);
#pragma unroll
      for (int k = 1; k < kHalf; ++k)
        visit.complex(first + k, re[place<kTransformed>(k, j)], im[place<kTransformed>(k, j)]);
      visit.real(first + kHalf, im[place<kTransformed>(0, j)]);
    }
  }
};

// Stores a tile's elements.
struct FourierStore {
  float *out;     // of element 0, or NULL
  size_t stride;  // from element to element
  float sign;     // of the imaginary parts: -1 for the conjugate spectrum

  __device__ __forceinline__ void real(int frequency, float value) const { complex(frequency, value, 0.f); }
  __device__ __forceinline__ void complex(int frequency, float re, float im) const {
    if (out == NULL) return;
    float *target = out + 2 * frequency * stride;
    target[0] = re;
    target[stride] = sign * im;
  }
};

// Adds a tile's elements.
struct FourierLoad {
  const float *in;      // of element 0, or NULL
  size_t stride;

  __device__ __forceinline__ float element(int i) const { return in == NULL ? 0.f : in[i * stride]; }
  __device__ __forceinline__ void real(int frequency, float &value) const { value += element(2 * frequency); }
  __device__ __forceinline__ void complex(int frequency, float &re, float &im) const {
    re += element(2 * frequency);
    im += element(2 * frequency + 1);
  }
};

// A tile's rows 2 * line and 2 * line + 1, where its spectrum goes, and in `rows` whether they may be other than zeros.
template <bool kGradients, int kSize, int kLanes>
__device__ __forceinline__ FourierStore load_patches(const TilePatchesArgs &a, const FourierTile<kSize, kLanes> &part, int block,
                                                     float (&re)[kSize], float (&im)[kSize], bool &rows) {
  const int i = block * kLanes + part.lane;
  const bool inside = i < a.size;
  const TilePatch patch(a, inside ? i : 0);
  const int y = 2 * part.line;
  const bool in_row = inside && patch.has_row(a, y) && (!kGradients || y < a.step_y);
  const bool in_next_row = inside && patch.has_row(a, y + 1) && (!kGradients || y + 1 < a.step_y);
  const float *source = patch.source + y * patch.row_step;
#pragma unroll
  for (int x = 0; x < kSize; ++x) {
    const bool in_col = patch.has_col(a, x) && (!kGradients || x < a.step_x);
    re[x] = in_col && in_row ? source[x * patch.col_step] : 0.f;
    im[x] = in_col && in_next_row ? source[patch.row_step + x * patch.col_step] : 0.f;
  }
  // Of images nearly all threads have rows, and asking takes registers.
  rows = !kGradients || in_row || in_next_row;
  return FourierStore{inside ? a.out + i : NULL, (size_t)a.size, kGradients ? -1.f : 1.f};
}

template <int kSize, int kLanes>
__device__ __forceinline__ FourierStore load_others(const TileOperandsArgs &a, const FourierTile<kSize, kLanes> &part, int block,
                                                    float (&re)[kSize], float (&im)[kSize], bool &rows) {
  constexpr int kElements = 2 * FourierTile<kSize, kLanes>::kFrequencies;
  const int i = block * kLanes + part.lane;
  int last, filter;
  const int outer = a.by_stride.divide(min(i, a.filters_size - 1), last);
  const TilePhase phase(outer, a.by_phases, a.by_phases_x);
  const int group = a.by_group.divide(last, filter);
  const bool inside = i < a.filters_size && filter < a.m;
  const int r = 2 * part.line * a.stride_y + phase.y, next_r = r + a.stride_y;
  const float *source =
      a.filters + (phase.channel * a.taps_y * a.taps_x + phase.x) * a.source_stride + group * a.source_group + filter;
#pragma unroll
  for (int x = 0; x < kSize; ++x) {
    const int s = x * a.by_phases_x.value;
    const bool in_cols = inside && s + phase.x < a.taps_x;
    re[x] = in_cols && r < a.taps_y ? source[(r * a.taps_x + s) * a.source_stride] : 0.f;
    im[x] = in_cols && next_r < a.taps_y ? source[(next_r * a.taps_x + s) * a.source_stride] : 0.f;
  }
  float *out = i < a.filters_size ? a.filters_out + outer * kElements * a.by_stride.value + last : NULL;
  rows = inside && r < a.taps_y;
  return FourierStore{out, (size_t)a.by_stride.value, -1.f};
}

template <int kSize, int kLanes>
__device__ __forceinline__ FourierStore load_others(const TileGradientOperandsArgs &a,
                                                    const FourierTile<kSize, kLanes> &part, int block, float (&re)[kSize],
                                                    float (&im)[kSize], bool &rows) {
  return load_patches<true>(gradient_patches(a), part, block, re, im, rows);
}

template <int kSize, int kLanes, typename Args>
__device__ __forceinline__ void fft_operands(const Args &a) {
  typedef FourierTile<kSize, kLanes> Tile;
  __shared__ float memory[Tile::kShared];
  const Tile part(memory);
  const int block = blockIdx.x;
  float re[kSize], im[kSize];
  bool rows;
  // The code of the transform once for both, but not where it would spill.
  if (kSize == 24 || kSize == 40) {
    if (block < a.patch_blocks) {
      const FourierStore store = load_patches<false>(a, part, block, re, im, rows);
      part.forward(re, im, rows, store);
    } else {
      const FourierStore store = load_others(a, part, block - a.patch_blocks, re, im, rows);
      part.forward(re, im, rows, store);
    }
    return;
  }
  const FourierStore store = block < a.patch_blocks ? load_patches<false>(a, part, block, re, im, rows)
                                                    : load_others(a, part, block - a.patch_blocks, re, im, rows);
  part.forward(re, im, rows, store);
}

template <int kSize, int kLanes, typename Args>
__device__ __forceinline__ void fft_outputs(const Args &a) {
  typedef FourierTile<kSize, kLanes> Tile;
  __shared__ float memory[Tile::kShared];
  const Tile part(memory);
  const int i = blockIdx.x * kLanes + part.lane;
  const TileResult result(a, min(i, a.size - 1));
  const bool inside = i < a.size && result.last < a.n;
  float re[kSize], im[kSize];
  const int y = 2 * part.line;
  part.inverse(re, im, 1, y < a.step_y, [&](int) { return FourierLoad{inside ? a.products + i : NULL, (size_t)a.size}; });
  if (!inside || y >= a.step_y) return;
  const bool in_row = result.has_row(a, y), in_next_row = y + 1 < a.step_y && result.has_row(a, y + 1);
  float *target = a.out + result.target + y * result.row_step;
#pragma unroll
  for (int x = 0; x < kSize; ++x) {
    constexpr float kScale = 1.f / (kSize * kSize);
    const int place = FourierTransform<kSize>::place(x);
    const bool in_col = x < a.step_x && result.has_col(a, x);
    if (in_col && in_row) target[x * result.col_step] = finish_output(a, result.channel, kScale * re[place]);
    if (in_col && in_next_row)
      target[result.row_step + x * result.col_step] = finish_output(a, result.channel, kScale * im[place]);
  }
}

template <int kSize, int kLanes>
__device__ __forceinline__ void fft_taps(const TileTapsArgs &a) {
  typedef FourierTile<kSize, kLanes> Tile;
  constexpr int kElements = 2 * Tile::kFrequencies;
  __shared__ float memory[Tile::kShared];
  const Tile part(memory);
  const int i = blockIdx.x * kLanes + part.lane;
  const bool inside = i < a.size;
  int filter;
  const int outer = a.by_filters.divide(min(i, a.size - 1), filter);
  const TilePhase phase(outer, a.by_phases, a.by_phases_x);
  const float *source = a.partials + (size_t)outer * kElements * a.by_filters.value + filter;
  float re[kSize], im[kSize];
  const bool rows = 2 * part.line * a.stride_y < a.taps_y;
  part.inverse(re, im, a.splits, rows, [&](int split) {
    return FourierLoad{inside ? source + (size_t)split * kElements * a.size : NULL, (size_t)a.by_filters.value};
  });
  if (!inside || !rows) return;
#pragma unroll
  for (int x = 0; x < kSize; ++x)
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int r = (2 * part.line + j) * a.stride_y + phase.y, s = x * a.by_phases_x.value + phase.x;
      if (r >= a.taps_y || s >= a.taps_x) continue;
      constexpr float kScale = 1.f / (kSize * kSize);
      const int place = FourierTransform<kSize>::place(x);
      const int target = ((phase.channel * a.taps_y + r) * a.taps_x + s) * a.by_filters.value + filter;
      a.out[target] = a.copy[target] = kScale * (j == 0 ? re[place] : im[place]);
    }
}
