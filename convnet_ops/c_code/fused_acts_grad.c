#section support_code

#include <algorithm>
#include <new>
#include <vector>

#include "activation.h"
#include "cpu_array.h"
#include "cpu_vector.h"

// out = grads * the activation's derivative at acts, NULL for linear; the return value is the sum of `count` of them.
template <typename T, typename Activation>
static double multiply_and_sum(const Activation &activation, npy_int64 count, const T *acts, const T *grads, T *out) {
  // Side by side, as a vector has them.
  const int kLanes = 16;
  T sums[kLanes] = {};
  const auto step = [&](npy_int64 i, int lane) {
    const T gradient = grads[i] * activation.slope_at(acts[i]);
    if (out != NULL) out[i] = gradient;
    sums[lane] += gradient;
  };
  const npy_int64 whole = count / kLanes * kLanes;
  for (npy_int64 i = 0; i < whole; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) step(i + lane, lane);
  for (npy_int64 i = whole; i < count; ++i) step(i, (int)(i - whole));
  double sum = 0;
  for (int lane = 0; lane < kLanes; ++lane) sum += sums[lane];
  return sum;
}

// A channel's sum is that of its pieces in their order: it does not depend on the threads. Throws std::bad_alloc.
template <typename T, typename Activation>
static void fused_acts_grad(const Activation &activation, npy_int64 channels, npy_int64 positions, const T *acts,
                            const T *grads, T *out, T *bias) {
  const npy_int64 piece = 4096, pieces = (positions + piece - 1) / piece;
  std::vector<double> sums(channels * pieces);
#pragma omp parallel for schedule(static) if (channels * positions > CONVNET_SERIAL_WORK / 10)
  for (npy_int64 item = 0; item < channels * pieces; ++item) {
    const npy_int64 begin = item % pieces * piece, offset = item / pieces * positions + begin;
    sums[item] = multiply_and_sum(activation, std::min(piece, positions - begin), acts + offset, grads + offset,
                                  out == NULL ? NULL : out + offset);
  }
  for (npy_int64 channel = 0; channel < channels; ++channel) {
    double sum = 0;
    for (npy_int64 i = 0; i < pieces; ++i) sum += sums[channel * pieces + i];
    bias[channel] = (T)sum;
  }
}

#section support_code_apply

int APPLY_SPECIFIC(fused_acts_grad)(PyArrayObject *acts, PyArrayObject *grads, PyArrayObject **out,
                                    PyArrayObject **bias, PARAMS_TYPE *params) {
  typedef DTYPE_OUTPUT_0 T;
  const char *op = "FusedActsGrad";
  npy_int64 dims[4], grads_dims[4];
  copy_dims(acts, dims);
  copy_dims(grads, grads_dims);
  if (check_acts_and_grads(op, dims, grads_dims) != 0) return -1;
  const bool linear = params->activation_code == kLinear;
  const ContiguousArray act_array(acts), grad_array(grads);
  // The last of them is the vector's; messages name four.
  const npy_int64 bias_dims[4] = {1, 1, 1, dims[0]};
  if (act_array.failed() || grad_array.failed() ||
      prepare_output(op, bias, 1, bias_dims + 3, TYPENUM_OUTPUT_1) != 0)
    return -1;
  if (linear) {
    Py_INCREF(grads);
    Py_XDECREF(*out);
    *out = grads;
  } else if (prepare_output(op, out, 4, dims, TYPENUM_OUTPUT_0) != 0) {
    return -1;
  }
  try {
    with_activation<T>(params, params->at_zero, [&](const auto &activation) {
      fused_acts_grad(activation, dims[0], dims[1] * dims[2] * dims[3], act_array.data<T>(), grad_array.data<T>(),
                      linear ? (T *)NULL : (T *)PyArray_DATA(*out), (T *)PyArray_DATA(*bias));
    });
  } catch (const std::bad_alloc &) {
    return no_workspace(op);
  }
  return 0;
}
