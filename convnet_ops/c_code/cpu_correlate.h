// The correlation of cuda/correlate.cuh on the CPU, for FilterActs and ImageActs.
//
// A thread computes a tile of kColumns columns (see cuda/correlate.cuh) for all output channels of a group. It gathers
// the tile's image values for up to kDepth taps into a panel, where padding, small batches and the last tile need no
// further care, leaves out the taps that see nothing but padding (more than half of them in a small layer's gradient), and
// multiplies the panel with the filters, which are packed once into blocks of kRows.
#ifndef CONVNET_OPS_CPU_CORRELATE_H
#define CONVNET_OPS_CPU_CORRELATE_H

#include <cstdlib>
#include <cstring>
#include <new>
#include <vector>

#include "conv_shape.h"
#include "cpu_vector.h"

template <typename T>
struct CorrelateTile {
  typedef typename VectorOf<T>::type Vector;
  static const int kLanes = VectorOf<T>::lanes;
  static const int kVectors = 2;
  static const int kColumns = kVectors * kLanes;
  // Sums take 16 of 32 registers with AVX-512 (8 rows leave none empty for most nets' filters), 12 of 16 with AVX.
  static const int kRows = CONVNET_VECTOR_BYTES == 64 ? 8 : CONVNET_VECTOR_BYTES == 32 ? 6 : 4;
  static const int kDepth = 256;  // the panel then stays in the first-level cache
};

// sums[kRows][kColumns] (+)= sum over i < count of filters[taps[i]][kRows] * panel[i][kColumns]
template <typename T>
static inline void multiply_panel(int count, const int *taps, const T *filters, const T *panel, T *sums, bool add) {
  typedef CorrelateTile<T> Tile;
  typedef typename Tile::Vector Vector;
  Vector sum[Tile::kRows][Tile::kVectors];
  for (int i = 0; i < Tile::kRows; ++i)
    for (int j = 0; j < Tile::kVectors; ++j) sum[i][j] = Vector{};
  for (int k = 0; k < count; ++k) {
    const T *filter = filters + taps[k] * Tile::kRows;
    Vector value[Tile::kVectors];
    for (int j = 0; j < Tile::kVectors; ++j)
      value[j] = *(const Vector *)(panel + k * Tile::kColumns + j * Tile::kLanes);
    for (int i = 0; i < Tile::kRows; ++i)
      for (int j = 0; j < Tile::kVectors; ++j) sum[i][j] += filter[i] * value[j];
  }
  for (int i = 0; i < Tile::kRows; ++i)
    for (int j = 0; j < Tile::kVectors; ++j) {
      Vector *target = (Vector *)(sums + i * Tile::kColumns + j * Tile::kLanes);
      *target = add ? *target + sum[i][j] : sum[i][j];
    }
}

// Adjacent images of one grid pixel, within a tile. (y, x) is where the pixel's taps begin in the source images, and
// offset the place of that value, which may lie in the padding.
struct ColumnRun {
  int begin, length;
  npy_int64 grid_y, grid_x, image;
  npy_int64 y, x, offset;
};

template <typename T>
static int split_into_runs(const Correlation &c, npy_int64 first, ColumnRun *runs) {
  const npy_int64 columns = correlation_columns(&c);
  const int count = (int)(columns - first < CorrelateTile<T>::kColumns ? columns - first : CorrelateTile<T>::kColumns);
  int n_runs = 0;
  for (int begin = 0; begin < count;) {
    const npy_int64 pixel = (first + begin) / c.n, image = (first + begin) % c.n;
    const int length = (int)(c.n - image < count - begin ? c.n - image : count - begin);
    ColumnRun *run = &runs[n_runs++];
    run->begin = begin;
    run->length = length;
    run->grid_y = pixel / c.grid_cols;
    run->grid_x = pixel % c.grid_cols;
    run->image = image;
    run->y = run->grid_y * c.stride_y - c.pad_y;
    run->x = run->grid_x * c.stride_x - c.pad_x;
    run->offset = (run->y * c.cols + run->x) * c.n + image;
    begin += length;
  }
  return n_runs;
}

// Gathers the taps k_begin ... k_end - 1 that see any pixel: taps[i] is such a tap, less k_begin, and panel[i] its values;
// columns past the last run are zero. Returns how many there are.
template <typename T>
static int gather_panel(const Correlation &c, const T *images, const ColumnRun *runs, int n_runs, npy_int64 k_begin,
                        npy_int64 k_end, int *taps, T *panel) {
  const int kColumns = CorrelateTile<T>::kColumns;
  npy_int64 s = k_begin % c.taps_x, r = k_begin / c.taps_x % c.taps_y, channel = k_begin / c.taps_x / c.taps_y;
  const bool whole_tile = runs[n_runs - 1].begin + runs[n_runs - 1].length == kColumns;
  int count = 0;
  for (npy_int64 k = k_begin; k < k_end; ++k) {
    const T *source = images + ((channel * c.rows + r) * c.cols + s) * c.n;
    T *row = panel + count * kColumns;
    bool seen = false;
    if (!whole_tile) memset(row, 0, kColumns * sizeof(T));
    for (int i = 0; i < n_runs; ++i) {
      const npy_int64 y = runs[i].y + r, x = runs[i].x + s;
      T *target = row + runs[i].begin;
      if (y >= 0 && y < c.rows && x >= 0 && x < c.cols) {
        copy_values(target, source + runs[i].offset, runs[i].length);
        seen = true;
      } else {
        for (int j = 0; j < runs[i].length; ++j) target[j] = 0;
      }
    }
    if (seen) taps[count++] = (int)(k - k_begin);
    if (++s == c.taps_x) {
      s = 0;
      if (++r == c.taps_y) {
        r = 0;
        ++channel;
      }
    }
  }
  return count;
}

