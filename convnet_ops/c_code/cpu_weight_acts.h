// The gradient of the filters on the CPU; see cuda/weight_acts.cu for the notation.
//
// An item of work is a tile of kTaps taps and all filters of a group, over one split of the output's pixels. Its image
// values are copied, kDepth adjacent q at a time, into rows of a panel, where padding is zero; the rows of hid_grads lie
// adjacent in memory already. Splits depend on the shape alone, never on the number of threads: same bits everywhere.
#ifndef CONVNET_OPS_CPU_WEIGHT_ACTS_H
#define CONVNET_OPS_CPU_WEIGHT_ACTS_H

#include <cstdlib>
#include <cstring>
#include <new>

#include "conv_shape.h"
#include "cpu_vector.h"

template <typename T>
struct WeightTile {
  typedef typename VectorOf<T>::type Vector;
  static const int kLanes = VectorOf<T>::lanes;
  // kBlockTaps * kBlockFilters sums: 24 of 32 registers with AVX-512, 12 of 16 else.
  static const int kBlockTaps = CONVNET_VECTOR_BYTES == 64 ? 6 : 4;
  static const int kBlockFilters = CONVNET_VECTOR_BYTES == 64 ? 4 : 3;
  static const int kTaps = CONVNET_VECTOR_BYTES == 64 ? 30 : 32;
  static const int kDepth = 1024;
};

// partial[tap * stride + filter] += sum over q of taps[tap][q] * hid[filter][q], for one block of taps and filters.
template <typename T>
static inline void multiply_rows(npy_int64 depth, const T *taps, int n_taps, const T *const *hid, int n_filters,
                                 T *partial, npy_int64 stride) {
  typedef WeightTile<T> Tile;
  typedef typename Tile::Vector Vector;
  Vector sum[Tile::kBlockTaps][Tile::kBlockFilters];
  for (int i = 0; i < Tile::kBlockTaps; ++i)
    for (int j = 0; j < Tile::kBlockFilters; ++j) sum[i][j] = Vector{};
  npy_int64 q = 0;
  for (; q + Tile::kLanes <= depth; q += Tile::kLanes) {
    Vector h[Tile::kBlockFilters];
    for (int j = 0; j < Tile::kBlockFilters; ++j) h[j] = *(const Vector *)(hid[j] + q);
    for (int i = 0; i < Tile::kBlockTaps; ++i) {
      const Vector v = *(const Vector *)(taps + i * Tile::kDepth + q);
      for (int j = 0; j < Tile::kBlockFilters; ++j) sum[i][j] += v * h[j];
    }
  }
  for (int i = 0; i < n_taps; ++i)
    for (int j = 0; j < n_filters; ++j) {
      T lanes[Tile::kLanes];
      memcpy(lanes, &sum[i][j], sizeof(lanes));
      for (int half = Tile::kLanes / 2; half > 0; half /= 2)
        for (int lane = 0; lane < half; ++lane) lanes[lane] += lanes[lane + half];
      T total = lanes[0];
      for (npy_int64 rest = q; rest < depth; ++rest) total += taps[i * Tile::kDepth + rest] * hid[j][rest];
      partial[i * stride + j] += total;
    }
}

// panel[i][q - q_begin]: the image values under tap first_tap + i; rows past the last tap are zero.
template <typename T>
static void gather_taps(const ConvShape &s, const T *images, npy_int64 first_tap, int n_taps, npy_int64 q_begin,
                        npy_int64 q_end, T *panel) {
  typedef WeightTile<T> Tile;
  if (n_taps < Tile::kTaps)
    memset(panel + n_taps * Tile::kDepth, 0, (Tile::kTaps - n_taps) * Tile::kDepth * sizeof(T));
  for (int i = 0; i < n_taps; ++i) {
    const npy_int64 tap = first_tap + i;
    const npy_int64 col_tap = tap % s.filter_cols, row_tap = tap / s.filter_cols % s.filter_rows;
    const T *channel = images + tap / s.filter_cols / s.filter_rows * s.rows * s.cols * s.n;
    T *row = panel + i * Tile::kDepth;
    npy_int64 image = q_begin % s.n, out_x = q_begin / s.n % s.out_cols;
    npy_int64 y = q_begin / s.n / s.out_cols * s.stride_y - s.pad_y + row_tap;
    for (npy_int64 q = q_begin; q < q_end;) {
      const npy_int64 length = s.n - image < q_end - q ? s.n - image : q_end - q;
      const npy_int64 x = out_x * s.stride_x - s.pad_x + col_tap;
      if (y < 0 || y >= s.rows || x < 0 || x >= s.cols)
        memset(row, 0, length * sizeof(T));
      else
        copy_values(row, channel + (y * s.cols + x) * s.n + image, length);
      row += length;
      q += length;
      image = 0;
      if (++out_x == s.out_cols) {
        out_x = 0;
        y += s.stride_y;
      }
    }
  }
}

