// Device memory: allocations with guards, filled with NaN.
#ifndef CUDA_EMULATOR_MEMORY_H
#define CUDA_EMULATOR_MEMORY_H

#include <cstddef>
#include <string>

// NULL if the device has not that much left.
void *allocate_device(size_t bytes);
// False if no allocation begins there.
bool free_device(void *address);
// Whether one allocation holds all these bytes.
bool on_device(const void *address, size_t bytes);
void device_memory(size_t *free, size_t *total);
// What was written beside an allocation since it was made, or "".
std::string overwritten_guards();

#endif
