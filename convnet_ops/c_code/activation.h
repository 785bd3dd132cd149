// The activations of cuda/activation.cuh on the CPU, and the shapes that FusedFilterActs and FusedActsGrad want.
#ifndef CONVNET_OPS_ACTIVATION_H
#define CONVNET_OPS_ACTIVATION_H

#include <cmath>

#include "conv_shape.h"

// fused_acts.py has the same.
enum ActivationCode { kLinear, kRectify, kTanh, kSigmoid };

template <typename T>
struct Linear {
  T operator()(T x) const { return x; }
  T slope_at(T) const { return 1; }
};

// Its sign says where it comes from: -0 from below zero, +0 from zero itself.
template <typename T>
struct Rectify {
  T slope, at_zero;
  T operator()(T x) const { return x > 0 ? x : x < 0 ? (slope == 0 ? -T(0) : slope * x) : x + T(0); }
  T slope_at(T value) const {
    if (value > 0) return 1;
    if (value == 0 && !std::signbit(value)) return at_zero;
    return value == value ? slope : value;
  }
};

template <typename T>
struct Tanh {
  T operator()(T x) const { return std::tanh(x); }
  T slope_at(T value) const { return 1 - value * value; }
};

template <typename T>
struct Sigmoid {
  T operator()(T x) const { return 1 / (1 + std::exp(-x)); }
  T slope_at(T value) const { return value * (1 - value); }
};

// Calls visit(activation) with the struct that the op's params name, so that loops in it have no branches for the others.
template <typename T, typename Params, typename Visit>
static inline void with_activation(const Params *params, double at_zero, Visit visit) {
  const Rectify<T> rectify = {(T)params->slope, (T)at_zero};
  if (params->activation_code == kRectify)
    visit(rectify);
  else if (params->activation_code == kTanh)
    visit(Tanh<T>());
  else if (params->activation_code == kSigmoid)
    visit(Sigmoid<T>());
  else
    visit(Linear<T>());
}

static inline int check_bias(const char *op, npy_int64 found, npy_int64 filters) {
  if (found == filters) return 0;
  PyErr_Format(PyExc_ValueError, "%s: bias has %lld elements; it must have %lld, one for each filter", op,
               (long long)found, (long long)filters);
  return -1;
}

static inline int check_acts_and_grads(const char *op, const npy_int64 *acts, const npy_int64 *grads) {
  if (check_not_empty(op, "acts", acts) != 0) return -1;
  for (int i = 0; i < 4; ++i)
    if (grads[i] != acts[i]) {
      PyErr_Format(PyExc_ValueError,
                   "%s: gacts has shape (%lld, %lld, %lld, %lld); it must be (%lld, %lld, %lld, %lld), as of acts", op,
                   (long long)grads[0], (long long)grads[1], (long long)grads[2], (long long)grads[3],
                   (long long)acts[0], (long long)acts[1], (long long)acts[2], (long long)acts[3]);
      return -1;
    }
  return 0;
}

#endif
