#section support_code

#include "gpu_norm.h"

#section support_code_struct

int APPLY_SPECIFIC(cross_map_norm_undo)(PyGpuArrayObject *images, PyGpuArrayObject *acts, PyGpuArrayObject *denoms,
                                        PyGpuArrayObject *grads, PyGpuArrayObject **out, PyGpuArrayObject **out_acts,
                                        PARAMS_TYPE *params) {
  const char *op = "CrossMapNormUndo";
  npy_int64 dims[4], acts_dims[4], denoms_dims[4], grads_dims[4];
  copy_dims(images, dims);
  copy_dims(acts, acts_dims);
  copy_dims(denoms, denoms_dims);
  copy_dims(grads, grads_dims);
  if (check_not_empty(op, "images", dims) != 0 || check_index_limit(op, "images", 4, dims) != 0 ||
      check_dims(op, "acts", acts_dims, dims) != 0 || check_dims(op, "denoms", denoms_dims, dims) != 0 ||
      check_dims(op, "dout", grads_dims, dims) != 0)
    return -1;
  const ContiguousGpuArray image_array(images), act_array(acts), denom_array(denoms), grad_array(grads);
  if (image_array.failed() || act_array.failed() || denom_array.failed() || grad_array.failed()) return -1;
  // Where groups of 4 positions do not fit, warps write whole sectors and read some positions of their neighbours': these
  // would have overwritten them in place.
  const bool whole = dims[1] * dims[2] * dims[3] % 4 == 0;
  if (params->inplace && whole && GpuArray_IS_C_CONTIGUOUS(&acts->ga)) {
    Py_INCREF(acts);
    Py_XDECREF(*out_acts);
    *out_acts = acts;
  }
  if (prepare_output(op, "output", out, 4, dims, params->context) != 0 ||
      prepare_output(op, "out_acts", out_acts, 4, dims, params->context) != 0)
    return -1;
  PyGpuArrayObject *const arrays[] = {image_array.get(), act_array.get(), denom_array.get(),
                                      grad_array.get(),  *out,            *out_acts};
  UndoArgs args;
  args.images = device_array(image_array.get());
  args.acts = device_array(act_array.get());
  args.denoms = device_array(denom_array.get());
  args.grads = device_array(grad_array.get());
  args.out = device_array(*out);
  args.out_acts = device_array(*out_acts);
  args.add_scale = (float)params->add_scale;
  args.pow_scale = (float)params->pow_scale;
  args.own = whole ? 32 : 24;
  const GpuRows table = cross_map_norm_undo_rows();
  return launch_norm(table, dims, channel_window(params->size_f, params->blocked, true),
                     vector_width(dims[1] * dims[2] * dims[3], arrays, 6), &args, params->context, [&](int row, size_t *grid) {
                       if (table.rows[row].window > 0 && table.rows[row].vec_n == 1)
                         elementwise_grid(args.positions, table.rows[row].threads / 32 * args.own, grid);
                       return cross_map_norm_undo_launch(row, grid, &args, params->context);
                     });
}
