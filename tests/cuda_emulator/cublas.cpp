// libcublas.so: the functions that libgpuarray uses for products and dots of floats and doubles, over a host BLAS.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

namespace {

struct Handle {
  int pointer_mode;
};

enum { kSuccess = 0, kInvalidValue = 7, kNotSupported = 15 };

// A Fortran routine of the host's BLAS, or NULL.
void *routine(const char *name) {
  static void *library = NULL;
  const char *const files[] = {getenv("CUDA_EMULATOR_BLAS"), "libopenblas.so.0", "libblas.so.3", "libopenblas.so",
                               "libblas.so"};
  for (const char *file : files)
    if (library == NULL && file != NULL && *file != 0) library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
  void *found = library == NULL ? NULL : dlsym(library, name);
  if (found == NULL) fprintf(stderr, "emulated cuBLAS: no %s: it needs OpenBLAS or another BLAS with Fortran's names\n", name);
  return found;
}

const char *transposition(int operation) {
  static const char *const names[] = {"N", "T", "C"};
  return names[operation];
}

}  // namespace

// Makes `name` the BLAS routine of that name; where there is none, the function returns an error.
#define ROUTINE(name, result, ...)                                             \
  static result (*const name)(__VA_ARGS__) = (result(*)(__VA_ARGS__))routine(#name "_"); \
  if (name == NULL) return kNotSupported

// Scalars lie in host memory or in the emulated device's, which is the same here: the pointer mode needs no case.
#define REAL(letter, lower, type)                                                                                       \
  int cublas##letter##dot_v2(Handle *, int n, const type *x, int incx, const type *y, int incy, type *result) {        \
    ROUTINE(lower##dot, type, const int *, const type *, const int *, const type *, const int *);                       \
    *result = lower##dot(&n, x, &incx, y, &incy);                                                                       \
    return kSuccess;                                                                                                    \
  }                                                                                                                     \
  int cublas##letter##gemm_v2(Handle *, int a_op, int b_op, int m, int n, int k, const type *alpha, const type *a,     \
                              int lda, const type *b, int ldb, const type *beta, type *c, int ldc) {                   \
    ROUTINE(lower##gemm, void, const char *, const char *, const int *, const int *, const int *, const type *,         \
            const type *, const int *, const type *, const int *, const type *, type *, const int *);                   \
    lower##gemm(transposition(a_op), transposition(b_op), &m, &n, &k, alpha, a, &lda, b, &ldb, beta, c, &ldc);         \
    return kSuccess;                                                                                                    \
  }                                                                                                                     \
  int cublas##letter##gemmBatched(Handle *handle, int a_op, int b_op, int m, int n, int k, const type *alpha,          \
                                  const type *const a[], int lda, const type *const b[], int ldb, const type *beta,    \
                                  type *const c[], int ldc, int count) {                                               \
    int status = kSuccess;                                                                                              \
    for (int i = 0; i < count && status == kSuccess; ++i)                                                               \
      status = cublas##letter##gemm_v2(handle, a_op, b_op, m, n, k, alpha, a[i], lda, b[i], ldb, beta, c[i], ldc);     \
    return status;                                                                                                      \
  }                                                                                                                     \
  int cublas##letter##gemv_v2(Handle *, int op, int m, int n, const type *alpha, const type *a, int lda, const type *x, \
                              int incx, const type *beta, type *y, int incy) {                                          \
    ROUTINE(lower##gemv, void, const char *, const int *, const int *, const type *, const type *, const int *,         \
            const type *, const int *, const type *, type *, const int *);                                              \
    lower##gemv(transposition(op), &m, &n, alpha, a, &lda, x, &incx, beta, y, &incy);                                   \
    return kSuccess;                                                                                                    \
  }                                                                                                                     \
  int cublas##letter##ger_v2(Handle *, int m, int n, const type *alpha, const type *x, int incx, const type *y,        \
                             int incy, type *a, int lda) {                                                              \
    ROUTINE(lower##ger, void, const int *, const int *, const type *, const type *, const int *, const type *,          \
            const int *, type *, const int *);                                                                          \
    lower##ger(&m, &n, alpha, x, &incx, y, &incy, a, &lda);                                                             \
    return kSuccess;                                                                                                    \
  }

extern "C" {

int cublasCreate_v2(Handle **handle) {
  if (handle == NULL) return kInvalidValue;
  *handle = new Handle{0};
  return kSuccess;
}

int cublasDestroy_v2(Handle *handle) {
  delete handle;
  return kSuccess;
}

int cublasSetStream_v2(Handle *, void *) { return kSuccess; }

int cublasSetPointerMode_v2(Handle *handle, int mode) {
  handle->pointer_mode = mode;
  return kSuccess;
}

int cublasGetPointerMode_v2(Handle *handle, int *mode) {
  *mode = handle->pointer_mode;
  return kSuccess;
}

int cublasSetAtomicsMode(Handle *, int) { return kSuccess; }

REAL(S, s, float)
REAL(D, d, double)

}  // extern "C"
