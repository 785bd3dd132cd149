#include "races.h"

#include <dlfcn.h>

#include <cstdio>

namespace {

int warp_of(int thread) { return thread / 32; }

// Whether a barrier lies between an access and a later one: of the block, or of a warp that both are in.
bool ordered(const Access &before, const Access &after) {
  return before.epoch != after.epoch ||
         (warp_of(before.thread) == warp_of(after.thread) && before.warp_epoch < after.warp_epoch);
}

// "file:line" of an address in a kernel, from the compiler's debug information.
std::string source_line(const void *address) {
  Dl_info info;
  if (address == NULL || dladdr(address, &info) == 0) return "an unknown line";
  char command[4096], line[1024] = "";
  // The address is the one that a call returns to: the access is before it.
  snprintf(command, sizeof command, "env -u LD_PRELOAD addr2line -e '%s' 0x%zx 2>/dev/null", info.dli_fname,
           (size_t)((const char *)address - (const char *)info.dli_fbase) - 1);
  FILE *output = popen(command, "r");
  if (output == NULL) return "an unknown line";
  if (fgets(line, sizeof line, output) == NULL) line[0] = 0;
  pclose(output);
  std::string text(line);
  text = text.substr(0, text.find_first_of(" \n"));
  const size_t slash = text.rfind('/');
  return slash == std::string::npos ? text : text.substr(slash + 1);
}

std::string description(size_t offset, bool write, const Access &access, const char *what, const Access &other) {
  return "a race in shared memory at byte " + std::to_string(offset) + ": " + (write ? "a write" : "a read") + " at " +
         source_line(access.at) + ", and " + what + " of thread number " + std::to_string(other.thread) + " at " +
         source_line(other.at) + ", with no barrier between";
}

}  // namespace

std::string RaceCheck::note(size_t offset, bool write, const Access &access, bool in_flight) {
  if (words_.empty()) return "";
  Word &word = words_[offset / 4];
  if (word.in_flight)
    return description(offset, write, access, "an asynchronous copy that nobody waited for", word.writer);
  if (word.written && word.writer.thread != access.thread && !ordered(word.writer, access))
    return description(offset, write, access, "a write", word.writer);
  const bool read_since = word.read && word.reader.epoch == access.epoch;
  if (write && read_since &&
      (word.many_warps ||
       ((word.many_readers || word.reader.thread != access.thread) && !ordered(word.reader, access))))
    return description(offset, write, access, "a read", word.reader);
  if (write) {
    word.writer = access;
    word.written = true;
    word.in_flight = in_flight;
  } else {
    word.many_warps = read_since && (word.many_warps || warp_of(word.reader.thread) != warp_of(access.thread));
    word.many_readers = read_since && (word.many_readers || word.reader.thread != access.thread);
    word.reader = access;
    word.read = true;
  }
  return "";
}

void RaceCheck::copy_arrived(size_t offset, const Access &access) {
  if (words_.empty()) return;
  Word &word = words_[offset / 4];
  word.in_flight = false;
  const void *at = word.writer.at;
  word.writer = access;
  word.writer.at = at;
}
