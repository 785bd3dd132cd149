// Arrays, kernels and errors in the GPU host code.
#ifndef CONVNET_OPS_GPU_LAUNCH_H
#define CONVNET_OPS_GPU_LAUNCH_H

#include <Python.h>
#include <gpuarray/kernel.h>
#include <gpuarray/types.h>
#include <gpuarray_helper.h>

#include <initializer_list>
#include <vector>

#include "choose_row.h"
#include "conv_shape.h"
#include "divisor.h"

struct DeviceArray {
  gpudata *data;
  size_t offset;  // in bytes
};

static inline DeviceArray device_array(PyGpuArrayObject *array) {
  const DeviceArray result = {array->ga.data, array->ga.offset};
  return result;
}

static inline void copy_dims(PyGpuArrayObject *array, npy_int64 *dims) {
  for (int i = 0; i < 4; ++i) dims[i] = PyGpuArray_DIM(array, i);
}

// Whether groups of 4 floats along a dimension of this size may be loaded at once from these arrays.
static inline int vector_width(npy_int64 size, PyGpuArrayObject *array, PyGpuArrayObject *other) {
  return size % 4 == 0 && array->ga.offset % 16 == 0 && (other == NULL || other->ga.offset % 16 == 0) ? 4 : 1;
}

// The same for all of these arrays.
static inline int vector_width(npy_int64 size, PyGpuArrayObject *const *arrays, int count) {
  int vec = 4;
  for (int i = 0; i < count; ++i)
    if (vector_width(size, arrays[i], (PyGpuArrayObject *)NULL) < vec) vec = 1;
  return vec;
}

// A C-contiguous array with the same values, for as long as this object lives: the array itself, or a copy.
class ContiguousGpuArray {
 public:
  explicit ContiguousGpuArray(PyGpuArrayObject *array) {
    if (GpuArray_IS_C_CONTIGUOUS(&array->ga)) {
      Py_INCREF(array);
      array_ = array;
    } else {
      array_ = pygpu_copy(array, GA_C_ORDER);
    }
  }
  ~ContiguousGpuArray() { Py_XDECREF(array_); }
  bool failed() const { return array_ == NULL; }
  PyGpuArrayObject *get() const { return array_; }

 private:
  ContiguousGpuArray(const ContiguousGpuArray &);
  void operator=(const ContiguousGpuArray &);
  PyGpuArrayObject *array_;
};

// The kernels index with 32 bits.
static inline int check_index_limit(const char *op, const char *argument, int nd, const npy_int64 *dims) {
  double size = 1;
  for (int i = 0; i < nd; ++i) size *= (double)dims[i];
  if (size < 2147483648.0) return 0;
  PyErr_Format(PyExc_ValueError,
               "%s: %s of shape (%lld, %lld, %lld, %lld) has 2**31 or more elements; on the GPU an array must have fewer",
               op, argument, (long long)dims[nd - 4], (long long)dims[nd - 3], (long long)dims[nd - 2],
               (long long)dims[nd - 1]);
  return -1;
}

// A new array of float32 or another type of 4 bytes, or NULL with MemoryError.
static inline PyGpuArrayObject *allocate(const char *op, const char *what, int nd, const npy_int64 *dims,
                                         PyGpuContextObject *context, int typecode = GA_FLOAT) {
  size_t shape[5];
  double bytes = 4;
  for (int i = 0; i < nd; ++i) {
    shape[i] = dims[i];
    bytes *= (double)dims[i];
  }
  PyGpuArrayObject *array = pygpu_empty(nd, shape, typecode, GA_C_ORDER, context, Py_None);
  if (array == NULL) {
    PyErr_Clear();
    PyErr_Format(PyExc_MemoryError, "%s: no GPU memory for its %s of %lld bytes", op, what, (long long)bytes);
  }
  return array;
}

