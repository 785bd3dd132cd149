// NumPy arrays in the CPU code.
#ifndef CONVNET_OPS_CPU_ARRAY_H
#define CONVNET_OPS_CPU_ARRAY_H

#include <Python.h>
#include <numpy/arrayobject.h>

// A C-contiguous array with the same values, for as long as this object lives: the array itself, or a copy.
class ContiguousArray {
 public:
  explicit ContiguousArray(PyArrayObject *array) : array_(PyArray_GETCONTIGUOUS(array)) {}
  ~ContiguousArray() { Py_XDECREF(array_); }
  bool failed() const { return array_ == NULL; }
  template <typename T>
  const T *data() const {
    return (const T *)PyArray_DATA(array_);
  }

 private:
  ContiguousArray(const ContiguousArray &);
  void operator=(const ContiguousArray &);
  PyArrayObject *array_;
};

static inline void copy_dims(PyArrayObject *array, npy_int64 *dims) {
  for (int i = 0; i < 4; ++i) dims[i] = PyArray_DIM(array, i);
}

// Makes *out a C-contiguous array of this shape, keeping the one that is there if it fits. Returns -1 with MemoryError.
static inline int prepare_output(const char *op, PyArrayObject **out, int nd, const npy_int64 *dims, int typenum) {
  if (*out != NULL && PyArray_NDIM(*out) == nd && PyArray_IS_C_CONTIGUOUS(*out)) {
    bool fits = true;
    for (int i = 0; i < nd; ++i) fits = fits && PyArray_DIM(*out, i) == dims[i];
    if (fits) return 0;
  }
  npy_intp shape[5];
  for (int i = 0; i < nd; ++i) shape[i] = dims[i];
  Py_XDECREF(*out);
  *out = (PyArrayObject *)PyArray_EMPTY(nd, shape, typenum, 0);
  if (*out != NULL) return 0;
  PyErr_Clear();
  PyErr_Format(PyExc_MemoryError, "%s: no memory for an output of %lld x %lld x %lld x %lld values", op,
               (long long)dims[nd - 4], (long long)dims[nd - 3], (long long)dims[nd - 2], (long long)dims[nd - 1]);
  return -1;
}

static inline int no_workspace(const char *op) {
  PyErr_Format(PyExc_MemoryError, "%s: no memory for its workspace", op);
  return -1;
}

#endif
