// The constants of cuda/common.cuh's Divisor.
#ifndef CONVNET_OPS_DIVISOR_H
#define CONVNET_OPS_DIVISOR_H

// With p = 31 + ceil(log2(value)) and multiplier = ceil(2^p / value), which fits into 32 bits,
// (dividend * multiplier) >> p is exact for every dividend below 2^31. The kernel takes the upper 32 bits of the product
// and shifts them by p - 32.
struct Divisor {
  int value;
  unsigned multiplier;
  int shift;
};

static inline Divisor make_divisor(long long value) {
  Divisor divisor = {(int)value, 0, 0};
  if (value > 1) {
    int log = 0;
    while ((1LL << log) < value) ++log;
    divisor.multiplier = (unsigned)(((1ULL << (31 + log)) + value - 1) / value);
    divisor.shift = log - 1;
  }
  return divisor;
}

#endif
