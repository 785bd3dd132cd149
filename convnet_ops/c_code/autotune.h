// Which row a convolution runs: the cheapest by choose_row.h, or with CONVNET_OPS_AUTOTUNE=1 the one that was fastest when the
// shape was first met. The answers are kept in the file that CONVNET_OPS_AUTOTUNE_FILE names, a line for each shape.
#ifndef CONVNET_OPS_AUTOTUNE_H
#define CONVNET_OPS_AUTOTUNE_H

#include <map>
#include <string>
#include <vector>

#include <stdio.h>
#include <time.h>

#include "gpu_launch.h"

// What an answer depends on: the card, the table with its rows, and all that choose_row.h knows of the shape.
static inline std::string tuning_key(const GpuRows &table, const ProductShape &shape, const Card &card) {
  char text[400];
  snprintf(text, sizeof text, "%s:%d:%d:%d:m%lld:n%lld:b%lld:v%d.%d:r%lld:t%.4f:d%lld:s%lld.%lld:%s", table.family,
           table.count, card.capability, card.multiprocessors, shape.m, shape.n, shape.batches, shape.vec_m, shape.vec_n,
           shape.run, shape.trimmed, shape.depth, shape.least_splits, shape.most_splits, shape.tf32 ? "tf32" : "float32");
  return text;
}

// The answer that the file holds, or row -1. A line that names no row of today's table is no answer.
static inline Choice read_tuning(const char *path, const std::string &key, const GpuRows &table) {
  Choice choice = {-1, 1};
  FILE *file = fopen(path, "r");
  if (file == NULL) return choice;
  char found[400], name[100];
  long long splits;
  while (fscanf(file, "%399s %99s %lld", found, name, &splits) == 3)
    if (key == found)
      for (int i = 0; i < table.count; ++i)
        if (strcmp(name, table.rows[i].name) == 0) {
          choice.row = i;
          choice.splits = splits < 1 ? 1 : splits;
        }
  fclose(file);
  return choice;
}

// Milliseconds of one call of run, the least of three after one that may compile; or -1 with an exception.
template <typename Run>
static double time_choice(const Choice &choice, PyGpuArrayObject *out, Run run) {
  double least = -1;
  for (int i = 0; i < 4; ++i) {
    timespec begin, end;
    GpuArray_sync(&out->ga);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    if (run(choice) != 0) return -1;
    GpuArray_sync(&out->ga);
    clock_gettime(CLOCK_MONOTONIC, &end);
    const double ms = (end.tv_sec - begin.tv_sec) * 1e3 + (end.tv_nsec - begin.tv_nsec) / 1e6;
    if (i > 0 && (least < 0 || ms < least)) least = ms;
  }
  return least;
}

// Times the rows whose estimate is within twice the best one's, each with its best splits and with half and twice as many.
// Returns 0, or -1 with an exception.
template <typename Run>
static int tune(const GpuRows &table, const ProductShape &shape, const Card &card, PyGpuArrayObject *out, Run run,
                Choice *best) {
  *best = cheapest_row(table, shape, card);
  const double limit = 2 * row_cost(table.rows[best->row], shape, best->splits, card);
  double best_ms = -1;
  std::vector<Choice> candidates;
  for (int i = 0; i < table.count; ++i) {
    const GpuRow &row = table.rows[i];
    if (row.weight == 0 || !row_supports(row, shape, card)) continue;
    const long long splits = cheapest_splits(row, shape, card);
    if (row_cost(row, shape, splits, card) > limit) continue;
    for (long long tried = splits / 2; tried <= 2 * splits; tried = tried < splits ? splits : 2 * tried)
      if (tried >= 1 && tried >= shape.least_splits && (tried == 1 || tried <= shape.most_splits)) {
        const Choice candidate = {i, tried};
        candidates.push_back(candidate);
      }
  }
  for (size_t i = 0; i < candidates.size(); ++i) {
    const double ms = time_choice(candidates[i], out, run);
    if (ms < 0) return -1;
    if (best_ms < 0 || ms < best_ms) {
      best_ms = ms;
      *best = candidates[i];
    }
  }
  return 0;
}

// Chooses a row and calls run(choice), which writes `out` and may be called several times.
template <typename Run>
static int run_choice(const GpuRows &table, const ProductShape &shape, PyGpuContextObject *context,
                      PyGpuArrayObject *out, Run run) {
  const Card card = card_of(context);
  Choice choice;
  if (named_row(table, shape, card, &choice) != 0) return -1;
  const char *wanted = getenv("CONVNET_OPS_AUTOTUNE"), *path = getenv("CONVNET_OPS_AUTOTUNE_FILE");
  if (choice.row < 0 && wanted != NULL && strcmp(wanted, "1") == 0 && path != NULL) {
    static std::map<std::string, Choice> known;
    const std::string key = tuning_key(table, shape, card), known_key = key + " " + path;
    if (known.count(known_key) == 0) {
      choice = read_tuning(path, key, table);
      if (choice.row < 0) {
        if (tune(table, shape, card, out, run, &choice) != 0) return -1;
        FILE *file = fopen(path, "a");
        if (file == NULL) {
          PyErr_Format(PyExc_RuntimeError, "CONVNET_OPS_AUTOTUNE_FILE: '%s' cannot be written", path);
          return -1;
        }
        fprintf(file, "%s %s %lld\n", key.c_str(), table.rows[choice.row].name, choice.splits);
        fclose(file);
      }
      known[known_key] = choice;
    }
    choice = known[known_key];
  }
  if (choice.row < 0) choice = cheapest_row(table, shape, card);
  print_choice(table, choice, shape, shape.depth);
  return run(choice);
}

#endif
