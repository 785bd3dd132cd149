#include "scheduler.h"

#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "kernel_builder.h"
#include "races.h"

namespace {

const size_t kStackBytes = 256 << 10;  // AddressSanitizer makes frames large
const size_t kRedZone = 64;            // around a shared variable

typedef void (*PoisonFunction)(const volatile void *, size_t);

// AddressSanitizer's, where its library is loaded.
void set_poison(void *address, size_t bytes, bool poisoned) {
  static const PoisonFunction poison = (PoisonFunction)dlsym(RTLD_DEFAULT, "__asan_poison_memory_region");
  static const PoisonFunction unpoison = (PoisonFunction)dlsym(RTLD_DEFAULT, "__asan_unpoison_memory_region");
  const PoisonFunction function = poisoned ? poison : unpoison;
  if (function != NULL) function(address, bytes);
}

enum class State { kReady, kAtBarrier, kAtWarpBarrier, kDone };

struct Site {
  const char *file;
  int line;
  bool operator!=(const Site &other) const { return line != other.line || strcmp(file, other.file) != 0; }
};

struct Copy {
  char *shared;
  const char *global;
  int bytes;
  bool valid;
  int batch;
};

// Where a fiber, or the scheduler, goes on. gcc's own jumps, since swapcontext asks the system for the signal mask at each
// switch, and the sanitizer watches longjmp.
typedef void *Place[5];

__attribute__((noinline, noreturn)) void go_on(Place &place) { __builtin_longjmp(place, 1); }

struct Fiber {
  Place place;
  bool started = false;
  EmulatorThread thread;
  int number;
  State state;
  Site site;  // where it waits
  unsigned warp_mask;
  uint64_t given;         // in an exchange
  unsigned warp_epoch;    // barriers of its warp that it has passed in this block
  std::vector<Copy> copies;
  int batches;            // committed
};

struct SharedVariable {
  const void *key;
  char *address;
};

class Worker;
thread_local Worker *current = NULL;

std::string index_text(const EmulatorIndex &i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

std::string site_text(const Site &site) { return std::string(site.file) + ":" + std::to_string(site.line); }

struct SharedLaunch {
  explicit SharedLaunch(const Launch &a_launch) : launch(a_launch) {}

  const Launch &launch;
  std::atomic<uint64_t> next_block{0};
  std::atomic<bool> failed{false};
  std::mutex mutex;
  std::string message;

  void fail(const std::string &text) {
    std::lock_guard<std::mutex> lock(mutex);
    if (!failed) message = text;
    failed = true;
  }
};

void fiber_main();

class Worker {
 public:
  Worker()
      : fibers_(kMaxThreads),
        stacks_((char *)mmap(NULL, kMaxThreads * kStackBytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)),
        arena_((char *)aligned_alloc(256, kArenaBytes)),
        races_(checked_mode() == "race" ? kArenaBytes : 0) {
    // A page at the end of each stack that nobody may touch.
    bool guarded = stacks_ != MAP_FAILED;
    for (int i = 0; guarded && i < kMaxThreads; ++i)
      guarded = mprotect(stacks_ + i * kStackBytes, 4096, PROT_NONE) == 0;
    if (!guarded) {
      perror("emulated CUDA: no memory for the threads' stacks");
      abort();
    }
  }

  void run(SharedLaunch *shared) {
    shared_ = shared;
    current = this;
    const EmulatorIndex &grid = shared->launch.grid;
    const uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z;
    for (uint64_t b; !shared->failed && (b = shared->next_block++) < blocks;) {
      const EmulatorIndex index = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y),
                                   (unsigned)(b / grid.x / grid.y)};
      run_block(index);
    }
    current = NULL;
    // Those that a fault stopped never come back.
    if (shared->failed)
      for (Fiber &f : fibers_) f.started = false;
  }

  void run_kernel() { shared_->launch.kernel->call(shared_->launch.arguments); }

  Fiber *running() { return running_; }

  std::string where() const {
    if (running_ == NULL) return "kernel " + std::string(shared_->launch.kernel->name);
    return "kernel " + std::string(shared_->launch.kernel->name) + ", block " + index_text(running_->thread.block) +
           ", thread " + index_text(running_->thread.thread);
  }

  // Ends the launch; does not return to the kernel.
  void fail(const std::string &what) {
    shared_->fail(where() + ": " + what);
    yield();
    abort();
  }

  __attribute__((noinline)) void yield() {
    if (__builtin_setjmp(running_->place) == 0) go_on(scheduler_);
  }

  void wait(State state, const Site &site) {
    running_->state = state;
    running_->site = site;
    yield();
  }

  // ---- shared memory

