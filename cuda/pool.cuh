// What the pooling kernels share. All are bound by memory: adjacent threads take adjacent images, so every access is
// coalesced, and what overlapping windows read again comes from the caches.
//
// A window covers ds_y x ds_x pixels from (start_y + y * stride_y, start_x + x * stride_x), clipped to the image.
// Template constants: kVec (1 or 4) adjacent images are a thread's; kDs and kStride are the window and the stride, for
// rows and columns, where they are known when the kernel is compiled, else 0. Known ones let the compiler have all loads of
// a window under way at once, which is what a scalar kernel lacks most: one load a thread moved 44 % of a copy's rate.
// Limits   arrays under 2^31 elements. kVec = 4 wants n divisible by 4 and 16-byte aligned arrays; 1 takes everything.

struct PoolGeometry {
  int rows;             // of the images, (channels, rows, cols, n)
  int cols;
  int n;
  int out_rows;         // of the outputs, (channels, out_rows, out_cols, n)
  int out_cols;
  int ds_y;
  int ds_x;
  int stride_y;
  int stride_x;
  int start_y;
  int start_x;
  int shift_y;          // tiles before the one of window 0; see TilePosition
  int shift_x;
  int tile_rows;        // tiles in a column of them
  int chunk;            // of these, how many a thread goes through
  int size;             // threads that have something to do
  Divisor by_copies;    // n / kVec
  Divisor by_width;     // threads' columns: of outputs, of pixels or of tiles
  Divisor by_height;    // their rows
};

// What a thread works on: images from `image` on, and a place in a grid of outputs, pixels or tiles.
struct PoolPosition {
  int image, x, y, channel;
};

__device__ __forceinline__ PoolPosition pool_position(const PoolGeometry &g, int i, int vec) {
  PoolPosition p;
  const int pixel = g.by_copies.divide(i, p.image);
  const int row = g.by_width.divide(pixel, p.x);
  p.channel = g.by_height.divide(row, p.y);
  p.image *= vec;
  return p;
}

// The first of the images of a channel, and that of an output's.
__device__ __forceinline__ int image_offset(const PoolGeometry &g, const PoolPosition &p) {
  return p.channel * g.rows * g.cols * g.n + p.image;
}

__device__ __forceinline__ int output_offset(const PoolGeometry &g, const PoolPosition &p, int oy, int ox) {
  return ((p.channel * g.out_rows + oy) * g.out_cols + ox) * g.n + p.image;
}

// A pixel of a window: its number, row by row, and where it is from the first of the images on.
struct WindowPixel {
  int number;
  int offset;
};

// The values of window (oy, ox): in registers where kDs is known, else read anew by each for_each.
template <int kVec, int kDs>
struct Window {
  const float *image;
  int rows, cols, n, top, left, ds_y, ds_x;
  Values<kVec> values[kDs > 0 ? kDs * kDs : 1];

  __device__ __forceinline__ Window(const PoolGeometry &g, const float *images, int oy, int ox)
      : image(images), rows(g.rows), cols(g.cols), n(g.n), top(g.start_y + oy * g.stride_y),
        left(g.start_x + ox * g.stride_x), ds_y(kDs > 0 ? kDs : g.ds_y), ds_x(kDs > 0 ? kDs : g.ds_x) {
    if (kDs > 0) {
      // Pixels outside are replaced by the nearest inside, so that no load waits for a branch.
#pragma unroll
      for (int i = 0; i < kDs * kDs; ++i) {
        const int y = min(max(top + i / max(kDs, 1), 0), rows - 1), x = min(max(left + i % max(kDs, 1), 0), cols - 1);
        values[i] = load_values<kVec>(image + (y * cols + x) * n);
      }
    }
  }

