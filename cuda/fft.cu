// Convolutions with stride 1 by Fourier transforms of kSize x kSize pixels: a tile of (kSize - R + 1) x (kSize - S + 1) outputs
// under R x S taps.
//
// The spectrum of a correlation is that of the images times the conjugate one of the filters: a matrix product, of filters with
// channels, for each frequency (fft_products.cu). Of a real tile's spectrum half is redundant: (kSize / 2 - 1) columns of kSize
// frequencies remain, and of columns 0 and kSize / 2 kSize / 2 + 1 each, of which the first and the last are real: kSize^2 / 2 + 2
// complex products, which three real ones make, in place of R * S for each output. A frequency is two elements (tiles.cuh), its
// real part and its imaginary one.
//
// fft_patches  images to elements, or with kGradients gradients of the outputs to conjugate ones
// fft_filters  filters to conjugate elements
// fft_outputs  products to outputs
// fft_taps     products to the gradient of the filters
//
// Block   kLanes tiles (or filters) by kSize / 2 threads, each of which transforms two rows at once, as one complex row, and then
//         one column; columns 0 and kSize / 2 of real rows are real, and one complex column.
// Shared  kSize / 2 * kSize * kLanes floats and some padding: the real, then the imaginary parts between rows and columns.

template <int kSize>
__device__ __forceinline__ int reverse_bits(int i) {
  int reversed = 0;
#pragma unroll
  for (int bit = 1; bit < kSize; bit *= 2) reversed = 2 * reversed + ((i & bit) != 0);
  return reversed;
}

// cos(2 pi i / 32) for 0 <= i <= 16; i is known when a loop is unrolled.
__device__ __forceinline__ float fft_cosine(int i) {
  const float values[9] = {1.f,          0.980785280f, 0.923879533f, 0.831469612f, 0.707106781f,
                           0.555570233f, 0.382683432f, 0.195090322f, 0.f};
  return i <= 8 ? values[i] : -values[16 - i];
}

// The transform of kSize numbers, by halves of 2 kHalf and less; element i of the result is at reverse_bits(i). With re and im
// exchanged it is the inverse, times kSize.
template <int kSize, int kHalf = kSize / 2>
struct FourierTransform {
  static __device__ __forceinline__ void run(float (&re)[kSize], float (&im)[kSize]) {
#pragma unroll
    for (int begin = 0; begin < kSize; begin += 2 * kHalf)
#pragma unroll
      for (int j = 0; j < kHalf; ++j) {
        const int a = begin + j, b = a + kHalf;
        const float x = re[a] - re[b], y = im[a] - im[b];
        re[a] += re[b];
        im[a] += im[b];
        // Times exp(-pi i j / kHalf).
        if (j == 0) {
          re[b] = x;
          im[b] = y;
        } else if (2 * j == kHalf) {
          re[b] = y;
          im[b] = -x;
        } else {
          const int angle = 16 / kHalf * j;
          const float cosine = fft_cosine(angle), sine = fft_cosine(angle <= 8 ? 8 - angle : angle - 8);
          re[b] = x * cosine + y * sine;
          im[b] = y * cosine - x * sine;
        }
      }
    FourierTransform<kSize, kHalf / 2>::run(re, im);
  }
};

template <int kSize>
struct FourierTransform<kSize, 0> {
  static __device__ __forceinline__ void run(float (&)[kSize], float (&)[kSize]) {}
};

// A thread's part of a tile's transform.
template <int kSize, int kLanes>
struct FourierTile {
  static constexpr int kHalf = kSize / 2;
  static constexpr int kFrequencies = kSize * kHalf + 2;
  // Lanes of a warp that have another column are on other banks.
  static constexpr int kPitch = kSize * kLanes + kLanes % 32;
  float *shared;
  int lane, line;

  __device__ __forceinline__ explicit FourierTile(float *memory) : shared(memory) {
    lane = threadIdx.x % kLanes;
    line = threadIdx.x / kLanes;
  }

  // Where element i of a spectrum is.
  template <bool kReversed>
  static __device__ __forceinline__ int place(int i) {
    return kReversed ? reverse_bits<kSize>(i) : i;
  }
  // Where that of element k < kHalf of the first (j = 0) or second of two real rows is, once they are told apart. Element 0,
  // which is real, has element kHalf, which is too, as its imaginary part.
  template <bool kReversed>
  static __device__ __forceinline__ int place(int k, int j) {
    return place<kReversed>(j == 0 ? k : k == 0 ? kHalf : kSize - k);
  }