  void *shared_variable(const void *key, const char *name, size_t bytes, size_t alignment) {
    for (const SharedVariable &variable : variables_)
      if (variable.key == key) return variable.address;
    shared_bytes_ = (shared_bytes_ + alignment - 1) / alignment * alignment + bytes;
    if (shared_bytes_ > kSharedBytes)
      fail("its shared variables up to " + std::string(name) + " take " + std::to_string(shared_bytes_) +
           " bytes; a block gets " + std::to_string(kSharedBytes));
    char *address = arena_ + (arena_used_ + alignment - 1) / alignment * alignment;
    arena_used_ = address + bytes - arena_ + kRedZone;
    set_poison(address, bytes, false);
    memset(address, 0xFF, bytes);
    variables_.push_back({key, address});
    return address;
  }

  void *dynamic_shared() {
    static const char key = 0;
    return shared_variable(&key, "extern __shared__", shared_->launch.dynamic_shared, 16);
  }

  // ---- asynchronous copies

  void copy_async(char *to, const char *from, int bytes, bool valid) {
    for (int i = 0; i < bytes; i += 4) note_access(to + i, true, __builtin_return_address(0), true);
    memset(to, 0xFF, bytes);
    running_->copies.push_back({to, from, bytes, valid, running_->batches});
  }

  void commit_copies() { ++running_->batches; }

  void finish_copies(int pending) {
    std::vector<Copy> &copies = running_->copies;
    size_t done = 0;
    for (; done < copies.size() && copies[done].batch < running_->batches - pending; ++done) {
      const Copy &c = copies[done];
      if (c.valid) memcpy(c.shared, c.global, c.bytes);
      else memset(c.shared, 0, c.bytes);
      for (int i = 0; i < c.bytes; i += 4) races_.copy_arrived(c.shared + i - arena_, access(NULL));
    }
    copies.erase(copies.begin(), copies.begin() + done);
  }

  // ---- races

  void note_access(const void *address, bool write, const void *at, bool in_flight = false) {
    const size_t offset = (const char *)address - arena_;
    if (running_ == NULL || offset >= arena_used_) return;
    const std::string problem = races_.note(offset, write, access(at), in_flight);
    if (!problem.empty()) fail(problem);
  }

 private:
  static const size_t kArenaBytes = kSharedBytes + 64 * (kRedZone + 256);

  Access access(const void *at) const { return {running_->number, epoch_, running_->warp_epoch, at}; }

  void run_block(const EmulatorIndex &index) {
    const Launch &launch = shared_->launch;
    const int count = launch.block.x * launch.block.y * launch.block.z;
    variables_.clear();
    shared_bytes_ = 0;
    arena_used_ = 256;
    set_poison(arena_, kArenaBytes, true);
    races_.forget();
    epoch_ = 1;
    for (int i = 0; i < count; ++i) {
      Fiber &f = fibers_[i];
      f.number = i;
      f.thread.thread = {i % launch.block.x, i / launch.block.x % launch.block.y, i / launch.block.x / launch.block.y};
      f.thread.block = index;
      f.thread.block_size = launch.block;
      f.thread.grid_size = launch.grid;
      f.thread.lane = i % 32;
      f.state = State::kReady;
      f.warp_epoch = 0;
      f.copies.clear();
      f.batches = 0;
    }
    for (;;) {
      int done = 0, at_barrier = 0;
      for (int i = 0; i < count; ++i) {
        Fiber &f = fibers_[i];
        if (f.state == State::kReady) {
          running_ = &f;
          resume();
          running_ = NULL;
          if (shared_->failed) return;
        }
        done += f.state == State::kDone;
        at_barrier += f.state == State::kAtBarrier;
      }
      if (done == count) return;
      if (release_warps(count)) continue;
      if (!release_block(count, at_barrier)) return;
    }
  }

  // Lets the running fiber run until it yields.
  __attribute__((noinline)) void resume() {
    if (__builtin_setjmp(scheduler_) != 0) return;
    Fiber &f = *running_;
    if (f.started) go_on(f.place);
    f.started = true;
    ucontext_t here, there;
    getcontext(&there);
    there.uc_stack.ss_sp = stacks_ + f.number * kStackBytes + 4096;
    // Not all at the same place of their stacks, which would be the same set of the host's caches.
    there.uc_stack.ss_size = kStackBytes - 4096 - f.number % 32 * 320;
    there.uc_link = NULL;
    makecontext(&there, fiber_main, 0);
    // Not setcontext: by this call the sanitizer forgets what an abandoned kernel had on the stack.
    swapcontext(&here, &there);
  }

  bool release_warps(int count) {
    bool released = false;
    for (int first = 0; first < count; first += 32) {
      const int lanes = std::min(32, count - first);
      for (int i = first; i < first + lanes; ++i) {
        if (fibers_[i].state != State::kAtWarpBarrier) continue;
        const unsigned mask = fibers_[i].warp_mask & (lanes == 32 ? ~0u : (1u << lanes) - 1);
        bool complete = true;
        for (int j = 0; j < lanes; ++j)
          if (mask >> j & 1)
            complete = complete && fibers_[first + j].state == State::kAtWarpBarrier &&
                       fibers_[first + j].warp_mask == fibers_[i].warp_mask;
        if (!complete) continue;
        for (int j = 0; j < lanes; ++j)
          if (mask >> j & 1) {
            fibers_[first + j].state = State::kReady;
            ++fibers_[first + j].warp_epoch;
          }
        released = true;
      }
    }
    return released;
  }

