#section support_code

#include "cpu_array.h"
#include "cpu_correlate.h"

// Products, those of empty rows and columns of the tiles included.
template <typename T>
static double tile_products(const Correlation &c) {
  typedef CorrelateTile<T> Tile;
  const npy_int64 rows = (c.m + Tile::kRows - 1) / Tile::kRows * Tile::kRows;
  const npy_int64 columns = (correlation_columns(&c) + Tile::kColumns - 1) / Tile::kColumns * Tile::kColumns;
  return (double)rows * columns * correlation_depth(&c);
}

// The filters of image_correlation, read from those of FilterActs: see arrange_filters in cuda/img_acts.cu. The row and
// column of a filter's value are sums of a part that depends on k and one that depends on m; both are computed once.
template <typename T>
class ArrangedFilters {
 public:
  // Throws std::bad_alloc.
  ArrangedFilters(const ConvShape &s, const Correlation &c, const T *filters)
      : s_(s), filters_(filters), taps_(correlation_depth(&c)), outputs_(c.m) {
    for (npy_int64 k = 0; k < (npy_int64)taps_.size(); ++k) {
      taps_[k].start = k / (c.taps_y * c.taps_x);
      taps_[k].row = s.stride_y * (c.taps_y - c.stride_y - k / c.taps_x % c.taps_y);
      taps_[k].col = s.stride_x * (c.taps_x - c.stride_x - k % c.taps_x);
    }
    for (npy_int64 m = 0; m < c.m; ++m) {
      const npy_int64 channel = m / (c.phases_y * c.phases_x);
      outputs_[m].start = channel * s.filter_rows * s.filter_cols * s.groups * s.filters;
      outputs_[m].row = m / c.phases_x % c.phases_y;
      outputs_[m].col = m % c.phases_x;
    }
  }

  T operator()(npy_int64 group, npy_int64 k, npy_int64 m) const {
    const npy_int64 r = taps_[k].row + outputs_[m].row, q = taps_[k].col + outputs_[m].col;
    if (r < 0 || r >= s_.filter_rows || q < 0 || q >= s_.filter_cols) return T(0);
    return filters_[outputs_[m].start + (r * s_.filter_cols + q) * s_.groups * s_.filters + group * s_.filters +
                    taps_[k].start];
  }

 private:
  struct Part {
    npy_int64 start, row, col;
  };
  const ConvShape &s_;
  const T *filters_;
  std::vector<Part> taps_, outputs_;
};

#section support_code_apply

int APPLY_SPECIFIC(img_acts)(PyArrayObject *hid_acts, PyArrayObject *filters, PyArrayObject *output_shape,
                             PyArrayObject **out, PARAMS_TYPE *params) {
  const char *op = "ImageActs";
  npy_int64 hid_dims[4], filters_dims[4], size[2];
  copy_dims(hid_acts, hid_dims);
  copy_dims(filters, filters_dims);
  const npy_int64 size_count = read_sizes(output_shape, size);
  ConvShape s = shape_with_params(params);
  if (img_acts_shape(op, hid_dims, filters_dims, size, size_count, &s) != 0) return -1;
  const npy_int64 out_dims[4] = {s.groups * s.channels, s.rows, s.cols, s.n};
  const ContiguousArray contiguous_hid(hid_acts), contiguous_filters(filters);
  if (contiguous_hid.failed() || contiguous_filters.failed() ||
      prepare_output(op, out, 4, out_dims, TYPENUM_OUTPUT_0) != 0)
    return -1;
  typedef DTYPE_OUTPUT_0 T;
  try {
    const Correlation c = cheapest_image_correlation(&s, tile_products<T>);
    correlate<T>(c, contiguous_hid.data<T>(), ArrangedFilters<T>(s, c, contiguous_filters.data<T>()),
                 (T *)PyArray_DATA(*out));
  } catch (const std::bad_alloc &) {
    return no_workspace(op);
  }
  return 0;
}