// Makes *out a C-contiguous array of this shape and type, keeping the one that is there if it fits.
static inline int prepare_output(const char *op, const char *what, PyGpuArrayObject **out, int nd,
                                 const npy_int64 *dims, PyGpuContextObject *context, int typecode = GA_FLOAT) {
  if (check_index_limit(op, what, nd, dims) != 0) return -1;
  size_t shape[5];
  for (int i = 0; i < nd; ++i) shape[i] = dims[i];
  if (*out != NULL && theano_size_check(*out, nd, shape, typecode) && GpuArray_IS_C_CONTIGUOUS(&(*out)->ga)) return 0;
  Py_XDECREF(*out);
  *out = allocate(op, what, nd, dims, context, typecode);
  return *out == NULL ? -1 : 0;
}

// An array, or NULL, that is given up with this object.
class OwnedGpuArray {
 public:
  explicit OwnedGpuArray(PyGpuArrayObject *array) : array_(array) {}
  ~OwnedGpuArray() { Py_XDECREF(array_); }
  PyGpuArrayObject *get() const { return array_; }

 private:
  OwnedGpuArray(const OwnedGpuArray &);
  void operator=(const OwnedGpuArray &);
  PyGpuArrayObject *array_;
};

// A new array of float32 for this call only, or NULL with an exception.
static inline PyGpuArrayObject *new_workspace(const char *op, const npy_int64 *dims, PyGpuContextObject *context) {
  return check_index_limit(op, "workspace", 4, dims) != 0 ? NULL : allocate(op, "workspace", 4, dims, context);
}

// Arrays of float32 for this call only, in one allocation: for each of its own libgpuarray makes and destroys an event, and
// another where it cuts a free block, which takes the host up to a microsecond.
class Workspace {
 public:
  Workspace(const char *op, std::initializer_list<const npy_int64 *> shapes, PyGpuContextObject *context) : array_(NULL) {
    npy_int64 size = 0;
    for (const npy_int64 *dims : shapes) {
      if (check_index_limit(op, "workspace", 4, dims) != 0) return;
      offsets_.push_back(size);
      size += (dims[0] * dims[1] * dims[2] * dims[3] + 63) / 64 * 64;
    }
    array_ = allocate(op, "workspace", 1, &size, context);
  }
  ~Workspace() { Py_XDECREF(array_); }
  // With an exception.
  bool failed() const { return array_ == NULL; }
  DeviceArray part(int i) const {
    DeviceArray values = device_array(array_);
    values.offset += 4 * offsets_[i];
    return values;
  }

 private:
  Workspace(const Workspace &);
  void operator=(const Workspace &);
  PyGpuArrayObject *array_;
  std::vector<npy_int64> offsets_;
};

static inline int multiprocessor_count(PyGpuContextObject *context) {
  // The last answer is kept: it takes four calls of the driver, and a convolution by tiles asks five times.
  static gpucontext *known = NULL;
  static unsigned int known_count = 0;
  if (context->ctx == known) return (int)known_count;
  unsigned int count = 0;
  if (gpucontext_property(context->ctx, GA_CTX_PROP_NUMPROCS, &count) != GA_NO_ERROR || count == 0) return 1;
  known = context->ctx;
  known_count = count;
  return (int)count;
}

static inline Card card_of(PyGpuContextObject *context) {
  // "sm_90", or "compute_90".
  const char *id = NULL;
  Card card = {multiprocessor_count(context), 0};
  if (gpucontext_property(context->ctx, GA_CTX_PROP_BIN_ID, &id) == GA_NO_ERROR && id != NULL) {
    const char *number = strrchr(id, '_');
    if (number != NULL) card.capability = atoi(number + 1);
  }
  return card;
}

static inline int compile_kernel(GpuKernel *kernel, PyGpuContextObject *context, const char *name, const char *source,
                                 const char *wrapper, unsigned argument_count, const int *types) {
  const char *texts[2] = {source, wrapper};
  char *log = NULL;
  const int error = GpuKernel_init(kernel, context->ctx, 2, texts, NULL, name, argument_count, types, 0, &log);
  if (error != GA_NO_ERROR) {
    kernel->k = NULL;
    kernel->args = NULL;
    PyErr_Format(PyExc_RuntimeError, "kernel %s does not compile: %s\n%s", name,
                 gpucontext_error(context->ctx, error), log == NULL ? "" : log);
  }
  free(log);
  return error == GA_NO_ERROR ? 0 : -1;
}

