#section support_code

#include "activation.h"
#include "gpu_launch.h"

#section support_code_struct

int APPLY_SPECIFIC(fused_acts_grad)(PyGpuArrayObject *acts, PyGpuArrayObject *grads, PyGpuArrayObject **out,
                                    PyGpuArrayObject **bias, PARAMS_TYPE *params) {
  const char *op = "FusedActsGrad";
  npy_int64 dims[4], grads_dims[4];
  copy_dims(acts, dims);
  copy_dims(grads, grads_dims);
  if (check_acts_and_grads(op, dims, grads_dims) != 0 || check_index_limit(op, "acts", 4, dims) != 0) return -1;
  const bool linear = params->activation_code == kLinear;
  const ContiguousGpuArray act_array(acts), grad_array(grads);
  if (act_array.failed() || grad_array.failed()) return -1;
  if (linear) {
    Py_INCREF(grads);
    Py_XDECREF(*out);
    *out = grads;
  } else if (prepare_output(op, "output", out, 4, dims, params->context) != 0) {
    return -1;
  }
  // The last of them is the vector's; messages name four.
  const npy_int64 bias_dims[4] = {1, 1, 1, dims[0]};
  if (prepare_output(op, "bias gradient", bias, 1, bias_dims + 3, params->context) != 0) return -1;

  const npy_int64 positions = dims[1] * dims[2] * dims[3];
  PyGpuArrayObject *const arrays[] = {act_array.get(), grad_array.get(), linear ? grad_array.get() : *out};
  const ProductShape shape = {1, positions, dims[0], 1, vector_width(positions, arrays, 3), positions, 1};
  const GpuRows table = fused_acts_grad_rows();
  const int row = choose_row(table, shape, dims[0], params->context);
  if (row < 0) return -1;
  const npy_int64 parts = (positions + table.rows[row].tile_n - 1) / table.rows[row].tile_n;
  const npy_int64 workspace_dims[4] = {1, 1, dims[0], parts};
  PyGpuArrayObject *workspace = NULL;
  if (parts > 1 && (workspace = allocate(op, "workspace", 4, workspace_dims, params->context)) == NULL) return -1;

  FusedActsGradArgs args;
  args.acts = device_array(act_array.get());
  args.grads = device_array(grad_array.get());
  args.out = device_array(arrays[2]);
  args.sums = device_array(workspace == NULL ? *bias : workspace);
  args.positions = (int)positions;
  args.activation = (int)params->activation_code;
  args.slope = (float)params->slope;
  args.at_zero = (float)params->at_zero;
  args.by_parts = make_divisor(parts);
  size_t grid[3] = {(size_t)(dims[0] * parts), 1, 1};
  int failed = fused_acts_grad_launch(row, grid, &args, params->context);
  if (failed == 0 && workspace != NULL) {
    SumPartsArgs sum_args;
    sum_args.sums = args.sums;
    sum_args.out = device_array(*bias);
    sum_args.parts = (int)parts;
    grid[0] = dims[0];
    failed = sum_parts_launch(0, grid, &sum_args, params->context);
  }
  Py_XDECREF(workspace);
  return failed;
}