  // From the spectrum of x + iy to those of the real x and y.
  template <bool kReversed>
  static __device__ __forceinline__ void tell_apart(float (&re)[kSize], float (&im)[kSize]) {
    exchange(im[place<kReversed>(0)], re[place<kReversed>(kHalf)]);
#pragma unroll
    for (int k = 1; k < kHalf; ++k) {
      const int p = place<kReversed>(k, 0), q = place<kReversed>(k, 1);
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
    return shared[k * kPitch + (line + j * kHalf) * kLanes + lane];
  }
  __device__ __forceinline__ float &of_column(int r) const {
    return shared[line * kPitch + (r / 2 + r % 2 * kHalf) * kLanes + lane];
  }
  // One part of two rows, told apart, to that of a column.
  __device__ __forceinline__ void rows_to_column(float (&part)[kSize]) const {
#pragma unroll
    for (int k = 0; k < kHalf; ++k)
#pragma unroll
      for (int j = 0; j < 2; ++j) of_row(k, j) = part[place<true>(k, j)];
    __syncthreads();
#pragma unroll
    for (int r = 0; r < kSize; ++r) part[r] = of_column(r);
    __syncthreads();
  }
  __device__ __forceinline__ void column_to_rows(float (&part)[kSize]) const {
#pragma unroll
    for (int r = 0; r < kSize; ++r) of_column(r) = part[place<true>(r)];
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kHalf; ++k)
#pragma unroll
      for (int j = 0; j < 2; ++j) part[place<false>(k, j)] = of_row(k, j);
    __syncthreads();
  }

  // From rows 2 * line (re) and 2 * line + 1 (im) to a column of the spectrum, which `store` takes.
  template <typename Store>
  __device__ __forceinline__ void forward(float (&re)[kSize], float (&im)[kSize], Store store) const {
    FourierTransform<kSize>::run(re, im);
    tell_apart<true>(re, im);
    rows_to_column(re);
    rows_to_column(im);
    FourierTransform<kSize>::run(re, im);
    if (line == 0) tell_apart<true>(re, im);
    each_frequency<true>(re, im, store);
  }

  // From a column, the sum of what `splits` of load(split) add, to the rows, times kSize * kSize.
  template <typename Load>
  __device__ __forceinline__ void inverse(float (&re)[kSize], float (&im)[kSize], int splits, Load load) const {
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
    put_together(re, im);
    FourierTransform<kSize>::run(im, re);
  }

  // visit.complex(frequency, re, im), or visit.real(frequency, value) where the imaginary part is 0, for each frequency of this
  // thread's column; or of column 0's and column kHalf's, told apart.
  template <bool kReversed, typename Visit>
  __device__ __forceinline__ void each_frequency(float (&re)[kSize], float (&im)[kSize], Visit &visit) const {
    if (line > 0) {
      const int first = kSize * (line - 1);
#pragma unroll
      for (int i = 0; i < kSize; ++i) visit.complex(first + i, re[place<kReversed>(i)], im[place<kReversed>(i)]);
      return;
    }
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const int first = kSize * (kHalf - 1) + (kHalf + 1) * j;
      visit.real(first, re[place<kReversed>(0, j)]);
#pragma unroll
      for (int k = 1; k < kHalf; ++k)
        visit.complex(first + k, re[place<kReversed>(k, j)], im[place<kReversed>(k, j)]);
      visit.real(first + kHalf, im[place<kReversed>(0, j)]);
    }
  }
};

// Stores a tile's elements, with kConjugate those of the conjugate spectrum.
template <bool kConjugate>
struct FourierStore {
  float *out;     // of element 0, or NULL
  size_t stride;  // from element to element