static inline npy_int64 weight_taps(const ConvShape &s) { return s.channels * s.filter_rows * s.filter_cols; }

// How many splits (and partial gradients) to use, at most `limit`: enough items of work for many cores, but splits so long
// that the sums over their vectors' lanes do not count.
template <typename T>
static npy_int64 weight_splits(const ConvShape &s, npy_int64 limit) {
  const npy_int64 items = s.groups * ((weight_taps(s) + WeightTile<T>::kTaps - 1) / WeightTile<T>::kTaps);
  const npy_int64 longest = s.out_rows * s.out_cols * s.n / 2048;
  npy_int64 splits = (64 + items - 1) / items;
  if (splits > longest) splits = longest;
  if (splits > limit) splits = limit;
  return splits < 1 ? 1 : splits;
}

// partials (splits, taps, groups * filters), gradient (taps, groups * filters). Throws std::bad_alloc.
template <typename T>
static void weight_acts(const ConvShape &s, npy_int64 splits, const T *images, const T *hid_grads, T *partials,
                        T *gradient) {
  typedef WeightTile<T> Tile;
  const npy_int64 taps = weight_taps(s), filters = s.groups * s.filters, size = taps * filters;
  const npy_int64 area = s.out_rows * s.out_cols, length = area * s.n;
  const npy_int64 tiles = (taps + Tile::kTaps - 1) / Tile::kTaps;
  bool out_of_memory = false;
  memset(partials, 0, splits * size * sizeof(T));
#pragma omp parallel if (size * length > CONVNET_SERIAL_WORK)
  {
    T *panel = (T *)malloc(Tile::kTaps * Tile::kDepth * sizeof(T));
    if (panel == NULL) {
#pragma omp atomic write
      out_of_memory = true;
    }
#pragma omp for schedule(dynamic)
    for (npy_int64 item = 0; item < splits * s.groups * tiles; ++item) {
      if (panel == NULL) continue;
      const npy_int64 tile = item % tiles, group = item / tiles % s.groups, split = item / tiles / s.groups;
      const npy_int64 split_end = area * (split + 1) / splits * s.n;
      const npy_int64 first_tap = tile * Tile::kTaps;
      const int n_taps = (int)(taps - first_tap < Tile::kTaps ? taps - first_tap : Tile::kTaps);
      const T *group_images = images + group * s.channels * s.rows * s.cols * s.n;
      T *partial = partials + split * size + first_tap * filters + group * s.filters;
      for (npy_int64 q = area * split / splits * s.n; q < split_end; q += Tile::kDepth) {
        const npy_int64 q_end = split_end - q < Tile::kDepth ? split_end : q + Tile::kDepth;
        gather_taps(s, group_images, first_tap, n_taps, q, q_end, panel);
        for (npy_int64 f = 0; f < s.filters; f += Tile::kBlockFilters) {
          const int n_filters = (int)(s.filters - f < Tile::kBlockFilters ? s.filters - f : Tile::kBlockFilters);
          const T *hid[Tile::kBlockFilters];
          for (int j = 0; j < Tile::kBlockFilters; ++j)
            hid[j] = hid_grads + (group * s.filters + f + (j < n_filters ? j : 0)) * length + q;
          for (int i = 0; i < n_taps; i += Tile::kBlockTaps)
            multiply_rows(q_end - q, panel + i * Tile::kDepth,
                          n_taps - i < Tile::kBlockTaps ? n_taps - i : Tile::kBlockTaps, hid, n_filters,
                          partial + i * filters + f, filters);
        }
      }
    }
    free(panel);
  }
  if (out_of_memory) throw std::bad_alloc();
  memcpy(gradient, partials, size * sizeof(T));
  for (npy_int64 split = 1; split < splits; ++split)
    for (npy_int64 i = 0; i < size; ++i) gradient[i] += partials[split * size + i];
}

#endif
