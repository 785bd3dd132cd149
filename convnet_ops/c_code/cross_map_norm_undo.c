#section support_code

#include "cpu_array.h"
#include "cpu_norm.h"

#section support_code_apply

int APPLY_SPECIFIC(cross_map_norm_undo)(PyArrayObject *images, PyArrayObject *acts, PyArrayObject *denoms,
                                        PyArrayObject *grads, PyArrayObject **out, PyArrayObject **out_acts,
                                        PARAMS_TYPE *params) {
  typedef DTYPE_OUTPUT_0 T;
  const char *op = "CrossMapNormUndo";
  npy_int64 dims[4], acts_dims[4], denoms_dims[4], grads_dims[4];
  copy_dims(images, dims);
  copy_dims(acts, acts_dims);
  copy_dims(denoms, denoms_dims);
  copy_dims(grads, grads_dims);
  if (check_not_empty(op, "images", dims) != 0 || check_dims(op, "acts", acts_dims, dims) != 0 ||
      check_dims(op, "denoms", denoms_dims, dims) != 0 || check_dims(op, "dout", grads_dims, dims) != 0)
    return -1;
  const ContiguousArray image_array(images), act_array(acts), denom_array(denoms), grad_array(grads);
  if (image_array.failed() || act_array.failed() || denom_array.failed() || grad_array.failed()) return -1;
  if (params->inplace && PyArray_IS_C_CONTIGUOUS(acts)) {
    Py_INCREF(acts);
    Py_XDECREF(*out_acts);
    *out_acts = acts;
  }
  if (prepare_output(op, out, 4, dims, TYPENUM_OUTPUT_0) != 0 ||
      prepare_output(op, out_acts, 4, dims, TYPENUM_OUTPUT_1) != 0)
    return -1;
  cross_map_norm_undo(dims, channel_window(params->size_f, params->blocked, true), (T)params->add_scale,
                      params->pow_scale, image_array.data<T>(), act_array.data<T>(), denom_array.data<T>(),
                      grad_array.data<T>(), (T *)PyArray_DATA(*out), (T *)PyArray_DATA(*out_acts));
  return 0;
}