  // Calls visit(pixel, values) for the pixels inside the image, row by row.
  template <typename Visit>
  __device__ __forceinline__ void for_each(Visit visit) const {
    if (kDs > 0 && top >= 0 && top + kDs <= rows && left >= 0 && left + kDs <= cols) {
      // Most windows: no tests of pixels.
#pragma unroll
      for (int i = 0; i < kDs * kDs; ++i) {
        const WindowPixel pixel = {i, ((top + i / max(kDs, 1)) * cols + left + i % max(kDs, 1)) * n};
        visit(pixel, values[i]);
      }
    } else if (kDs > 0) {
#pragma unroll
      for (int i = 0; i < kDs * kDs; ++i) {
        const int y = top + i / max(kDs, 1), x = left + i % max(kDs, 1);
        const WindowPixel pixel = {i, (y * cols + x) * n};
        if ((unsigned)y < (unsigned)rows && (unsigned)x < (unsigned)cols) visit(pixel, values[i]);
      }
    } else {
      const int x_begin = max(left, 0), x_end = min(left + ds_x, cols), y_end = min(top + ds_y, rows);
      for (int y = max(top, 0); y < y_end; ++y)
        for (int x = x_begin; x < x_end; ++x) {
          const WindowPixel pixel = {(y - top) * ds_x + x - left, (y * cols + x) * n};
          visit(pixel, load_values<kVec>(image + pixel.offset));
        }
    }
  }

  // Where the values are in registers, replaces each by change(value, j).
  template <typename Change>
  __device__ __forceinline__ void replace(Change change) {
    if (kDs > 0) {
#pragma unroll
      for (int i = 0; i < kDs * kDs; ++i)
#pragma unroll
        for (int j = 0; j < kVec; ++j) values[i].value[j] = change(values[i].value[j], j);
    }
  }

  // The values of a pixel that another window's for_each named.
  __device__ __forceinline__ Values<kVec> at(const WindowPixel &pixel) const {
    return kDs > 0 ? values[pixel.number] : load_values<kVec>(image + pixel.offset);
  }

  // Pixels inside the image.
  __device__ __forceinline__ int count() const {
    return (min(top + ds_y, rows) - max(top, 0)) * (min(left + ds_x, cols) - max(left, 0));
  }
};

// A NaN stays, wherever in the window it lies.
__device__ __forceinline__ float larger(float best, float value) {
  return value > best || value != value ? value : best;
}

template <int kVec, int kDs>
__device__ __forceinline__ Values<kVec> window_max(const Window<kVec, kDs> &window) {
  Values<kVec> best = all_values<kVec>(-__int_as_float(0x7f800000));
  window.for_each([&](const WindowPixel &, const Values<kVec> &v) {
#pragma unroll
    for (int j = 0; j < kVec; ++j) best.value[j] = larger(best.value[j], v.value[j]);
  });
  return best;
}

// ---- gradients: from windows to pixels
//
// Op says what a window's gradient is to a pixel:
//   Op::kReadsImages                     whether a pixel's value matters
//   Op::Top                              what is kept of a window's outputs and gradients
//   op.load(oy, ox, offset)              a Top, of the outputs from `offset` on
//   op.none()                            the Top of a window that does not exist
//   op.add(sum, pixel, top, i)           adds that of a window of which the pixel is number i, row by row
// Each pixel's sum is taken in one order, by one thread: no atomics.

