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

// The filters of image_correlation: see arrange_filters in cuda/img_acts.cu. The block is c's stride.
template <typename T>
static void arrange_filters(const ConvShape &s, const Correlation &c, const T *filters, T *out) {
  for (npy_int64 f = 0; f < s.filters; ++f)
    for (npy_int64 tap_y = 0; tap_y < c.taps_y; ++tap_y)
      for (npy_int64 tap_x = 0; tap_x < c.taps_x; ++tap_x)
        for (npy_int64 group = 0; group < s.groups; ++group)
          for (npy_int64 channel = 0; channel < s.channels; ++channel)
            for (npy_int64 phase_y = 0; phase_y < c.phases_y; ++phase_y)
              for (npy_int64 phase_x = 0; phase_x < c.phases_x; ++phase_x) {
                const npy_int64 r = phase_y + s.stride_y * (c.taps_y - c.stride_y - tap_y);
                const npy_int64 q = phase_x + s.stride_x * (c.taps_x - c.stride_x - tap_x);
                const npy_int64 tap = (channel * s.filter_rows + r) * s.filter_cols + q;
                *out++ = r >= 0 && r < s.filter_rows && q >= 0 && q < s.filter_cols
                             ? filters[tap * s.groups * s.filters + group * s.filters + f]
                             : T(0);
              }
}

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
    std::vector<T> arranged(correlation_depth(&c) * c.filter_stride);
    arrange_filters<T>(s, c, contiguous_filters.data<T>(), arranged.data());
    correlate<T>(c, contiguous_hid.data<T>(), arranged.data(), (T *)PyArray_DATA(*out));
  } catch (const std::bad_alloc &) {
    return no_workspace(op);
  }
  return 0;
}
