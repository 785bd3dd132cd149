// libcuda.so: the driver functions that libgpuarray uses. Everything is done when a call returns, so streams and events
// have nothing to do.
#include <dlfcn.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "kernel_builder.h"
#include "memory.h"
#include "scheduler.h"

namespace {

enum Result {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kInvalidDevice = 101,
  kInvalidContext = 201,
  kInvalidPtx = 218,
  kNotFound = 500,
  kLaunchFailed = 719,
  kNotSupported = 801
};

struct Context {
  unsigned flags;
  int references;
};

struct Module {
  void *object;
};

struct Function {
  const EmulatorKernel *kernel;
};

struct Link {
  std::vector<char> image;
};

Context primary = {0, 0};
std::vector<Context *> stack;
std::string last_problem;

int fail(int result, const std::string &text) {
  last_problem = text;
  fprintf(stderr, "emulated CUDA: %s\n", text.c_str());
  return result;
}

int capability(bool major) {
  const char *chosen = getenv("CUDA_EMULATOR_COMPUTE_CAPABILITY");
  int numbers[2] = {9, 0};
  if (chosen != NULL) sscanf(chosen, "%d.%d", &numbers[0], &numbers[1]);
  return numbers[major ? 0 : 1];
}

// Whether the bytes can be read at all: an argument array that is too short ends in something that is no address.
bool readable(const void *address, size_t bytes) {
  std::vector<char> copy(bytes);
  const iovec to = {copy.data(), bytes}, from = {(void *)address, bytes};
  return bytes == 0 || process_vm_readv(getpid(), &to, 1, &from, 1, 0) == (ssize_t)bytes;
}

// Where AddressSanitizer's library is loaded, it knows the bounds of the array of pointers too.
bool in_bounds(const void *address, size_t bytes) {
  typedef void *(*PoisonedFunction)(void *, size_t);
  static const PoisonedFunction poisoned = (PoisonedFunction)dlsym(RTLD_DEFAULT, "__asan_region_is_poisoned");
  return poisoned == NULL || poisoned((void *)address, bytes) == NULL;
}

}  // namespace

