// The plain kernel of FilterActs: one thread computes one output, reading everything from global memory and summing in
// double precision. It is the yardstick of the fast kernel (correlate.cuh) at sizes that NumPy cannot reach.

struct FilterActsArgs {
  const float *images;   // (groups * channels, rows, cols, n)
  const float *filters;  // (channels, filter_rows, filter_cols, groups * filters_per_group)
  float *out;            // (groups * filters_per_group, out_rows, out_cols, n)
  int channels;          // of one group
  int rows;
  int cols;
  int n;
  int filter_rows;
  int filter_cols;
  int filter_count;      // of all groups
  int filters_per_group;
  int out_rows;
  int out_cols;
  int stride_y;
  int stride_x;
  int pad_y;
  int pad_x;
  int size;              // outputs
};

// What is stored of a sum; another struct has another overload.
__device__ __forceinline__ float finish_sum(const FilterActsArgs &, int filter, double sum) { return (float)sum; }

template <typename Args>
__device__ __forceinline__ void filter_acts(const Args &a) {
  for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < a.size; i += (size_t)gridDim.x * blockDim.x) {
    const int image = i % a.n;
    const int x = i / a.n % a.out_cols;
    const int y = i / a.n / a.out_cols % a.out_rows;
    const int filter = i / a.n / a.out_cols / a.out_rows;
    const int first_channel = filter / a.filters_per_group * a.channels;
    double sum = 0;
    for (int c = 0; c < a.channels; ++c)
      for (int r = 0; r < a.filter_rows; ++r) {
        const int row = y * a.stride_y + r - a.pad_y;
        if (row < 0 || row >= a.rows) continue;
        for (int s = 0; s < a.filter_cols; ++s) {
          const int col = x * a.stride_x + s - a.pad_x;
          if (col < 0 || col >= a.cols) continue;
          sum += (double)a.images[(((first_channel + c) * a.rows + row) * a.cols + col) * a.n + image] *
                 a.filters[((c * a.filter_rows + r) * a.filter_cols + s) * a.filter_count + filter];
        }
      }
    a.out[i] = finish_sum(a, filter, sum);
  }
}
