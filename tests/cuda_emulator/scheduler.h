// Runs the blocks of a launch: a block's threads are fibers of one host thread, blocks are spread over host threads.
#ifndef CUDA_EMULATOR_SCHEDULER_H
#define CUDA_EMULATOR_SCHEDULER_H

#include <string>

#include "runtime.h"

const int kMaxThreads = 1024;
const size_t kSharedBytes = 49152;  // the most that one block gets without asking for more

struct Launch {
  const EmulatorKernel *kernel;
  EmulatorIndex grid, block;
  size_t dynamic_shared;
  void **arguments;
};

// Returns "" or what went wrong, with kernel, block, thread and line.
std::string run_launch(const Launch &launch);

#endif
