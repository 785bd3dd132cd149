// The windows of channels of the response normalisation, shared by the CPU and the GPU code.
#ifndef CONVNET_OPS_NORM_SHAPE_H
#define CONVNET_OPS_NORM_SHAPE_H

#include "pool_shape.h"

// Channel f's window is [f - back, f + ahead], or, with block > 0, the block of that many channels that f lies in.
struct ChannelWindow {
  npy_int64 back, ahead, block;
};

static inline ChannelWindow channel_window(npy_int64 size_f, bool blocked, bool transposed) {
  const npy_int64 before = size_f / 2, after = size_f - 1 - size_f / 2;
  const ChannelWindow w = {transposed ? after : before, transposed ? before : after, blocked ? size_f : 0};
  return w;
}

static inline npy_int64 window_begin(const ChannelWindow &w, npy_int64 f) {
  if (w.block > 0) return f / w.block * w.block;
  return f > w.back ? f - w.back : 0;
}

static inline npy_int64 window_end(const ChannelWindow &w, npy_int64 f, npy_int64 channels) {
  // Without additions that may overflow: a window may be larger than any array.
  if (w.block > 0) return channels - f / w.block * w.block > w.block ? (f / w.block + 1) * w.block : channels;
  return channels - f - 1 > w.ahead ? f + w.ahead + 1 : channels;
}

#endif
