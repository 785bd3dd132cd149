// What the tiles' transforms share: winograd.cu and fft.cu. Both make of a tile's images, filters, outputs and gradients
// `elements` matrices, each of which is a product of its own, of filters with channels: correlate.cuh and weight_acts.cu compute
// them as that many groups.
//
// patches    images to elements, or gradients of the outputs to elements
// filters    filters to elements
// outputs    products to outputs
// taps       for the gradient of the filters: products to taps
//
// Adjacent lanes have adjacent images, or filters.

// Element i of an array (outer, y, x, last), where by_last, by_x and by_y know the sizes of the last three.
struct TilePlace {
  int outer, y, x, last;
  int rest;  // the index without `last`

  __device__ __forceinline__ TilePlace(int i, const Divisor &by_y, const Divisor &by_x, const Divisor &by_last) {
    rest = by_last.divide(i, last);
    outer = by_y.divide(by_x.divide(rest, x), y);
  }
};

// Rounded to 22 bits: then the two TF32 parts of a number (product.cuh) hold all of it, where else bits would be cut off.
__device__ __forceinline__ float two_tf32_parts(float value) {
  return value == value ? __uint_as_float((__float_as_uint(value) + 2u) & ~3u) : value;
}

struct TilePatchesArgs {
  const float *images;   // (channels, rows, cols, n)
  float *out;            // (elements, channels, tile rows, tile cols, padded n)
  int rows;
  int cols;
  int n;
  int pad_y;
  int pad_x;
  int step_y;            // from tile to tile: their outputs
  int step_x;
  int first_row;         // of the tiles: `out` may have some of their rows
  int size;              // channels * tile rows * tile cols * padded n
  Divisor by_n;          // padded n
  Divisor by_tile_cols;
  Divisor by_tile_rows;
};

struct TileFiltersArgs {
  const float *filters;  // (channels, taps_y, taps_x, source_stride): group g's are m columns from g * source_group on
  float *out;            // (channels, blocks_y, blocks_x, elements, groups, filter_group)
  int taps_y;
  int taps_x;
  int m;                 // filters of one group
  int source_stride;
  int source_group;
  int size;              // channels * blocks_y * blocks_x * groups * filter_group
  Divisor by_stride;     // groups * filter_group
  Divisor by_group;      // filter_group, divisible by 4: what m lacks is zeros
  Divisor by_blocks_x;
  Divisor by_blocks_y;
};

struct TileOutputsArgs {
  const float *products; // (elements, channels, tile rows, tile cols, padded n)
  float *out;            // (channels, out_rows, out_cols, n)
  int out_rows;
  int out_cols;
  int n;
  int step_y;            // from tile to tile: their outputs
  int step_x;
  int first_row;         // of the tiles
  int size;              // channels * tile rows * tile cols * padded n
  Divisor by_n;          // padded n
  Divisor by_tile_cols;
  Divisor by_tile_rows;
};

// What is stored of an output; another struct has another overload.
__device__ __forceinline__ float finish_output(const TileOutputsArgs &, int channel, float output) { return output; }

struct TileTapsArgs {
  const float *partials; // (splits, channels, blocks_y, blocks_x, elements, filters)
  float *out;            // (channels, taps_y, taps_x, filters)
  float *copy;           // of out
  int splits;
  int taps_y;
  int taps_x;
  int size;              // channels * blocks_y * blocks_x * filters
  Divisor by_filters;
  Divisor by_blocks_x;
  Divisor by_blocks_y;
};
