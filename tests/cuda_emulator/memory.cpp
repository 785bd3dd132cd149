#include "memory.h"

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "kernel_builder.h"

namespace {

// CUDA aligns to 256 bytes.
const size_t kAlignment = 256;
// Bytes of 0xFF are a NaN in float and in double: what a kernel reads before it was written, or beside an allocation,
// shows in its results.
const int kFill = 0xFF;

struct Allocation {
  size_t bytes, guard;
  char *block;  // guard, bytes, guard
};

struct Memory {
  std::mutex mutex;
  std::map<uintptr_t, Allocation> allocations;
  size_t used = 0, total = 1ull << 30;

  Memory() {
    const char *bytes = getenv("CUDA_EMULATOR_MEMORY");
    if (bytes != NULL) total = strtoull(bytes, NULL, 10);
  }
  ~Memory() {
    if (used == 0 || getenv("CUDA_EMULATOR_REPORT_LEAKS") == NULL) return;
    fprintf(stderr, "emulated CUDA: %zu allocations, %zu bytes of device memory, were never freed\n", allocations.size(),
            used);
  }
};

Memory &memory() {
  static Memory the_memory;
  return the_memory;
}

bool untouched(const char *guard, size_t bytes) {
  for (size_t i = 0; i < bytes; ++i)
    if ((unsigned char)guard[i] != kFill) return false;
  return true;
}

std::string guard_problem(const Allocation &a) {
  const bool before = untouched(a.block, a.guard), after = untouched(a.block + a.guard + a.bytes, a.guard);
  if (before && after) return "";
  return std::string("wrote ") + (before ? "past the end of" : "before the start of") + " an allocation of " +
         std::to_string(a.bytes) + " bytes";
}

}  // namespace

void *allocate_device(size_t bytes) {
  Memory &m = memory();
  std::lock_guard<std::mutex> lock(m.mutex);
  if (bytes > m.total - m.used) return NULL;
  // AddressSanitizer has guards of its own, exact to a byte.
  const size_t guard = checked_mode() == "address" ? 0 : kAlignment;
  const size_t size = (guard == 0 ? bytes : bytes + 2 * guard);
  void *block = NULL;
  if (posix_memalign(&block, kAlignment, size) != 0) return NULL;
  memset(block, kFill, size);
  char *address = (char *)block + guard;
  m.allocations[(uintptr_t)address] = {bytes, guard, (char *)block};
  m.used += bytes;
  return address;
}

bool free_device(void *address) {
  Memory &m = memory();
  std::lock_guard<std::mutex> lock(m.mutex);
  const auto found = m.allocations.find((uintptr_t)address);
  if (found == m.allocations.end()) return false;
  const Allocation a = found->second;
  memset(a.block, kFill, a.bytes + 2 * a.guard);
  free(a.block);
  m.used -= a.bytes;
  m.allocations.erase(found);
  return true;
}

bool on_device(const void *address, size_t bytes) {
  Memory &m = memory();
  std::lock_guard<std::mutex> lock(m.mutex);
  auto found = m.allocations.upper_bound((uintptr_t)address);
  if (found == m.allocations.begin()) return false;
  --found;
  return (uintptr_t)address + bytes <= found->first + found->second.bytes;
}

void device_memory(size_t *free, size_t *total) {
  Memory &m = memory();
  std::lock_guard<std::mutex> lock(m.mutex);
  *total = m.total;
  *free = m.total - m.used;
}

std::string overwritten_guards() {
  Memory &m = memory();
  std::lock_guard<std::mutex> lock(m.mutex);
  for (const auto &entry : m.allocations) {
    const std::string problem = guard_problem(entry.second);
    if (problem.empty()) continue;
    // Told once: later launches did not do it.
    memset(entry.second.block, kFill, entry.second.guard);
    memset(entry.second.block + entry.second.guard + entry.second.bytes, kFill, entry.second.guard);
    return problem;
  }
  return "";
}
