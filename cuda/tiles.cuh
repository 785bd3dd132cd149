// What the tiles' transforms share: winograd.cu and fft.cu. Both make of a tile's images, filters, outputs and gradients
// `elements` matrices, each of which is a product of its own, of filters with channels: correlate.cuh and weight_acts.cu compute
// them as that many groups.
//
// operands   images and filters to elements, or images and gradients of the outputs
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

// A channel and a phase of the stride. With a stride, a correlation is a sum of correlations without one, of every stride-th
// pixel, beginning at each phase, with every stride-th tap: so many channels more.
struct TilePhase {
  int channel, y, x;

  __device__ __forceinline__ TilePhase(int outer, const Divisor &by_phases, const Divisor &by_phases_x) {
    int phase;
    channel = by_phases.divide(outer, phase);
    y = by_phases_x.divide(phase, x);
  }
};

struct TilePatchesArgs {
  const float *images;   // (channels, rows, cols, n)
  float *out;            // (elements, channels, phases, tile rows, tile cols, padded n)
  int rows;
  int cols;
  int n;
  int pad_y;
  int pad_x;
  int stride_y;
  int step_y;            // from tile to tile: their outputs
  int step_x;
  int first_row;         // of the tiles: `out` may have some of their rows
  int size;              // of an element
  Divisor by_n;          // padded n
  Divisor by_tile_cols;
  Divisor by_tile_rows;
  Divisor by_phases;     // stride_y * stride_x
  Divisor by_phases_x;   // stride_x
};

// A tile's first pixel in the images.
struct TilePatch {
  int row, col, last;
  const float *source;
  int row_step, col_step;  // from one of the tile's pixels to the next

  __device__ __forceinline__ TilePatch(const TilePatchesArgs &a, int i) {
    const TilePlace tile(i, a.by_tile_rows, a.by_tile_cols, a.by_n);
    const TilePhase phase(tile.outer, a.by_phases, a.by_phases_x);
    last = tile.last;
    row = (tile.y + a.first_row) * a.step_y * a.stride_y + phase.y - a.pad_y;
    col = tile.x * a.step_x * a.by_phases_x.value + phase.x - a.pad_x;
    source = a.images + ((phase.channel * a.rows + row) * a.cols + col) * a.n + last;
    row_step = a.stride_y * a.cols * a.n;
    col_step = a.by_phases_x.value * a.n;
  }
  __device__ __forceinline__ bool has_row(const TilePatchesArgs &a, int y) const {
    return last < a.n && (unsigned)(row + y * a.stride_y) < (unsigned)a.rows;
  }
  __device__ __forceinline__ bool has_col(const TilePatchesArgs &a, int x) const {
    return (unsigned)(col + x * a.by_phases_x.value) < (unsigned)a.cols;
  }
};

// Both operands of a product, transformed by one kernel: blocks from patch_blocks on have filters, or gradients of the outputs.
struct TileOperandsArgs : TilePatchesArgs {
  const float *filters;  // (channels, taps_y, taps_x, source_stride): group g's are m columns from g * source_group on
  float *filters_out;    // (channels, phases, elements, groups, filter_group)
  int patch_blocks;
  int taps_y;
  int taps_x;
  int m;                 // filters of one group
  int source_stride;
  int source_group;
  int filters_size;      // channels * phases * groups * filter_group
  Divisor by_stride;     // groups * filter_group
  Divisor by_group;      // filter_group, divisible by 4: what m lacks is zeros
};

struct TileGradientOperandsArgs : TilePatchesArgs {
  const float *gradients;  // (filters, out_rows, out_cols, n)
  float *gradients_out;    // (elements, filters, tile rows, tile cols, padded n)
  int patch_blocks;
  int out_rows;
  int out_cols;
  int gradients_size;      // of an element
};

// The gradients as images without padding and stride.
__device__ __forceinline__ TilePatchesArgs gradient_patches(const TileGradientOperandsArgs &a) {
  TilePatchesArgs result = a;
  result.images = a.gradients;
  result.out = a.gradients_out;
  result.rows = a.out_rows;
  result.cols = a.out_cols;
  result.pad_y = result.pad_x = 0;
  result.stride_y = 1;
  result.size = a.gradients_size;
  result.by_phases = result.by_phases_x = Divisor{1, 0, 0};
  return result;
}

struct TileOutputsArgs {
  const float *products; // (elements, channels, phases, tile rows, tile cols, padded n)
  float *out;            // (channels, out_rows, out_cols, n)
  int out_rows;
  int out_cols;
  int n;
  int step_y;            // from tile to tile: their outputs
  int step_x;
  int first_row;         // of the tiles
  int phases_y;          // outputs of a tile are so many pixels apart, and those of phase 0 begin at base_y
  int base_y;
  int base_x;
  int size;              // of an element
  Divisor by_n;          // padded n
  Divisor by_tile_cols;
  Divisor by_tile_rows;
  Divisor by_phases;     // phases_y * phases_x
  Divisor by_phases_x;   // phases_x
};

// A tile's first output.
struct TileResult {
  int row, col, last, channel, target;
  int row_step, col_step;  // from one of the tile's outputs to the next

  __device__ __forceinline__ TileResult(const TileOutputsArgs &a, int i) {
    const TilePlace tile(i, a.by_tile_rows, a.by_tile_cols, a.by_n);
    const TilePhase phase(tile.outer, a.by_phases, a.by_phases_x);
    last = tile.last;
    channel = phase.channel;
    row = (tile.y + a.first_row) * a.step_y * a.phases_y + phase.y + a.base_y;
    col = tile.x * a.step_x * a.by_phases_x.value + phase.x + a.base_x;
    target = ((channel * a.out_rows + row) * a.out_cols + col) * a.n + last;
    row_step = a.phases_y * a.out_cols * a.n;
    col_step = a.by_phases_x.value * a.n;
  }
  __device__ __forceinline__ bool has_row(const TileOutputsArgs &a, int y) const {
    return last < a.n && (unsigned)(row + y * a.phases_y) < (unsigned)a.out_rows;
  }
  __device__ __forceinline__ bool has_col(const TileOutputsArgs &a, int x) const {
    return (unsigned)(col + x * a.by_phases_x.value) < (unsigned)a.out_cols;
  }
};

// What is stored of an output; another struct has another overload.
__device__ __forceinline__ float finish_output(const TileOutputsArgs &, int channel, float output) { return output; }

struct TileTapsArgs {
  const float *partials; // (splits, channels, phases, elements, filters)
  float *out;            // (channels, taps_y, taps_x, filters)
  float *copy;           // of out
  int splits;
  int taps_y;
  int taps_x;
  int stride_y;
  int size;              // channels * phases * filters
  Divisor by_filters;
  Divisor by_phases;     // stride_y * stride_x
  Divisor by_phases_x;   // stride_x
};