// A thread has one pixel, and looks at every window that it lies in.
template <int kVec, typename Op>
__device__ __forceinline__ void pool_grad_pixels(const PoolGeometry &g, const Op &op, const float *images, float *out) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= g.size) return;
  const PoolPosition p = pool_position(g, i, kVec);
  const int y = p.y - g.start_y, x = p.x - g.start_x;
  // Windows that reach this pixel: first_y * stride > y - ds, last_y * stride <= y.
  const int first_y = y < g.ds_y ? 0 : (y - g.ds_y) / g.stride_y + 1;
  const int first_x = x < g.ds_x ? 0 : (x - g.ds_x) / g.stride_x + 1;
  const int last_y = y < 0 ? -1 : min(y / g.stride_y, g.out_rows - 1);
  const int last_x = x < 0 ? -1 : min(x / g.stride_x, g.out_cols - 1);
  const int offset = i * kVec;
  Values<kVec> pixel = all_values<kVec>(0.f), sum = all_values<kVec>(0.f);
  if (Op::kReadsImages) pixel = load_values<kVec>(images + offset);
  for (int oy = first_y; oy <= last_y; ++oy)
    for (int ox = first_x; ox <= last_x; ++ox)
      op.add(sum, pixel, op.load(oy, ox, output_offset(g, p, oy, ox)),
             (y - oy * g.stride_y) * g.ds_x + x - ox * g.stride_x);
  store_values<kVec>(out + offset, sum);
}

// The pixels in tiles of stride x stride, one a window, whose upper left pixel is its tile's; more tiles, if start > 0,
// lie before that of window 0. A thread goes down a column of `chunk` tiles and keeps in registers the windows that
// reach into the next one, so that outputs and gradients are read 1 + 1 / chunk times, not once a pixel row.
template <int kVec, int kDs, int kStride, typename Op>
__device__ __forceinline__ void pool_grad_tiles(const PoolGeometry &g, const Op &op, const float *images, float *out) {
  const int kReach = (kDs - 1) / kStride;  // how many windows before the tile's own reach into it, in a direction
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= g.size) return;
  const PoolPosition p = pool_position(g, i, kVec);
  const int first = image_offset(g, p);
  const int left = g.start_x + (p.x - g.shift_x) * kStride;
  const int begin = p.y * g.chunk, end = min(begin + g.chunk, g.tile_rows);
  typename Op::Top tops[kReach + 1][kReach + 1];
  for (int tile = begin - kReach; tile < end; ++tile) {
    const int oy = tile - g.shift_y, y = g.start_y + oy * kStride;
    Values<kVec> pixels[kStride][kStride];
    if (Op::kReadsImages && tile >= begin) {
#pragma unroll
      for (int r = 0; r < kStride; ++r)
#pragma unroll
        for (int c = 0; c < kStride; ++c) {
          const int py = min(max(y + r, 0), g.rows - 1), px = min(max(left + c, 0), g.cols - 1);
          pixels[r][c] = load_values<kVec>(images + first + (py * g.cols + px) * g.n);
        }
    }
#pragma unroll
    for (int l = 0; l <= kReach; ++l) {
#pragma unroll
      for (int k = 0; k < kReach; ++k) tops[k][l] = tops[k + 1][l];
      const int ox = p.x - g.shift_x - kReach + l;
      if (oy >= 0 && oy < g.out_rows && ox >= 0 && ox < g.out_cols)
        tops[kReach][l] = op.load(oy, ox, output_offset(g, p, oy, ox));
      else
        tops[kReach][l] = op.none();
    }
    if (tile < begin) continue;
#pragma unroll
    for (int r = 0; r < kStride; ++r)
#pragma unroll
      for (int c = 0; c < kStride; ++c) {
        Values<kVec> sum = all_values<kVec>(0.f);
#pragma unroll
        for (int k = 0; k <= kReach; ++k)
#pragma unroll
          for (int l = 0; l <= kReach; ++l) {
            const int dy = r + (kReach - k) * kStride, dx = c + (kReach - l) * kStride;
            if (dy < kDs && dx < kDs) op.add(sum, pixels[r][c], tops[k][l], dy * kDs + dx);
          }
        if (y + r >= 0 && y + r < g.rows && left + c >= 0 && left + c < g.cols)
          store_values<kVec>(out + first + ((y + r) * g.cols + left + c) * g.n, sum);
      }
  }
}

// What a window's gradient goes by, the maximum or the drawn position, and the gradient.
template <int kVec, typename T>
struct KeyedTop {
  Values<kVec, T> key;
  Values<kVec> grad;
};
