// Races in shared memory: two threads, one word, at least one write, no barrier between.
#ifndef CUDA_EMULATOR_RACES_H
#define CUDA_EMULATOR_RACES_H

#include <string>
#include <vector>

// Who touches a word, and when: the barriers of the block, and of the thread's warp, that lie before it. `at` is the address
// in the kernel that the access returns to.
struct Access {
  int thread;
  unsigned epoch, warp_epoch;
  const void *at;
};

class RaceCheck {
 public:
  // Of so many bytes; 0: no check.
  explicit RaceCheck(size_t bytes) : words_(bytes / 4) {}

  // A new block.
  void forget() { words_.assign(words_.size(), Word()); }

  // Returns "" or what is wrong. in_flight: the write is that of an asynchronous copy, which is still to arrive.
  std::string note(size_t offset, bool write, const Access &access, bool in_flight);

  void copy_arrived(size_t offset, const Access &access);

 private:
  // The last accesses of a word.
  struct Word {
    Access writer = {-1, 0, 0, NULL}, reader = {-1, 0, 0, NULL};
    bool written = false, read = false;
    bool many_readers = false, many_warps = false;
    bool in_flight = false;
  };

  std::vector<Word> words_;
};

#endif
