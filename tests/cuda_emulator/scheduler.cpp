#include "scheduler.h"

#include <signal.h>
#include <unistd.h>

#include <memory>
#include <thread>

#include "worker.h"

namespace emulator {

__thread Worker *current = NULL;

// A fiber runs one thread of a block after the other.
void fiber_main() {
  Worker *worker = current;
  for (;;) {
    worker->run_kernel();
    worker->running()->state = State::kDone;
    worker->yield();
  }
}

}  // namespace emulator

using namespace emulator;

namespace {

// Of faults that end the process: says first which thread it was.
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
