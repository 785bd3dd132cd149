// The activations that FusedFilterActs applies and FusedActsGrad differentiates; fused_acts.py has the same codes. All
// threads of a launch take the same branch.

enum Activation { kLinear, kRectify, kTanh, kSigmoid };

// Rectify is x for x > 0 and slope * x for x < 0. Its sign says which it was: -0 comes from below zero, and from 0
// itself comes +0, whatever the sign of that.
__device__ __forceinline__ float activate(int activation, float slope, float x) {
  if (activation == kRectify) return x > 0.f ? x : x < 0.f ? (slope == 0.f ? -0.f : slope * x) : x + 0.f;
  if (activation == kTanh) return tanhf(x);
  if (activation == kSigmoid) return 1.f / (1.f + expf(-x));
  return x;
}

// The derivative, from the activation's value.
__device__ __forceinline__ float activation_slope(int activation, float slope, float at_zero, float value) {
  if (activation == kRectify) {
    if (value > 0.f) return 1.f;
    if (value == 0.f && copysignf(1.f, value) > 0.f) return at_zero;
    return value == value ? slope : value;
  }
  if (activation == kTanh) return 1.f - value * value;
  if (activation == kSigmoid) return value * (1.f - value);
  return 1.f;
}
