// The products of Fourier transforms (fft.cu), which are complex numbers. Each frequency of each group is a product of matrices:
//
// fft_products            out[m, column] = sum over channels of  filters[channel, m] * images[channel, column]
// fft_gradient_products   out[channel, f] = sum over columns of  images[channel, column] * gradients[f, column]
//
// column  (tile, image), image fastest; divisible by 4
//
// Block   Product::kTileM x Product::kTileN complex sums, of one tile after another: there are as many blocks as the card holds.
//         The loads of the next tile are under way while the last steps of one are multiplied and its sums are stored, since
//         sums of 64 products are short beside the time of the first loads.
// Shared  kStages * 32 * (kTileM + kTileN) floats.
// Limits  arrays under 2^31 elements, addresses divisible by 16.

struct FftProductsArgs {
  const float *filters;  // (channels, frequencies, 2, groups, filter_group)
  const float *images;   // (frequencies, 2, groups, channels, columns)
  float *out;            // (frequencies, 2, groups, m, columns)
  int channels;          // of one group
  int m;                 // filters of one group
  int filter_group;      // m, with zeros behind it, divisible by 4
  int filter_stride;     // frequencies * 2 * groups * filter_group
  int columns;
  int tiles;             // of sums
  Divisor by_m_tiles;
  Divisor by_column_tiles;
  Divisor by_groups;
};

// The tiles that a block multiplies, and the copies of their operands to shared memory: load(step, stage) copies those of one of
// a tile's `steps`; begin(tile) says that the loads of another tile begin, of which there is none from number `tiles` on: zeros.
// finish(tile) stores the sums and clears them. kEarly: the copies are begun before the operands of a step's products are read, not
// after (product.cuh); either is the faster for one of the kernels.
template <int kStages, bool kEarly, typename Product, typename A, typename B, typename Sum, typename Begin, typename Load,
          typename Finish>
__device__ __forceinline__ void multiply_tiles(const Product &product, const A (&a)[kStages], const B (&b)[kStages], Sum &sum,
                                               int tiles, int steps, Begin begin, Load load, Finish finish) {
  int next_tile = blockIdx.x, next_step = 0;
  const auto choose_next = [&] {
    if (next_step == 0) begin(next_tile);
  };
  const auto load_next = [&](int stage) {
    load(next_step, stage);
    commit_copies();
    const bool last = ++next_step == steps;
    next_step = last ? 0 : next_step;
    next_tile += last ? gridDim.x : 0;
  };
#pragma unroll
  for (int stage = 0; stage < kStages - 1; ++stage) {
    choose_next();
    load_next(stage);
  }
  int stage = 0;
  for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    for (int step = 0; step < steps; ++step) {
      wait_for_copies<kStages - 2>();
      // Also keeps a fast warp from overwriting the stage that a slow one still multiplies.
      __syncthreads();
      choose_next();
      const int free_stage = stage == 0 ? kStages - 1 : stage - 1;
      if (kEarly) load_next(free_stage);
      product.multiply_complex(a[stage], b[stage], sum, [&] {
        if (!kEarly) load_next(free_stage);
      });
      stage = stage == kStages - 1 ? 0 : stage + 1;
    }
    finish(tile);
  }
}

