// A host thread of a launch: the fibers that are a block's threads, their barriers, copies and shared memory.
#ifndef CUDA_EMULATOR_WORKER_H
#define CUDA_EMULATOR_WORKER_H

#include <dlfcn.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <vector>

#include "kernel_builder.h"
#include "races.h"
#include "scheduler.h"

namespace emulator {

const size_t kStackBytes = 256 << 10;  // AddressSanitizer makes frames large
const size_t kRedZone = 64;            // around a shared variable

typedef void (*PoisonFunction)(const volatile void *, size_t);

// AddressSanitizer's, where its library is loaded.
inline void set_poison(void *address, size_t bytes, bool poisoned) {
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

__attribute__((noinline, noreturn)) inline void go_on(Place &place) { __builtin_longjmp(place, 1); }

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
// The one that this host thread is. (__thread: an extern thread_local would be asked for by a call each time.)
extern __thread Worker *current;

inline std::string index_text(const EmulatorIndex &i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

inline std::string site_text(const Site &site) { return std::string(site.file) + ":" + std::to_string(site.line); }

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

// What a fiber runs.
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

}  // namespace emulator

#endif