  __device__ __forceinline__ void real(int frequency, float value) const { complex(frequency, value, 0.f); }
  __device__ __forceinline__ void complex(int frequency, float re, float im) const {
    if (out == NULL) return;
    float *target = out + 2 * frequency * stride;
    target[0] = re;
    target[stride] = kConjugate ? -im : im;
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

template <int kSize, int kLanes, bool kGradients>
__device__ __forceinline__ void fft_patches(const TilePatchesArgs &a) {
  typedef FourierTile<kSize, kLanes> Tile;
  __shared__ float memory[Tile::kHalf * Tile::kPitch];
  const Tile part(memory);
  const int i = blockIdx.x * kLanes + part.lane;
  const TilePlace tile(min(i, a.size - 1), a.by_tile_rows, a.by_tile_cols, a.by_n);
  const int y = 2 * part.line;
  const int row = (tile.y + a.first_row) * a.step_y - a.pad_y + y;
  const int col = tile.x * a.step_x - a.pad_x;
  const bool inside = i < a.size && tile.last < a.n;
  bool in_rows[2];
#pragma unroll
  for (int j = 0; j < 2; ++j)
    in_rows[j] = inside && (unsigned)(row + j) < (unsigned)a.rows && (!kGradients || y + j < a.step_y);
  const float *source = a.images + ((tile.outer * a.rows + row) * a.cols + col) * a.n + tile.last;
  float re[kSize], im[kSize];
#pragma unroll
  for (int x = 0; x < kSize; ++x) {
    const bool in_cols = (unsigned)(col + x) < (unsigned)a.cols && (!kGradients || x < a.step_x);
    re[x] = in_cols && in_rows[0] ? source[x * a.n] : 0.f;
    im[x] = in_cols && in_rows[1] ? source[(a.cols + x) * a.n] : 0.f;
  }
  float *out = i < a.size ? a.out + i : NULL;
  part.forward(re, im, FourierStore<kGradients>{out, (size_t)a.size});
}

template <int kSize, int kLanes>
__device__ __forceinline__ void fft_filters(const TileFiltersArgs &a) {
  typedef FourierTile<kSize, kLanes> Tile;
  constexpr int kElements = 2 * Tile::kFrequencies;
  __shared__ float memory[Tile::kHalf * Tile::kPitch];
  const Tile part(memory);
  const int i = blockIdx.x * kLanes + part.lane;
  int last, filter;
  const int channel = a.by_stride.divide(min(i, a.size - 1), last);
  const int group = a.by_group.divide(last, filter);
  const int r = 2 * part.line;
  const float *source = a.filters + (channel * a.taps_y + r) * a.taps_x * a.source_stride + group * a.source_group + filter;
  const bool inside = i < a.size && filter < a.m;
  float re[kSize], im[kSize];
#pragma unroll
  for (int s = 0; s < kSize; ++s) {
    const bool in_cols = inside && s < a.taps_x;
    re[s] = in_cols && r < a.taps_y ? source[s * a.source_stride] : 0.f;
    im[s] = in_cols && r + 1 < a.taps_y ? source[(a.taps_x + s) * a.source_stride] : 0.f;
  }
  float *out = i < a.size ? a.out + channel * kElements * a.by_stride.value + last : NULL;
  part.forward(re, im, FourierStore<true>{out, (size_t)a.by_stride.value});
}

template <int kSize, int kLanes, typename Args>
__device__ __forceinline__ void fft_outputs(const Args &a) {
  typedef FourierTile<kSize, kLanes> Tile;
  __shared__ float memory[Tile::kHalf * Tile::kPitch];
  const Tile part(memory);
  const int i = blockIdx.x * kLanes + part.lane;
  const TilePlace tile(min(i, a.size - 1), a.by_tile_rows, a.by_tile_cols, a.by_n);
  const bool inside = i < a.size && tile.last < a.n;
  float re[kSize], im[kSize];
  part.inverse(re, im, 1, [&](int) { return FourierLoad{inside ? a.products + i : NULL, (size_t)a.size}; });
  if (!inside) return;
  const int y = 2 * part.line;
  const int row = (tile.y + a.first_row) * a.step_y + y, col = tile.x * a.step_x;
  float *target = a.out + ((tile.outer * a.out_rows + row) * a.out_cols + col) * a.n + tile.last;
  const bool in_row = y < a.step_y && row < a.out_rows, in_next_row = y + 1 < a.step_y && row + 1 < a.out_rows;
#pragma unroll
  for (int x = 0; x < kSize; ++x) {
    const int place = reverse_bits<kSize>(x);
    const bool in_cols = x < a.step_x && col + x < a.out_cols;
    constexpr float kScale = 1.f / (kSize * kSize);
    if (in_cols && in_row) target[x * a.n] = finish_output(a, tile.outer, kScale * re[place]);
    if (in_cols && in_next_row) target[(a.out_cols + x) * a.n] = finish_output(a, tile.outer, kScale * im[place]);
  }
}

template <int kSize, int kLanes>
__device__ __forceinline__ void fft_taps(const TileTapsArgs &a) {
  typedef FourierTile<kSize, kLanes> Tile;
  constexpr int kElements = 2 * Tile::kFrequencies;
  __shared__ float memory[Tile::kHalf * Tile::kPitch];
  const Tile part(memory);
  const int i = blockIdx.x * kLanes + part.lane;
  const bool inside = i < a.size;
  int filter;
  const int channel = a.by_filters.divide(min(i, a.size - 1), filter);
  const float *source = a.partials + (size_t)channel * kElements * a.by_filters.value + filter;
  float re[kSize], im[kSize];
  part.inverse(re, im, a.splits, [&](int split) {
    return FourierLoad{inside ? source + (size_t)split * kElements * a.size : NULL, (size_t)a.by_filters.value};
  });
  if (!inside) return;
  const int r = 2 * part.line;
#pragma unroll
  for (int s = 0; s < kSize; ++s)
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      if (r + j >= a.taps_y || s >= a.taps_x) continue;
      constexpr float kScale = 1.f / (kSize * kSize);
      const int place = reverse_bits<kSize>(s);
      const int target = ((channel * a.taps_y + r + j) * a.taps_x + s) * a.by_filters.value + filter;
      a.out[target] = a.copy[target] = kScale * (j == 0 ? re[place] : im[place]);
    }
}
