// bc01 <-> c01b on the CPU: the transpose of a matrix; see cuda/layout.cu.
#ifndef CONVNET_OPS_CPU_SHUFFLE_H
#define CONVNET_OPS_CPU_SHUFFLE_H

#include <algorithm>
#include <cstring>

#include "cpu_vector.h"
#include "shuffle_shape.h"

// 16 bytes: every processor's vectors, and a square of them is transposed by one instruction for each two rows and step.
template <typename T>
struct Square;

template <>
struct Square<float> {
  typedef float Row __attribute__((vector_size(16)));
  typedef int Order __attribute__((vector_size(16)));
  static const int lanes = 4;

  static inline void transpose(Row *r) {
    const Order low = {0, 4, 1, 5}, high = {2, 6, 3, 7};
    const Row a = __builtin_shuffle(r[0], r[2], low), b = __builtin_shuffle(r[1], r[3], low);
    const Row c = __builtin_shuffle(r[0], r[2], high), d = __builtin_shuffle(r[1], r[3], high);
    r[0] = __builtin_shuffle(a, b, low);
    r[1] = __builtin_shuffle(a, b, high);
    r[2] = __builtin_shuffle(c, d, low);
    r[3] = __builtin_shuffle(c, d, high);
  }
};

template <>
struct Square<double> {
  typedef double Row __attribute__((vector_size(16)));
  typedef long long Order __attribute__((vector_size(16)));
  static const int lanes = 2;

  static inline void transpose(Row *r) {
    const Order low = {0, 2}, high = {1, 3};
    const Row a = __builtin_shuffle(r[0], r[1], low), b = __builtin_shuffle(r[0], r[1], high);
    r[0] = a;
    r[1] = b;
  }
};

// A block holds whole cache lines of both arrays: 16 floats. Where one side is shorter than that, a tile is long.
const npy_int64 kShuffleBlock = 16, kShuffleTile = 64, kLongTile = 1024;

// Transposes a block: source[i] + col + j goes to target[j] + row + i.
template <typename T>
static inline void shuffle_block(const T *const *source, npy_int64 col, T *const *target, npy_int64 row) {
  typedef Square<T> S;
  for (npy_int64 i = 0; i < kShuffleBlock; i += S::lanes)
    for (npy_int64 j = 0; j < kShuffleBlock; j += S::lanes) {
      typename S::Row rows[S::lanes];
      for (int k = 0; k < S::lanes; ++k) memcpy(rows + k, source[i + k] + col + j, sizeof rows[k]);
      S::transpose(rows);
      for (int k = 0; k < S::lanes; ++k) memcpy(target[j + k] + row + i, rows + k, sizeof rows[k]);
    }
}

// The same for what is no block, `height` x `width`; the inner loop is the longer one.
template <typename T>
static inline void shuffle_rest(npy_int64 height, npy_int64 width, const T *const *source, npy_int64 col,
                                T *const *target, npy_int64 row) {
  if (width > height) {
    for (npy_int64 i = 0; i < height; ++i)
      for (npy_int64 j = 0; j < width; ++j) target[j][row + i] = source[i][col + j];
  } else {
    for (npy_int64 j = 0; j < width; ++j)
      for (npy_int64 i = 0; i < height; ++i) target[j][row + i] = source[i][col + j];
  }
}

// start[i] = where row first + i of `length` elements begins. Rows are pixels, reversed in each image, if `flip`.
template <typename T>
static inline void row_starts(const ShuffleShape &s, bool flip, T *base, npy_int64 first, npy_int64 count,
                              npy_int64 length, T **start) {
  npy_int64 place = flip ? first % s.area : 0;
  for (npy_int64 i = 0; i < count; ++i) {
    start[i] = base + (first + i + (flip ? s.area - 1 - 2 * place : 0)) * length;
    if (++place == s.area) place = 0;
  }
}

// Tiles go to threads, one after the other along the images: all of a cache line of c01b is then written, or read, before
// the next one. Within a tile blocks that write the same rows follow each other: it took a quarter less time.
template <typename T>
static void shuffle(const ShuffleShape &s, const T *source, T *target) {
  if (!s.flip && (s.rows == 1 || s.cols == 1)) {
    memcpy(target, source, s.rows * s.cols * sizeof(T));
    return;
  }
  const npy_int64 tile_rows = s.cols < kShuffleBlock ? kLongTile : kShuffleTile;
  const npy_int64 tile_cols = s.rows < kShuffleBlock ? kLongTile : kShuffleTile;
  const npy_int64 down = (s.rows + tile_rows - 1) / tile_rows, across = (s.cols + tile_cols - 1) / tile_cols;
#pragma omp parallel for schedule(static) if (s.rows * s.cols > CONVNET_SERIAL_WORK)
  for (npy_int64 tile = 0; tile < down * across; ++tile) {
    const npy_int64 row = (s.to_c01b ? tile % down : tile / across) * tile_rows;
    const npy_int64 col = (s.to_c01b ? tile / down : tile % across) * tile_cols;
    const npy_int64 height = std::min(tile_rows, s.rows - row), width = std::min(tile_cols, s.cols - col);
    const T *from[kLongTile];
    T *to[kLongTile];
    row_starts(s, s.flip && !s.to_c01b, source, row, height, s.cols, from);
    row_starts(s, s.flip && s.to_c01b, target, col, width, s.rows, to);
    const npy_int64 height_end = height - height % kShuffleBlock, width_end = width - width % kShuffleBlock;
    for (npy_int64 j = 0; j < width_end; j += kShuffleBlock)
      for (npy_int64 i = 0; i < height_end; i += kShuffleBlock) shuffle_block(from + i, col + j, to + j, row + i);
    shuffle_rest(height - height_end, width_end, from + height_end, col, to, row + height_end);
    shuffle_rest(height, width - width_end, from, col + width_end, to + width_end, row);
  }
}

#endif
