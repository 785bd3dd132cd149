// From bc01 to c01b and back: the transpose of a matrix.
//
// bc01 (N, C, H, W) is a matrix of N rows and C * H * W columns, c01b (C, H, W, N) its transpose. The source has `rows` x
// `cols`, the target `cols` x `rows`. With flip the rows and columns of each H x W image are reversed, which reverses the
// pixels in memory: where a matrix has them as rows (the target c01b, the source c01b) another row is written or read,
// so that adjacent floats stay adjacent.
//
// Tiles    kTile x kTile floats a block, 4 x 4 a thread, with kTile ** 2 / 16 threads: 4 loads of 16 bytes under way in
//          each, 16 KB a block for 64. Segments of 256 bytes on both sides. 32 is for sides and arrays that are small.
// Shared   the tile, already transposed, in units of 4 floats (4 source rows of one column); the unit's place in its row
//          is its number xor `swizzle`, so that 8 threads, which a 16-byte access serves at once, meet 8 places modulo 8.
// Thin     where one side has a few elements, a tile holds all of it: both sides are then one piece of memory, and lanes
//          go along that, whatever the row length.
// Limits   arrays under 2^31 elements. kVecCols = 4 (loads) wants cols, kVecRows = 4 (stores) rows divisible by 4, and
//          16-byte aligned arrays.

struct ShuffleArgs {
  const float *source;
  float *target;
  int rows;              // of the source
  int cols;
  int tile_rows;         // of the part that a block takes
  int tile_cols;
  int to_c01b;           // the rows are images; else the columns
  int flip;
  Divisor by_area;       // H * W
  Divisor by_rows;
  Divisor by_tile_rows;
  Divisor by_tile_cols;
  Divisor by_tiles;      // how many tiles there are along the images
};

// Where a row of the source lies, and one of the target.
__device__ __forceinline__ int flipped(const ShuffleArgs &a, int pixel, int flip) {
  if (!flip) return pixel;
  int place;
  a.by_area.divide(pixel, place);
  return pixel + a.by_area.value - 1 - 2 * place;
}

__device__ __forceinline__ int source_row(const ShuffleArgs &a, int row) {
  return flipped(a, row, a.flip && !a.to_c01b) * a.cols;
}

__device__ __forceinline__ int target_row(const ShuffleArgs &a, int col) {
  return flipped(a, col, a.flip && a.to_c01b) * a.rows;
}

// The block's tile. Blocks follow each other along the images: so neighbours write, or read, one piece of memory.
__device__ __forceinline__ void first_of_tile(const ShuffleArgs &a, int &row, int &col) {
  int along;
  const int across = a.by_tiles.divide(blockIdx.x, along);
  row = (a.to_c01b ? along : across) * a.tile_rows;
  col = (a.to_c01b ? across : along) * a.tile_cols;
}

template <int kTile, int kVecRows, int kVecCols>
__device__ __forceinline__ void shuffle_tiles(const ShuffleArgs &a) {
  const int kGroups = kTile / 4, kThreads = kGroups * kGroups;
  __shared__ float4 tile[kTile * kTile / 4];
  // Of a column of the tile, that is, a row in shared memory.
  const auto swizzle = [](int c) { return (kVecCols == 4 ? c / 4 : c) % 8; };
  int first_row, first_col;
  first_of_tile(a, first_row, first_col);
  if (kVecCols == 4) {
    const int c = threadIdx.x % kGroups * 4, group = threadIdx.x / kGroups;
    const int row = first_row + 4 * group, col = first_col + c;
    Values<4> values[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      values[k] = all_values<4>(0.f);
      if (row + k < a.rows && col < a.cols) values[k] = load_values<4>(a.source + source_row(a, row + k) + col);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k)
      tile[(c + k) * kGroups + (group ^ swizzle(c + k))] =
          make_float4(values[0].value[k], values[1].value[k], values[2].value[k], values[3].value[k]);
  } else {
    float values[4][4];
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const int unit = threadIdx.x + step * kThreads;
      const int row = first_row + unit / kTile * 4, col = first_col + unit % kTile;
#pragma unroll
      for (int k = 0; k < 4; ++k)
        values[step][k] = row + k < a.rows && col < a.cols ? a.source[source_row(a, row + k) + col] : 0.f;
    }
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const int unit = threadIdx.x + step * kThreads, c = unit % kTile, group = unit / kTile;
      tile[c * kGroups + (group ^ swizzle(c))] =
          make_float4(values[step][0], values[step][1], values[step][2], values[step][3]);
    }
  }
  __syncthreads();
  if (kVecRows == 4) {
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      const int unit = threadIdx.x + step * kThreads, c = unit / kGroups, group = unit % kGroups;
      const int row = first_row + 4 * group, col = first_col + c;
      if (row < a.rows && col < a.cols)
        *(float4 *)(a.target + target_row(a, col) + row) = tile[c * kGroups + (group ^ swizzle(c))];
    }
  } else {
    const float *const floats = (const float *)tile;
#pragma unroll
    for (int step = 0; step < 16; ++step) {
      const int place = threadIdx.x + step * kThreads, c = place / kTile, r = place % kTile;
      if (first_row + r < a.rows && first_col + c < a.cols)
        a.target[target_row(a, first_col + c) + first_row + r] =
            floats[4 * (c * kGroups + ((r / 4) ^ swizzle(c))) + r % 4];
    }
  }
}

// Tiles of tile_rows x tile_cols, of which the host knows that they fit: (tile_rows | 1) * tile_cols <= 4096.
__device__ __forceinline__ void shuffle_thin(const ShuffleArgs &a) {
  const int kThreads = 256, kBatch = 4;
  __shared__ float tile[4096];
  // Odd: adjacent columns lie in different banks.
  const int size = a.tile_rows * a.tile_cols, pitch = a.tile_rows | 1;
  int first_row, first_col;
  first_of_tile(a, first_row, first_col);
  for (int begin = threadIdx.x; begin < size; begin += kBatch * kThreads) {
    float values[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      int c;
      const int place = begin + k * kThreads, r = a.by_tile_cols.divide(place, c);
      const bool valid = place < size && first_row + r < a.rows && first_col + c < a.cols;
      values[k] = valid ? a.source[source_row(a, first_row + r) + first_col + c] : 0.f;
    }
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      int c;
      const int place = begin + k * kThreads, r = a.by_tile_cols.divide(place, c);
      if (place < size) tile[c * pitch + r] = values[k];
    }
  }
  __syncthreads();
#pragma unroll 4
  for (int place = threadIdx.x; place < size; place += kThreads) {
    int r;
    const int c = a.by_tile_rows.divide(place, r);
    if (first_row + r < a.rows && first_col + c < a.cols)
      a.target[target_row(a, first_col + c) + first_row + r] = tile[c * pitch + r];
  }
}

// One element a thread, in the target's order.
__device__ __forceinline__ void shuffle_plain(const ShuffleArgs &a) {
  const unsigned place = blockIdx.x * blockDim.x + threadIdx.x;
  if (place >= (unsigned)(a.rows * a.cols)) return;
  int row;
  const int col = a.by_rows.divide((int)place, row);
  a.target[target_row(a, col) + row] = a.source[source_row(a, row) + col];
}