template <typename Product, int kStages>
__device__ __forceinline__ void fft_products(const FftProductsArgs &a) {
  constexpr int kTileM = Product::kTileM, kTileN = Product::kTileN, kThreads = Product::kThreads, kDepth = 16;
  __shared__ __align__(16) float filter_tile[kStages][2][kDepth][kTileM];
  __shared__ __align__(16) float image_tile[kStages][2][kDepth][kTileN];
  const int thread = threadIdx.x;
  const int groups = a.by_groups.value;

  struct Place {
    int m, column, group, frequency;
  };
  const auto place_of = [&](int tile) {
    Place place;
    const int rest = a.by_m_tiles.divide(tile, place.m);
    place.frequency = a.by_groups.divide(a.by_column_tiles.divide(rest, place.column), place.group);
    place.m *= kTileM;
    place.column *= kTileN;
    return place;
  };

  // Of the real parts; those of the imaginary ones lie so much further.
  const float *filters, *images;
  const int filter_part = groups * a.filter_group, image_part = groups * a.channels * a.columns;
  int filters_left, columns_left;
  const auto begin = [&](int tile) {
    const Place place = place_of(tile);
    filters = a.filters + (2 * place.frequency * groups + place.group) * a.filter_group + place.m;
    images = a.images + (2 * place.frequency * groups + place.group) * a.channels * a.columns + place.column;
    filters_left = a.filter_group - place.m;
    columns_left = tile < a.tiles ? a.columns - place.column : 0;
    if (tile >= a.tiles) filters_left = 0;
  };
  const auto load = [&](int step, int stage) {
#pragma unroll
    for (int i = 0; i < (2 * kDepth * kTileM / 4 + kThreads - 1) / kThreads; ++i) {
      const int copy = thread + i * kThreads;
      const int m = copy % (kTileM / 4) * 4, row = copy / (kTileM / 4) % kDepth, part = copy / (kTileM / 4 * kDepth);
      if (2 * kDepth * kTileM / 4 % kThreads != 0 && part > 1) continue;
      const int channel = step * kDepth + row;
      copy_or_zero<4>(&filter_tile[stage][part][row][m ^ Product::swizzle_m(row)],
                      filters + channel * a.filter_stride + part * filter_part + m,
                      channel < a.channels && m < filters_left);
    }
#pragma unroll
    for (int i = 0; i < (2 * kDepth * kTileN / 4 + kThreads - 1) / kThreads; ++i) {
      const int copy = thread + i * kThreads;
      const int n = copy % (kTileN / 4) * 4, row = copy / (kTileN / 4) % kDepth, part = copy / (kTileN / 4 * kDepth);
      if (2 * kDepth * kTileN / 4 % kThreads != 0 && part > 1) continue;
      const int channel = step * kDepth + row;
      copy_or_zero<4>(&image_tile[stage][part][row][n ^ Product::swizzle_n(row)],
                      images + channel * a.columns + part * image_part + n, channel < a.channels && n < columns_left);
    }
  };

  const Product product(thread);
  float sum[2][Product::kRows][Product::kPieces][4];
  const auto clear = [&] {
#pragma unroll
    for (int i = 0; i < 8 * Product::kRows * Product::kPieces; ++i) (&sum[0][0][0][0])[i] = 0.f;
  };
  clear();
  multiply_tiles<kStages, true>(
      product, filter_tile, image_tile, sum, a.tiles, (a.channels + kDepth - 1) / kDepth, begin, load, [&](int tile) {
        const Place place = place_of(tile);
        float *out = a.out + (2 * place.frequency * groups + place.group) * a.m * a.columns + place.column;
#pragma unroll
        for (int part = 0; part < 2; ++part)
#pragma unroll
          for (int i = 0; i < Product::kRows; ++i) {
            const int m = place.m + product.row(i);
#pragma unroll
            for (int piece = 0; piece < Product::kPieces; ++piece) {
              const float *value = sum[part][i][piece];
              const int column = product.column(piece);
              if (m < a.m && place.column + column < a.columns)
                *(float4 *)(out + (part * groups * a.m + m) * a.columns + column) =
                    make_float4(value[0], value[1], value[2], value[3]);
            }
          }
        clear();
      });
}

struct FftGradientProductsArgs {
  const float *images;     // (frequencies, 2, groups, channels, columns)
  const float *gradients;  // (frequencies, 2, groups, filters, columns)
  float *out;              // (splits, channels, frequencies, 2, groups, filters)
  int channels;            // of one group
  int filters;             // of one group
  int columns;
  int split_length;        // columns of one split, divisible by 16
  int tiles;               // of sums
  Divisor by_m_tiles;
  Divisor by_n_tiles;
  Divisor by_groups;
  Divisor by_frequencies;
};

