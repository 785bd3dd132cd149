// Philox 4x32-10, a counter-based generator: Salmon, Moraes, Dror and Shaw, Parallel Random Numbers: As Easy as 1, 2, 3
// (2011). A counter of 128 bits and a key of 64 give 4 random words, without any state. c_code/philox.h is the same for
// the CPU.

struct PhiloxWords {
  unsigned word[4];
};

__device__ __forceinline__ PhiloxWords philox(PhiloxWords counter, unsigned key_low, unsigned key_high) {
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const unsigned high0 = __umulhi(0xD2511F53u, counter.word[0]), low0 = 0xD2511F53u * counter.word[0];
    const unsigned high2 = __umulhi(0xCD9E8D57u, counter.word[2]), low2 = 0xCD9E8D57u * counter.word[2];
    counter.word[0] = high2 ^ counter.word[1] ^ key_low;
    counter.word[1] = low2;
    counter.word[2] = high0 ^ counter.word[3] ^ key_high;
    counter.word[3] = low0;
    key_low += 0x9E3779B9u;
    key_high += 0xBB67AE85u;
  }
  return counter;
}

// The upper 24 bits as a number in [0, 1).
__device__ __forceinline__ float unit_interval(unsigned word) { return (float)(word >> 8) * 5.9604644775390625e-8f; }