static inline int launch_kernel(GpuKernel *kernel, const char *name, const size_t *grid, size_t threads,
                                void **arguments) {
  const size_t block[3] = {threads, 1, 1};
  const int error = GpuKernel_call(kernel, 3, grid, block, 0, arguments);
  if (error == GA_NO_ERROR) return 0;
  PyErr_Format(PyExc_RuntimeError, "kernel %s failed with grid (%zu, %zu, %zu), %zu threads a block: %s", name, grid[0],
               grid[1], grid[2], threads, GpuKernel_error(kernel, error));
  return -1;
}

static inline bool prints_config() {
  const char *wanted = getenv("CONVNET_OPS_PRINT_CONFIG");
  return wanted != NULL && strcmp(wanted, "1") == 0;
}

static inline void print_choice(const GpuRows &table, const Choice &choice, const ProductShape &shape, long long depth) {
  if (!prints_config()) return;
  const long long partials = choice.splits > 1 ? 4 * choice.splits * shape.m * shape.n * shape.batches : 0;
  PySys_WriteStderr("%s: m %lld, n %lld, batches %lld, depth %lld, loads of %d and %d floats: row %s, splits %lld, "
                    "workspace %lld bytes\n",
                    table.family, shape.m, shape.n, shape.batches, depth, shape.vec_m, shape.vec_n,
                    table.rows[choice.row].name, choice.splits, shape.workspace + partials);
}

// The row that CONVNET_OPS_VARIANT names, or row -1 if it names none. Returns -1 with ValueError if the named one does not
// exist or does not support the shape.
static inline int named_row(const GpuRows &table, const ProductShape &shape, const Card &card, Choice *choice) {
  size_t length;
  const char *forced = forced_row(table.family, &length);
  choice->row = -1;
  choice->splits = 1;
  if (forced == NULL) return 0;
  for (int i = 0; i < table.count; ++i)
    if (row_is_forced(table.family, table.rows[i].name)) choice->row = i;
  if (choice->row < 0) {
    PyErr_Format(PyExc_ValueError, "CONVNET_OPS_VARIANT: %s has no row named '%.200s'", table.family, forced);
    return -1;
  }
  const GpuRow &row = table.rows[choice->row];
  if (!row_supports(row, shape, card)) {
    PyErr_Format(PyExc_ValueError,
                 "CONVNET_OPS_VARIANT: row %s of %s loads %d and %d floats at once, wants window %d and stride %d (0: any), "
                 "compute capability %d and %s; these sizes and addresses allow %d and %d, with window %lld and stride "
                 "%lld, the card has %d, and the op's precision is %s%s",
                 row.name, table.family, row.vec_m, row.vec_n, row.window, row.stride, row.capability,
                 row.tf32 ? "less precision than 'float32'" : "any precision", shape.vec_m, shape.vec_n, shape.window,
                 shape.stride, card.capability, shape.tf32 ? "less" : "'float32'",
                 shape.accurate ? "; these tiles want tensor cores" : "");
    return -1;
  }
  choice->splits = cheapest_splits(row, shape, card);
  return 0;
}

// The row to launch: the one that CONVNET_OPS_VARIANT names, or the cheapest; or -1, as named_row.
static inline int choose_row(const GpuRows &table, const ProductShape &shape, long long depth,
                             PyGpuContextObject *context) {
  const Card card = card_of(context);
  Choice choice;
  if (named_row(table, shape, card, &choice) != 0) return -1;
  if (choice.row < 0) choice = cheapest_row(table, shape, card);
  print_choice(table, choice, shape, depth);
  return choice.row;
}

// Grid of a kernel whose threads go over `size` elements.
static inline void elementwise_grid(npy_int64 size, int threads, size_t *grid) {
  grid[0] = (size + threads - 1) / threads;
  grid[1] = grid[2] = 1;
}

#endif
