// What a kernel, compiled as C++, asks of the emulated device.
#ifndef CUDA_EMULATOR_RUNTIME_H
#define CUDA_EMULATOR_RUNTIME_H

#include <cstddef>
#include <cstdint>

struct EmulatorIndex {
  unsigned x, y, z;
};

// The thread that runs now.
struct EmulatorThread {
  EmulatorIndex thread, block, block_size, grid_size;
  int lane;
};

// A kernel that a module offers: found by its name, emulator_kernel_<name>.
struct EmulatorKernel {
  const char *name;
  void (*call)(void **arguments);
  int argument_count;
  const size_t *argument_sizes;
  int max_threads;  // of __launch_bounds__; 1024 without
};

extern "C" {
const EmulatorThread *emulator_thread();

void emulator_barrier(const char *file, int line);
void emulator_warp_barrier(unsigned mask, const char *file, int line);
// Every lane of `mask` gives `value` and gets that of lane `source` of its warp.
uint64_t emulator_exchange(unsigned mask, uint64_t value, int source, const char *file, int line);
// Every lane of `mask` gets the lanes whose predicate is true.
unsigned emulator_ballot(unsigned mask, bool predicate, const char *file, int line);
void emulator_trap(const char *file, int line);

// The block's copy of a __shared__ variable, which `key` identifies; that of extern __shared__ arrays.
void *emulator_shared(const void *key, const char *name, size_t bytes, size_t alignment);
void *emulator_dynamic_shared();

// cp.async: copies happen at the wait, as late as the device may make them; until then the target holds NaN.
void emulator_copy_async(void *shared, const void *global, int bytes, bool valid);
void emulator_commit_copies();
void emulator_wait_for_copies(int pending);

// mma.sync of TF32, and of words of two halves: between begin and end every lane of the warp holds the same structure of
// operands, and a and b of each product lie in it.
void emulator_begin_tf32(const void *operands);
void emulator_multiply_tf32(float *c, const float *a, const float *b);
void emulator_multiply_halves(float *c, const float *a, const float *b);
void emulator_end_tf32();
}

#endif
