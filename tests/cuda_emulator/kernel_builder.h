// From CUDA source to a shared object that the host can run.
#ifndef CUDA_EMULATOR_KERNEL_BUILDER_H
#define CUDA_EMULATOR_KERNEL_BUILDER_H

#include <string>

// What CUDA_EMULATOR_CHECK asks for: nothing, "address" (AddressSanitizer) or "race" (shared memory).
std::string checked_mode();

struct BuiltKernel {
  std::string path;  // empty if it does not compile
  std::string log;   // the compiler's
};

// Compiles the source for a compute capability ("90"), or finds it among those built before.
BuiltKernel build_kernel(const std::string &source, const std::string &capability);

// What takes the place of PTX: a header with the capability, then the source. build_kernel() works from it.
std::string to_image(const std::string &source, const std::string &capability);
bool from_image(const char *image, std::string *source, std::string *capability);

#endif
