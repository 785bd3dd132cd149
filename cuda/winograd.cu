// Convolutions by Winograd's minimal filtering (Lavin and Gray, Fast algorithms for convolutional neural
// networks, 2016): a tile of kOutputs x kOutputs outputs under kTaps x kTaps taps takes kSize * kSize products, where kSize =
// kOutputs + kTaps - 1, in place of kOutputs^2 * kTaps^2.
//
//   outputs = At [sum over channels of (G filters Gt) * (Bt patch B)] A        * element by element
//
// Each element of the kSize x kSize matrices is a product of its own (tiles.cuh). The kernels here go into and out of that form:
//
// winograd_operands  images to Bt patch B, and filters to G filters Gt or gradients of the outputs to A gradient At
// winograd_outputs   products to outputs
// winograd_taps      products to Gt product G
//
// Filters with fewer taps are filled up with zeros.
//
// A thread transforms one tile of one image; adjacent threads have adjacent images.

template <int kOutputs, int kTaps>
struct WinogradTile;

// The matrices are Cook's and Toom's for the points named and infinity. More points save more products, and lose more
// digits; 2 with -1/2 loses a third less than 2 with -2.
template <>
struct WinogradTile<2, 3> {  // 0, 1, -1
  static constexpr int kOutputs = 2, kTaps = 3, kSize = 4;
  static __device__ __forceinline__ float a(int i, int j) {
    const float matrix[4][2] = {{1, 0}, {1, 1}, {1, -1}, {0, 1}};
    return matrix[i][j];
  }
  static __device__ __forceinline__ float b(int i, int j) {
    const float matrix[4][4] = {{-1, 0, 1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, -1, 0, 1}};
    return matrix[i][j];
  }
  static __device__ __forceinline__ float g(int i, int j) {
    const float matrix[4][3] = {{-1, 0, 0}, {0.5f, 0.5f, 0.5f}, {0.5f, -0.5f, 0.5f}, {0, 0, 1}};
    return matrix[i][j];
  }
};

template <>
struct WinogradTile<4, 3> {  // 0, 1, -1, 2, -1/2
  static constexpr int kOutputs = 4, kTaps = 3, kSize = 6;
  static __device__ __forceinline__ float a(int i, int j) {
    const float matrix[6][4] = {{1, 0, 0, 0}, {1, 1, 1, 1},               {1, -1, 1, -1},
                                {1, 2, 4, 8}, {1, -0.5f, 0.25f, -0.125f}, {0, 0, 0, 1}};
    return matrix[i][j];
  }
  static __device__ __forceinline__ float b(int i, int j) {
    const float matrix[6][6] = {{1, 1.5f, -2, -1.5f, 1, 0}, {0, -1, -2.5f, -0.5f, 1, 0}, {0, 1, 0.5f, -2.5f, 1, 0},
                                {0, -0.5f, -1, 0.5f, 1, 0}, {0, 2, -1, -2, 1, 0},        {0, 1, 1.5f, -2, -1.5f, 1}};
    return matrix[i][j];
  }
  static __device__ __forceinline__ float g(int i, int j) {
    const float matrix[6][3] = {{1, 0, 0},
                                {-1 / 3.f, -1 / 3.f, -1 / 3.f},
                                {1 / 3.f, -1 / 3.f, 1 / 3.f},
                                {1 / 15.f, 2 / 15.f, 4 / 15.f},
                                {-16 / 15.f, 8 / 15.f, -4 / 15.f},
                                {0, 0, 1}};
    return matrix[i][j];
  }
};

// out = M in, where element (i, j) of M, kRows x kCols, is matrix(i, j): known when it is compiled, so that no product with
// 0 or 1 is left.
template <int kRows, int kCols, typename Matrix>
__device__ __forceinline__ void transform_vector(Matrix matrix, const float (&in)[kCols], float (&out)[kRows]) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    out[i] = 0.f;
#pragma unroll
    for (int j = 0; j < kCols; ++j)
      if (matrix(i, j) != 0.f) out[i] += matrix(i, j) * in[j];
  }
}

// out = M in Mt.
template <int kRows, int kCols, typename Matrix>
__device__ __forceinline__ void transform(Matrix matrix, const float (&in)[kCols][kCols], float (&out)[kRows][kRows]) {
  float half[kCols][kRows];
#pragma unroll
  for (int row = 0; row < kCols; ++row) transform_vector<kRows, kCols>(matrix, in[row], half[row]);
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    float column[kCols], transformed[kRows];
#pragma unroll
    for (int j = 0; j < kCols; ++j) column[j] = half[j][i];
    transform_vector<kRows, kCols>(matrix, column, transformed);
#pragma unroll
    for (int row = 0; row < kRows; ++row) out[row][i] = transformed[row];
  }
}