extern "C" {

int cuInit(unsigned) { return kSuccess; }

int cuDriverGetVersion(int *version) {
  *version = 13000;
  return kSuccess;
}

int cuGetErrorName(int error, const char **name) {
  switch (error) {
    case kSuccess: *name = "CUDA_SUCCESS"; break;
    case kInvalidValue: *name = "CUDA_ERROR_INVALID_VALUE"; break;
    case kOutOfMemory: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case kInvalidDevice: *name = "CUDA_ERROR_INVALID_DEVICE"; break;
    case kInvalidContext: *name = "CUDA_ERROR_INVALID_CONTEXT"; break;
    case kInvalidPtx: *name = "CUDA_ERROR_INVALID_PTX"; break;
    case kNotFound: *name = "CUDA_ERROR_NOT_FOUND"; break;
    case kLaunchFailed: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
    case kNotSupported: *name = "CUDA_ERROR_NOT_SUPPORTED"; break;
    default: *name = "an unknown error"; return kInvalidValue;
  }
  return kSuccess;
}

// The name, and what the last failure was about.
int cuGetErrorString(int error, const char **text) {
  static std::string full;
  const char *name;
  cuGetErrorName(error, &name);
  full = name;
  if (error != kSuccess && !last_problem.empty()) full += ": " + last_problem;
  *text = full.c_str();
  return kSuccess;
}

// ---- the device

int cuDeviceGetCount(int *count) {
  *count = 1;
  return kSuccess;
}

int cuDeviceGet(int *device, int ordinal) {
  if (ordinal != 0) return fail(kInvalidDevice, "there is one device, number 0");
  *device = 0;
  return kSuccess;
}

int cuDeviceGetName(char *name, int length, int) {
  snprintf(name, length, "Emulated CUDA device %d.%d", capability(true), capability(false));
  return kSuccess;
}

int cuDeviceGetPCIBusId(char *id, int length, int) {
  snprintf(id, length, "0000:00:00.0");
  return kSuccess;
}

int cuDeviceGetAttribute(int *value, int attribute, int) {
  switch (attribute) {
    case 1: *value = kMaxThreads; break;                // MAX_THREADS_PER_BLOCK
    case 2: case 3: *value = 1024; break;               // MAX_BLOCK_DIM_X, Y
    case 4: *value = 64; break;                         // MAX_BLOCK_DIM_Z
    case 5: *value = 2147483647; break;                 // MAX_GRID_DIM_X
    case 6: case 7: *value = 65535; break;              // MAX_GRID_DIM_Y, Z
    case 8: *value = (int)kSharedBytes; break;          // MAX_SHARED_MEMORY_PER_BLOCK
    case 10: *value = 32; break;                        // WARP_SIZE
    case 13: *value = 1980000; break;                   // CLOCK_RATE
    case 16: *value = 132; break;                       // MULTIPROCESSOR_COUNT: an H100's, so that ops choose as there
    case 41: *value = 1; break;                         // UNIFIED_ADDRESSING
    case 75: *value = capability(true); break;          // COMPUTE_CAPABILITY_MAJOR
    case 76: *value = capability(false); break;         // COMPUTE_CAPABILITY_MINOR
    default: return fail(kInvalidValue, "device attribute " + std::to_string(attribute) + " is not emulated");
  }
  return kSuccess;
}

// ---- contexts

int cuDevicePrimaryCtxGetState(int, unsigned *flags, int *active) {
  *flags = primary.flags;
  *active = primary.references > 0;
  return kSuccess;
}

int cuDevicePrimaryCtxSetFlags(int, unsigned flags) {
  primary.flags = flags;
  return kSuccess;
}

int cuDevicePrimaryCtxRetain(Context **context, int) {
  ++primary.references;
  *context = &primary;
  return kSuccess;
}

int cuDevicePrimaryCtxRelease(int) {
  if (primary.references == 0) return kInvalidContext;
  --primary.references;
  return kSuccess;
}

int cuCtxGetDevice(int *device) {
  if (stack.empty()) return fail(kInvalidContext, "no context is current");
  *device = 0;
  return kSuccess;
}

int cuCtxPushCurrent_v2(Context *context) {
  stack.push_back(context);
  return kSuccess;
}

int cuCtxPopCurrent_v2(Context **context) {
  if (stack.empty()) return fail(kInvalidContext, "no context is current");
  if (context != NULL) *context = stack.back();
  stack.pop_back();
  return kSuccess;
}

// ---- modules

int cuLinkCreate(unsigned, void *, void **, Link **link) {
  *link = new Link;
  return kSuccess;
}

int cuLinkAddData(Link *link, int, void *data, size_t size, const char *, unsigned, void *, void **) {
  link->image.assign((char *)data, (char *)data + size);
  link->image.push_back(0);
  return kSuccess;
}

int cuLinkComplete(Link *link, void **image, size_t *size) {
  *image = link->image.data();
  *size = link->image.size();
  return kSuccess;
}

int cuLinkDestroy(Link *link) {
  delete link;
  return kSuccess;
}

int cuModuleLoadDataEx(Module **module, const void *image, unsigned, void *, void **) {
  std::string source, arch;
  if (!from_image((const char *)image, &source, &arch)) return fail(kInvalidPtx, "not an image of the emulated NVRTC");
  const BuiltKernel built = build_kernel(source, arch);
  if (built.path.empty()) return fail(kInvalidPtx, built.log);
  void *object = dlopen(built.path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (object == NULL) return fail(kInvalidPtx, dlerror());
  *module = new Module{object};
  return kSuccess;
}

int cuModuleLoadData(Module **module, const void *image) { return cuModuleLoadDataEx(module, image, 0, NULL, NULL); }

int cuModuleUnload(Module *module) {
  dlclose(module->object);
  delete module;
  return kSuccess;
}

int cuModuleGetFunction(Function **function, Module *module, const char *name) {
  const void *kernel = dlsym(module->object, (std::string("emulator_kernel_") + name).c_str());
  if (kernel == NULL) return fail(kNotFound, std::string("the module has no kernel ") + name);
  *function = new Function{(const EmulatorKernel *)kernel};
  return kSuccess;
}

int cuFuncGetAttribute(int *value, int attribute, Function *function) {
  switch (attribute) {
    case 0: *value = function->kernel->max_threads; break;  // MAX_THREADS_PER_BLOCK
    default: return fail(kInvalidValue, "function attribute " + std::to_string(attribute) + " is not emulated");
  }
  return kSuccess;
}

int cuLaunchKernel(Function *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared_bytes, void *, void **arguments, void **) {
  const EmulatorKernel &kernel = *function->kernel;
  const std::string name = std::string("kernel ") + kernel.name;
  if (grid_x == 0 || grid_y == 0 || grid_z == 0 || grid_x > 2147483647u || grid_y > 65535 || grid_z > 65535)
    return fail(kInvalidValue, name + ": a grid of " + std::to_string(grid_x) + " x " + std::to_string(grid_y) + " x " +
                                   std::to_string(grid_z) + " blocks; from 1 to 2147483647 x 65535 x 65535 are valid");
  const uint64_t threads = (uint64_t)block_x * block_y * block_z;
  if (threads == 0 || block_x > 1024 || block_y > 1024 || block_z > 64 || threads > (uint64_t)kernel.max_threads)
    return fail(kInvalidValue, name + ": a block of " + std::to_string(block_x) + " x " + std::to_string(block_y) +
                                   " x " + std::to_string(block_z) + " threads; the kernel allows " +
                                   std::to_string(kernel.max_threads));
  if (shared_bytes > kSharedBytes)
    return fail(kInvalidValue, name + ": " + std::to_string(shared_bytes) + " bytes of dynamic shared memory; a block gets " +
                                   std::to_string(kSharedBytes));
  for (int i = 0; i < kernel.argument_count; ++i)
    if (!in_bounds(&arguments[i], sizeof(void *)) || !readable(&arguments[i], sizeof(void *)) ||
        !readable(arguments[i], kernel.argument_sizes[i]))
      return fail(kInvalidValue, name + " takes " + std::to_string(kernel.argument_count) + " arguments; it was given " +
                                     std::to_string(i));
  const Launch launch = {&kernel, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes, arguments};
  const std::string problem = run_launch(launch);
  if (!problem.empty()) return fail(kLaunchFailed, problem);
  const std::string guards = overwritten_guards();
  if (!guards.empty()) return fail(kLaunchFailed, name + " " + guards);
  return kSuccess;
}

// ---- memory

int cuMemGetInfo_v2(size_t *free, size_t *total) {
  device_memory(free, total);
  return kSuccess;
}

int cuMemAlloc_v2(uint64_t *address, size_t bytes) {
  if (bytes == 0) return fail(kInvalidValue, "an allocation of 0 bytes");
  void *allocated = allocate_device(bytes);
  if (allocated == NULL) return kOutOfMemory;
  *address = (uint64_t)allocated;
  return kSuccess;
}

int cuMemAllocManaged(uint64_t *address, size_t bytes, unsigned) { return cuMemAlloc_v2(address, bytes); }

int cuMemFree_v2(uint64_t address) {
  if (!free_device((void *)address)) return fail(kInvalidValue, "a free of what was not allocated");
  return kSuccess;
}

int cuMemAllocHost_v2(void **address, size_t bytes) {
  *address = malloc(bytes);
  return *address == NULL ? kOutOfMemory : kSuccess;
}

int cuMemFreeHost(void *address) {
  free(address);
  return kSuccess;
}

int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *) {
  if (!on_device((void *)to, bytes)) return fail(kInvalidValue, "a copy to the device leaves its allocation");
  memcpy((void *)to, from, bytes);
  return kSuccess;
}

int cuMemcpyHtoD_v2(uint64_t to, const void *from, size_t bytes) { return cuMemcpyHtoDAsync_v2(to, from, bytes, NULL); }

int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *) {
  if (!on_device((void *)from, bytes)) return fail(kInvalidValue, "a copy from the device leaves its allocation");
  memcpy(to, (void *)from, bytes);
  return kSuccess;
}