// Writes output channel m of a group from a tile's sums to its pixels.
template <typename T>
static void scatter_row(const Correlation &c, npy_int64 group, npy_int64 m, const ColumnRun *runs, int n_runs,
                        const T *sums, T *out) {
  const npy_int64 phases = c.phases_y * c.phases_x;
  const npy_int64 channel = group * (c.m / phases) + m / phases;
  for (int i = 0; i < n_runs; ++i) {
    const npy_int64 y = runs[i].grid_y * c.phases_y + m % phases / c.phases_x + c.base_y;
    const npy_int64 x = runs[i].grid_x * c.phases_x + m % c.phases_x + c.base_x;
    if (y < 0 || y >= c.out_rows || x < 0 || x >= c.out_cols) continue;
    copy_values(out + ((channel * c.out_rows + y) * c.out_cols + x) * c.n + runs[i].image, sums + runs[i].begin,
                runs[i].length);
  }
}

// The filters of FilterActs: (depth, filter_stride), group g's are columns g * m ... (g + 1) * m.
template <typename T>
struct FiltersAsTheyAre {
  const Correlation &c;
  const T *filters;

  T operator()(npy_int64 group, npy_int64 k, npy_int64 m) const {
    return filters[k * c.filter_stride + group * c.m + m];
  }
};

// filter(group, k, m) -> blocks of kRows output channels: (groups, blocks, depth, kRows), padded with zeros.
template <typename T, typename Filter>
static void pack_filters(const Correlation &c, npy_int64 blocks, const Filter &filter, T *packed) {
  const int kRows = CorrelateTile<T>::kRows;
  const npy_int64 depth = correlation_depth(&c);
#pragma omp parallel for schedule(static) if (c.groups * c.m * depth > CONVNET_SERIAL_WORK / 10)
  for (npy_int64 item = 0; item < c.groups * blocks; ++item) {
    T *target = packed + item * depth * kRows;
    const npy_int64 first = item % blocks * kRows;
    for (npy_int64 k = 0; k < depth; ++k)
      for (npy_int64 m = first; m < first + kRows; ++m) *target++ = m < c.m ? filter(item / blocks, k, m) : T(0);
  }
}

// Throws std::bad_alloc if there is no memory for the packed filters and the tiles.
template <typename T, typename Filter>
static void correlate(const Correlation &c, const T *images, const Filter &filter, T *out) {
  typedef CorrelateTile<T> Tile;
  const npy_int64 depth = correlation_depth(&c);
  const npy_int64 tiles = (correlation_columns(&c) + Tile::kColumns - 1) / Tile::kColumns;
  const npy_int64 blocks = (c.m + Tile::kRows - 1) / Tile::kRows;
  const npy_int64 block_size = depth * Tile::kRows;
  const npy_int64 sums_size = blocks * Tile::kRows * Tile::kColumns;
  std::vector<T> packed(c.groups * blocks * block_size);
  pack_filters(c, blocks, filter, packed.data());
  bool out_of_memory = false;
#pragma omp parallel if (correlation_columns(&c) * depth * c.m * c.groups > CONVNET_SERIAL_WORK)
  {
    T *panel = (T *)malloc((Tile::kDepth * Tile::kColumns + sums_size) * sizeof(T));
    T *sums = panel + Tile::kDepth * Tile::kColumns;
    ColumnRun runs[Tile::kColumns];
    int taps[Tile::kDepth];
    if (panel == NULL) {
#pragma omp atomic write
      out_of_memory = true;
    }
#pragma omp for schedule(static)
    for (npy_int64 item = 0; item < c.groups * tiles; ++item) {
      if (panel == NULL) continue;
      const npy_int64 group = item / tiles;
      const T *group_images = images + group * c.channels * c.rows * c.cols * c.n;
      const T *group_filters = packed.data() + group * blocks * block_size;
      const int n_runs = split_into_runs<T>(c, item % tiles * Tile::kColumns, runs);
      for (npy_int64 k = 0; k < depth; k += Tile::kDepth) {
        const npy_int64 k_end = depth - k < Tile::kDepth ? depth : k + Tile::kDepth;
        const int count = gather_panel(c, group_images, runs, n_runs, k, k_end, taps, panel);
        for (npy_int64 block = 0; block < blocks; ++block)
          multiply_panel(count, taps, group_filters + block * block_size + k * Tile::kRows, panel,
                         sums + block * Tile::kRows * Tile::kColumns, k > 0);
      }
      for (npy_int64 m = 0; m < c.m; ++m) scatter_row(c, group, m, runs, n_runs, sums + m * Tile::kColumns, out);
    }
    free(panel);
  }
  if (out_of_memory) throw std::bad_alloc();
}

#endif
