// The matrix that a shuffle between bc01 and c01b transposes, shared by the CPU and the GPU code.
#ifndef CONVNET_OPS_SHUFFLE_SHAPE_H
#define CONVNET_OPS_SHUFFLE_SHAPE_H

#include <Python.h>
#include <numpy/npy_common.h>

// The source is rows x cols, the target cols x rows; `area` adjacent pixels are an image's.
struct ShuffleShape {
  npy_int64 rows, cols, area;
  bool to_c01b, flip;
};

// dims are those of the source; out_dims gets those of the target.
template <typename Params>
static inline ShuffleShape shuffle_shape(const npy_int64 *dims, const Params *params, npy_int64 *out_dims) {
  const bool to_c01b = params->to_c01b != 0;
  for (int i = 0; i < 4; ++i) out_dims[i] = dims[(i + (to_c01b ? 1 : 3)) % 4];
  const npy_int64 *const c01b = to_c01b ? out_dims : dims;
  const npy_int64 area = c01b[1] * c01b[2], pixels = c01b[0] * area, images = c01b[3];
  const ShuffleShape s = {to_c01b ? images : pixels, to_c01b ? pixels : images, area, to_c01b, params->flip != 0};
  return s;
}

#endif
