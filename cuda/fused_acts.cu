// FusedActsGrad: the gradient below a bias and an activation, and the bias's, in one pass over memory.
//
//   out[c, i] = grads[c, i] * (derivative of the activation at acts[c, i]);   sums[c] = sum over i of out[c, i]
//
// c       channel                            i          position: the (row, column, image) of c01b, adjacent
//
// Block    kTile adjacent positions of one channel: it stores their gradients, and one partial sum. A channel has
//          `parts` blocks, so that few channels fill the card too. Loads of kBatch * kVec values of both operands are
//          under way before the first one is used.
// Sums     a thread adds kSteps * kVec values, a tree the 256 threads' sums, and sum_parts the blocks' sums in their
//          order: no atomics, the same bits on every run. It runs only where a channel has several blocks.
// Limits   arrays under 2^31 elements. kVec = 4 wants positions divisible by 4 and 16-byte aligned arrays.
// Linear   out is grads itself: nothing is read but grads, nothing stored but sums.

struct FusedActsGradArgs {
  const float *acts;     // (channels, positions)
  const float *grads;
  float *out;
  float *sums;           // (channels, parts)
  int positions;
  int activation;
  float slope;
  float at_zero;
  Divisor by_parts;
};

// The sum of all threads' values, in an order that is always the same; thread 0 has it.
template <int kThreads, typename T>
__device__ __forceinline__ T block_sum(T value) {
  __shared__ T values[kThreads];
  values[threadIdx.x] = value;
#pragma unroll
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) values[threadIdx.x] = value = value + values[threadIdx.x + half];
  }
  return value;
}

template <int kVec, int kSteps>
__device__ __forceinline__ void fused_acts_grad(const FusedActsGradArgs &a) {
  constexpr int kThreads = 256;
  constexpr int kBatch = 4;
  constexpr int kTile = kThreads * kVec * kSteps;
  int part;
  const int channel = a.by_parts.divide(blockIdx.x, part);
  const size_t row = (size_t)channel * a.positions;
  const int begin = part * kTile + threadIdx.x * kVec;
  const bool linear = a.activation == kLinear;
  float sum = 0.f;
#pragma unroll
  for (int first = 0; first < kSteps; first += kBatch) {
    Values<kVec> acts[kBatch], grads[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int position = begin + (first + k) * kThreads * kVec;
      acts[k] = grads[k] = all_values<kVec>(0.f);
      if (position < a.positions) {
        grads[k] = load_values<kVec>(a.grads + row + position);
        if (!linear) acts[k] = load_values<kVec>(a.acts + row + position);
      }
    }
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int position = begin + (first + k) * kThreads * kVec;
      if (position < a.positions) {
#pragma unroll
        for (int j = 0; j < kVec; ++j) {
          grads[k].value[j] *= activation_slope(a.activation, a.slope, a.at_zero, acts[k].value[j]);
          sum += grads[k].value[j];
        }
        if (!linear) store_values(a.out + row + position, grads[k]);
      }
    }
  }
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) a.sums[blockIdx.x] = sum;
}

struct SumPartsArgs {
  const float *sums;     // (channels, parts)
  float *out;            // (channels)
  int parts;
};

// One block a channel. In double precision: a channel may have 2^18 parts.
__device__ __forceinline__ void sum_parts(const SumPartsArgs &a) {
  const float *sums = a.sums + (size_t)blockIdx.x * a.parts;
  double sum = 0;
  for (int part = threadIdx.x; part < a.parts; part += 128) sum += sums[part];
  sum = block_sum<128>(sum);
  if (threadIdx.x == 0) a.out[blockIdx.x] = (float)sum;
}