  // All at one barrier: they go on. Otherwise some wait for what never comes.
  bool release_block(int count, int at_barrier) {
    const Fiber *waiting = NULL, *other = NULL;
    for (int i = 0; i < count; ++i) {
      const Fiber &f = fibers_[i];
      if (waiting == NULL && f.state != State::kDone) waiting = &f;
    }
    for (int i = 0; i < count; ++i) {
      const Fiber &f = fibers_[i];
      if (f.state == State::kDone || f.state != waiting->state || f.site != waiting->site) other = &f;
    }
    if (at_barrier == count && other == NULL) {
      for (int i = 0; i < count; ++i) fibers_[i].state = State::kReady;
      ++epoch_;
      return true;
    }
    std::string text = "kernel " + std::string(shared_->launch.kernel->name) + ", block " +
                       index_text(waiting->thread.block) + ": thread " + index_text(waiting->thread.thread) +
                       (waiting->state == State::kAtBarrier ? " waits at the barrier " : " waits at the warp barrier ") +
                       site_text(waiting->site);
    if (other == NULL) text += " for lanes that are not there";
    else
      text += ", but thread " + index_text(other->thread.thread) +
              (other->state == State::kDone ? " has ended" : " waits at " + site_text(other->site));
    shared_->fail(text);
    return false;
  }

  std::vector<Fiber> fibers_;
  char *stacks_;
  char *arena_;
  RaceCheck races_;
  std::vector<SharedVariable> variables_;
  size_t shared_bytes_ = 0, arena_used_ = 0;
  unsigned epoch_ = 0;  // barriers of the block
  Place scheduler_;
  Fiber *running_ = NULL;
  SharedLaunch *shared_ = NULL;
};

// A fiber runs one thread of a block after the other.
void fiber_main() {
  Worker *worker = current;
  for (;;) {
    worker->run_kernel();
    worker->running()->state = State::kDone;
    worker->yield();
  }
}

// ---- faults that end the process: say first which thread it was

void say_where() {
  if (current == NULL || current->running() == NULL) return;
  const std::string text = "emulated CUDA: in " + current->where() + "\n";
  if (write(STDERR_FILENO, text.data(), text.size()) < 0) return;
}

struct sigaction previous_segv, previous_bus, previous_fpe;

void on_signal(int number) {
  say_where();
  sigaction(number, number == SIGSEGV ? &previous_segv : number == SIGBUS ? &previous_bus : &previous_fpe, NULL);
}

void on_sanitizer_report(const char *) { say_where(); }

// For the time of a launch, so that the process' own handlers stay in place otherwise.
class FaultReports {
 public:
  FaultReports() {
    typedef void (*SetCallback)(void (*)(const char *));
    static const SetCallback set = (SetCallback)dlsym(RTLD_DEFAULT, "__asan_set_error_report_callback");
    if (set != NULL) {
      set(on_sanitizer_report);
      return;
    }
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction(SIGSEGV, &action, &previous_segv);
    sigaction(SIGBUS, &action, &previous_bus);
    sigaction(SIGFPE, &action, &previous_fpe);
    installed_ = true;
  }
  ~FaultReports() {
    if (!installed_) return;
    sigaction(SIGSEGV, &previous_segv, NULL);
    sigaction(SIGBUS, &previous_bus, NULL);
    sigaction(SIGFPE, &previous_fpe, NULL);
  }

 private:
  bool installed_ = false;
};

unsigned worker_count() {
  const char *chosen = getenv("CUDA_EMULATOR_THREADS");
  const unsigned count = chosen == NULL ? std::thread::hardware_concurrency() : (unsigned)atoi(chosen);
  // AddressSanitizer takes the fibers' stacks for the thread's own, which it tells only for one thread. A host thread's
  // guarded stacks are 2048 mappings of the 65530 that Linux gives a process.
  return checked_mode() == "address" ? 1 : std::min(8u, std::max(1u, count));
}

}  // namespace

std::string run_launch(const Launch &launch) {
  static std::mutex one_launch_at_a_time;
  std::lock_guard<std::mutex> lock(one_launch_at_a_time);
  static std::vector<std::unique_ptr<Worker>> workers;
  const uint64_t blocks = (uint64_t)launch.grid.x * launch.grid.y * launch.grid.z;
  const size_t count = std::min<uint64_t>(worker_count(), blocks);
  while (workers.size() < count) workers.emplace_back(new Worker);

  const FaultReports reports;
  SharedLaunch shared(launch);
  std::vector<std::thread> threads;
  for (size_t i = 1; i < count; ++i) threads.emplace_back([&, i] { workers[i]->run(&shared); });
  workers[0]->run(&shared);
  for (std::thread &thread : threads) thread.join();
  return shared.message;
}

// ---- what kernels call

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