template <typename Tile, bool kGradients>
__device__ __forceinline__ void winograd_patches(const TilePatchesArgs &a, int block) {
  constexpr int kPatch = kGradients ? Tile::kOutputs : Tile::kSize;
  const int i = block * blockDim.x + threadIdx.x;
  if (i >= a.size) return;
  const TilePatch from(a, i);
  float patch[kPatch][kPatch], transformed[Tile::kSize][Tile::kSize];
#pragma unroll
  for (int y = 0; y < kPatch; ++y)
#pragma unroll
    for (int x = 0; x < kPatch; ++x)
      patch[y][x] = from.has_row(a, y) && from.has_col(a, x) ? from.source[y * from.row_step + x * from.col_step] : 0.f;
  transform<Tile::kSize, kPatch>([](int r, int c) { return kGradients ? Tile::a(r, c) : Tile::b(r, c); }, patch,
                                 transformed);
#pragma unroll
  for (int e = 0; e < Tile::kSize * Tile::kSize; ++e)
    a.out[(size_t)e * a.size + i] = two_tf32_parts(transformed[e / Tile::kSize][e % Tile::kSize]);
}

template <typename Tile>
__device__ __forceinline__ void winograd_others(const TileOperandsArgs &a, int block) {
  constexpr int kElements = Tile::kSize * Tile::kSize;
  const int i = block * blockDim.x + threadIdx.x;
  if (i >= a.filters_size) return;
  int last, filter;
  const int outer = a.by_stride.divide(i, last);
  const TilePhase phase(outer, a.by_phases, a.by_phases_x);
  const int group = a.by_group.divide(last, filter);
  const float *source = a.filters + group * a.source_group + filter;
  float taps[Tile::kTaps][Tile::kTaps], transformed[Tile::kSize][Tile::kSize];
#pragma unroll
  for (int y = 0; y < Tile::kTaps; ++y)
#pragma unroll
    for (int x = 0; x < Tile::kTaps; ++x) {
      const int r = y * a.stride_y + phase.y, s = x * a.by_phases_x.value + phase.x;
      const bool inside = r < a.taps_y && s < a.taps_x && filter < a.m;
      taps[y][x] = inside ? source[((phase.channel * a.taps_y + r) * a.taps_x + s) * a.source_stride] : 0.f;
    }
  transform<Tile::kSize, Tile::kTaps>([](int r, int c) { return Tile::g(r, c); }, taps, transformed);
#pragma unroll
  for (int e = 0; e < kElements; ++e)
    a.filters_out[(outer * kElements + e) * a.by_stride.value + last] =
        two_tf32_parts(transformed[e / Tile::kSize][e % Tile::kSize]);
}

template <typename Tile>
__device__ __forceinline__ void winograd_others(const TileGradientOperandsArgs &a, int block) {
  winograd_patches<Tile, true>(gradient_patches(a), block);
}

template <typename Tile, typename Args>
__device__ __forceinline__ void winograd_operands(const Args &a) {
  const int block = blockIdx.x;
  if (block < a.patch_blocks)
    winograd_patches<Tile, false>(a, block);
  else
    winograd_others<Tile>(a, block - a.patch_blocks);
}

template <typename Tile, typename Args>
__device__ __forceinline__ void winograd_outputs(const Args &a) {
  constexpr int kOutputs = Tile::kOutputs;
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.size) return;
  const TileResult result(a, i);
  if (result.last >= a.n) return;
  float products[Tile::kSize][Tile::kSize], outputs[kOutputs][kOutputs];
#pragma unroll
  for (int e = 0; e < Tile::kSize * Tile::kSize; ++e)
    products[e / Tile::kSize][e % Tile::kSize] = a.products[(size_t)e * a.size + i];
  transform<kOutputs, Tile::kSize>([](int r, int c) { return Tile::a(c, r); }, products, outputs);
#pragma unroll
  for (int y = 0; y < kOutputs; ++y)
#pragma unroll
    for (int x = 0; x < kOutputs; ++x)
      if (result.has_row(a, y) && result.has_col(a, x))
        a.out[result.target + y * result.row_step + x * result.col_step] = finish_output(a, result.channel, outputs[y][x]);
}

template <typename Tile>
__device__ __forceinline__ void winograd_taps(const TileTapsArgs &a) {
  constexpr int kElements = Tile::kSize * Tile::kSize;
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= a.size) return;
  int filter;
  const int outer = a.by_filters.divide(i, filter);
  const TilePhase phase(outer, a.by_phases, a.by_phases_x);
  float products[Tile::kSize][Tile::kSize], taps[Tile::kTaps][Tile::kTaps];
#pragma unroll
  for (int e = 0; e < kElements; ++e) products[e / Tile::kSize][e % Tile::kSize] = 0.f;
  for (int split = 0; split < a.splits; ++split) {
    const float *partial = a.partials + (size_t)split * kElements * a.size;
#pragma unroll
    for (int e = 0; e < kElements; ++e)
      products[e / Tile::kSize][e % Tile::kSize] += partial[(outer * kElements + e) * a.by_filters.value + filter];
  }
  transform<Tile::kTaps, Tile::kSize>([](int r, int c) { return Tile::g(c, r); }, products, taps);
#pragma unroll
  for (int y = 0; y < Tile::kTaps; ++y)
#pragma unroll
    for (int x = 0; x < Tile::kTaps; ++x) {
      const int r = y * a.stride_y + phase.y, s = x * a.by_phases_x.value + phase.x;
      if (r < a.taps_y && s < a.taps_x) {
        const int target = ((phase.channel * a.taps_y + r) * a.taps_x + s) * a.by_filters.value + filter;
        a.out[target] = a.copy[target] = taps[y][x];
      }
    }
}
