// Philox 4x32-10 on the CPU; see cuda/philox.cuh.
#ifndef CONVNET_OPS_PHILOX_H
#define CONVNET_OPS_PHILOX_H

#include <stdint.h>

struct PhiloxWords {
  uint32_t word[4];
};

static inline PhiloxWords philox(PhiloxWords counter, uint64_t key) {
  uint32_t key_low = (uint32_t)key, key_high = (uint32_t)(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = (uint64_t)0xD2511F53u * counter.word[0];
    const uint64_t product2 = (uint64_t)0xCD9E8D57u * counter.word[2];
    counter.word[0] = (uint32_t)(product2 >> 32) ^ counter.word[1] ^ key_low;
    counter.word[1] = (uint32_t)product2;
    counter.word[2] = (uint32_t)(product0 >> 32) ^ counter.word[3] ^ key_high;
    counter.word[3] = (uint32_t)product0;
    key_low += 0x9E3779B9u;
    key_high += 0xBB67AE85u;
  }
  return counter;
}

// out[i] = number first + i of the stream of (seed, draw), in [0, 1): word e % 4 of the counter (e / 4, draw) for number e.
template <typename T>
static void unit_intervals(uint64_t seed, uint64_t draw, uint64_t first, int64_t count, T *out) {
  PhiloxWords words;
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t e = first + i;
    if (i == 0 || e % 4 == 0) {
      const PhiloxWords counter = {
          {(uint32_t)(e / 4), (uint32_t)(e / 4 >> 32), (uint32_t)draw, (uint32_t)(draw >> 32)}};
      words = philox(counter, seed);
    }
    out[i] = (T)(words.word[e % 4] >> 8) * (T)5.9604644775390625e-8;
  }
}

#endif