template <typename Product, int kStages>
__device__ __forceinline__ void fft_gradient_products(const FftGradientProductsArgs &a) {
  constexpr int kTileM = Product::kTileM, kTileN = Product::kTileN, kThreads = Product::kThreads, kDepth = 16;
  constexpr int kRowsAtOnce = kThreads / (kDepth / 4);
  __shared__ __align__(16) float image_tile[kStages][2][kTileM][kDepth];
  __shared__ __align__(16) float gradient_tile[kStages][2][kTileN][kDepth];
  const int thread = threadIdx.x;
  const int groups = a.by_groups.value;

  struct Place {
    int m, n, group, frequency, split;
  };
  const auto place_of = [&](int tile) {
    Place place;
    const int rest = a.by_n_tiles.divide(a.by_m_tiles.divide(tile, place.m), place.n);
    place.split = a.by_frequencies.divide(a.by_groups.divide(rest, place.group), place.frequency);
    place.m *= kTileM;
    place.n *= kTileN;
    return place;
  };

  const int copy_row = thread / (kDepth / 4), copy_column = thread % (kDepth / 4) * 4;
  const float *images, *gradients;
  const int image_part = groups * a.channels * a.columns, gradient_part = groups * a.filters * a.columns;
  int channels_left, filters_left, columns_left;
  const auto begin = [&](int tile) {
    const Place place = place_of(tile);
    const int group = 2 * place.frequency * groups + place.group, column = place.split * a.split_length;
    images = a.images + (group * a.channels + place.m) * a.columns + column;
    gradients = a.gradients + (group * a.filters + place.n) * a.columns + column;
    channels_left = a.channels - place.m;
    filters_left = a.filters - place.n;
    columns_left = tile < a.tiles ? min(a.columns - column, a.split_length) : 0;
  };
  const auto load = [&](int step, int stage) {
    const int column = step * kDepth + copy_column;
#pragma unroll
    for (int part = 0; part < 2; ++part) {
#pragma unroll
      for (int i = 0; i < (kTileM + kRowsAtOnce - 1) / kRowsAtOnce; ++i) {
        const int m = copy_row + i * kRowsAtOnce;
        if (kTileM % kRowsAtOnce != 0 && m >= kTileM) continue;
        copy_or_zero<4>(&image_tile[stage][part][m][copy_column], images + part * image_part + m * a.columns + column,
                        m < channels_left && column < columns_left);
      }
#pragma unroll
      for (int i = 0; i < (kTileN + kRowsAtOnce - 1) / kRowsAtOnce; ++i) {
        const int n = copy_row + i * kRowsAtOnce;
        if (kTileN % kRowsAtOnce != 0 && n >= kTileN) continue;
        copy_or_zero<4>(&gradient_tile[stage][part][n][copy_column],
                        gradients + part * gradient_part + n * a.columns + column,
                        n < filters_left && column < columns_left);
      }
    }
  };

  const Product product(thread);
  float sum[2][Product::kRows][Product::kColumns];
  const auto clear = [&] {
#pragma unroll
    for (int i = 0; i < 2 * Product::kRows * Product::kColumns; ++i) (&sum[0][0][0])[i] = 0.f;
  };
  clear();
  const bool whole = a.filters % 4 == 0;
  multiply_tiles<kStages, kStages == 2>(
      product, image_tile, gradient_tile, sum, a.tiles, (a.split_length + kDepth - 1) / kDepth, begin, load, [&](int tile) {
        const Place place = place_of(tile);
#pragma unroll
        for (int i = 0; i < Product::kRows; ++i) {
          const int m = place.m + product.row(i);
          if (m >= a.channels) continue;
          const int frequency = (place.split * a.channels + m) * a.by_frequencies.value + place.frequency;
#pragma unroll
          for (int part = 0; part < 2; ++part) {
            float *out = a.out + ((2 * frequency + part) * groups + place.group) * a.filters;
#pragma unroll
            for (int j = 0; j < Product::kColumns; j += 4) {
              const int n = place.n + product.column(j);
              const float *value = &sum[part][i][j];
              if (whole && n < a.filters) *(float4 *)(out + n) = make_float4(value[0], value[1], value[2], value[3]);
#pragma unroll
              for (int e = 0; e < 4; ++e)
                if (!whole && n + e < a.filters) out[n + e] = value[e];
            }
          }
        }
        clear();
      });
}
