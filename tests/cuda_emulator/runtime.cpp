#include "runtime.h"

#include <cmath>

#include "worker.h"

using namespace emulator;

namespace {
// c += a * b, both of them words, in the places that mma.sync gives the lanes: decode(word) is what a word holds, product(held,
// held) what two of them add. The sum is exact, then rounded toward zero.
template <typename Decode, typename Product>
void multiply_words(float *c, const float *a, const float *b, Decode decode, Product product) {
  const Fiber *me = current->running(), *warp = me - me->thread.lane;
  // Copies what another lane holds in the place of one's own.
  const auto take = [&](int lane, const float *own, uint32_t *words, size_t bytes) {
    memcpy(words, (const char *)warp[lane].given + ((const char *)own - (const char *)me->given), bytes);
  };
  const int g = me->thread.lane / 4, t = me->thread.lane % 4;
  decltype(decode(0u)) rows[2][8], columns[2][8];
  for (int k = 0; k < 4; ++k) {
    uint32_t words[4];
    take(4 * g + k, a, words, sizeof words);
    for (int e = 0; e < 4; ++e) rows[e % 2][k + e / 2 * 4] = decode(words[e]);
    for (int i = 0; i < 2; ++i) {
      take(4 * (2 * t + i) + k, b, words, 2 * sizeof words[0]);
      for (int e = 0; e < 2; ++e) columns[i][k + e * 4] = decode(words[e]);
    }
  }
  for (int e = 0; e < 4; ++e) {
    double sum = c[e];
    for (int k = 0; k < 8; ++k) sum += product(rows[e / 2][k], columns[e % 2][k]);
    const float nearest = (float)sum;
    c[e] = fabs((double)nearest) > fabs(sum) ? nextafterf(nearest, 0.f) : nearest;
  }
}
}  // namespace

extern "C" {

const EmulatorThread *emulator_thread() { return &current->running()->thread; }

void emulator_barrier(const char *file, int line) { current->wait(State::kAtBarrier, {file, line}); }

void emulator_warp_barrier(unsigned mask, const char *file, int line) {
  current->running()->warp_mask = mask;
  current->wait(State::kAtWarpBarrier, {file, line});
}

uint64_t emulator_exchange(unsigned mask, uint64_t value, int source, const char *file, int line) {
  Fiber *me = current->running();
  me->given = value;
  emulator_warp_barrier(mask, file, line);
  const uint64_t got = (me - me->thread.lane + source)->given;
  emulator_warp_barrier(mask, file, line);
  return got;
}

unsigned emulator_ballot(unsigned mask, bool predicate, const char *file, int line) {
  Fiber *me = current->running();
  me->given = predicate;
  emulator_warp_barrier(mask, file, line);
  unsigned votes = 0;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1) votes |= (unsigned)((me - me->thread.lane + i)->given & 1) << i;
  emulator_warp_barrier(mask, file, line);
  return votes;
}

void emulator_trap(const char *file, int line) { current->fail("a trap at " + site_text({file, line})); }

void *emulator_shared(const void *key, const char *name, size_t bytes, size_t alignment) {
  return current->shared_variable(key, name, bytes, alignment);
}

void *emulator_dynamic_shared() { return current->dynamic_shared(); }

void emulator_copy_async(void *shared, const void *global, int bytes, bool valid) {
  current->copy_async((char *)shared, (const char *)global, bytes, valid);
}

void emulator_commit_copies() { current->commit_copies(); }

void emulator_wait_for_copies(int pending) { current->finish_copies(pending); }

void emulator_begin_tf32(const void *operands) {
  current->running()->given = (uint64_t)operands;
  emulator_warp_barrier(0xffffffffu, "mma.sync", 0);
}

void emulator_end_tf32() { emulator_warp_barrier(0xffffffffu, "mma.sync", 1); }

void emulator_multiply_tf32(float *c, const float *a, const float *b) {
  // As the tensor core sees it.
  const auto cut = [](uint32_t bits) {
    bits &= 0xFFFFE000u;
    float result;
    memcpy(&result, &bits, 4);
    return (double)result;
  };
  multiply_words(c, a, b, cut, [](double one, double other) { return one * other; });
}

void emulator_multiply_halves(float *c, const float *a, const float *b) {
  struct Halves {
    double low, high;
  };
  // 2^112 moves a half's exponent to a float's, subnormals included.
  const auto value = [](uint32_t half) {
    const uint32_t bits = (half & 0x7FFFu) << 13 | ((half & 0x7C00u) == 0x7C00u ? 0x7F800000u : 0);
    float size;
    memcpy(&size, &bits, 4);
    return (half & 0x8000u ? -1 : 1) * (double)size * 0x1p112;
  };
  multiply_words(
      c, a, b, [&](uint32_t word) { return Halves{value(word), value(word >> 16)}; },
      [](const Halves &one, const Halves &other) { return one.low * other.low + one.high * other.high; });
}

// ---- what gcc's -fsanitize=thread calls at each access of a kernel

#define EMULATOR_ACCESS(address, bytes, write)                                                  \
  do {                                                                                          \
    if (current == NULL) break;                                                                 \
    const size_t first = (size_t)(address) & ~(size_t)3, end = (size_t)(address) + (bytes);    \
    for (size_t at = first; at < end; at += 4)                                                  \
      current->note_access((const void *)at, write, __builtin_return_address(0));              \
  } while (0)
#define EMULATOR_HOOKS(bytes)                                                       \
  void __tsan_read##bytes(void *a) { EMULATOR_ACCESS(a, bytes, false); }            \
  void __tsan_write##bytes(void *a) { EMULATOR_ACCESS(a, bytes, true); }            \
  void __tsan_unaligned_read##bytes(void *a) { EMULATOR_ACCESS(a, bytes, false); }  \
  void __tsan_unaligned_write##bytes(void *a) { EMULATOR_ACCESS(a, bytes, true); }
EMULATOR_HOOKS(1)
EMULATOR_HOOKS(2)
EMULATOR_HOOKS(4)
EMULATOR_HOOKS(8)
EMULATOR_HOOKS(16)
void __tsan_read_range(void *a, size_t bytes) { EMULATOR_ACCESS(a, bytes, false); }
void __tsan_write_range(void *a, size_t bytes) { EMULATOR_ACCESS(a, bytes, true); }
void __tsan_init() {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit() {}
}