int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *) {
  if (!on_device((void *)to, bytes) || !on_device((void *)from, bytes))
    return fail(kInvalidValue, "a copy on the device leaves its allocation");
  memmove((void *)to, (void *)from, bytes);
  return kSuccess;
}

int cuMemcpyPeerAsync(uint64_t to, Context *, uint64_t from, Context *, size_t bytes, void *) {
  return cuMemcpyDtoDAsync_v2(to, from, bytes, NULL);
}

int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void *) {
  if (!on_device((void *)to, bytes)) return fail(kInvalidValue, "a fill leaves its allocation");
  memset((void *)to, value, bytes);
  return kSuccess;
}

int cuIpcGetMemHandle(void *, uint64_t) { return kNotSupported; }
// The handle is a struct of 64 bytes by value, which takes the place of stack arguments nobody reads here.
int cuIpcOpenMemHandle(uint64_t *) { return kNotSupported; }
int cuIpcCloseMemHandle(uint64_t) { return kNotSupported; }

// ---- streams and events

int cuStreamCreate(void **stream, unsigned) {
  *stream = malloc(1);
  return kSuccess;
}
int cuStreamDestroy_v2(void *stream) {
  free(stream);
  return kSuccess;
}
int cuStreamWaitEvent(void *, void *, unsigned) { return kSuccess; }
int cuStreamSynchronize(void *) { return kSuccess; }
int cuEventCreate(void **event, unsigned) {
  *event = malloc(1);
  return kSuccess;
}
int cuEventDestroy_v2(void *event) {
  free(event);
  return kSuccess;
}
int cuEventRecord(void *, void *) { return kSuccess; }
int cuEventSynchronize(void *) { return kSuccess; }
}
