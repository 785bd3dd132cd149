// Which row a convolution runs, and whether by tiles: the cheapest by choose_row.h and tiles.h, or with
// CONVNET_OPS_AUTOTUNE=1 what was fastest when the shape was first met. The answers are kept in the file that
// CONVNET_OPS_AUTOTUNE_FILE names, a line for each shape.
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
  snprintf(text, sizeof text, "%s:%d:%d:%d:m%lld:n%lld:b%lld:v%d.%d:r%lld:t%.4f:d%lld:s%lld.%lld:%s%s", table.family,
           table.count, card.capability, card.multiprocessors, shape.m, shape.n, shape.batches, shape.vec_m, shape.vec_n,
           shape.run, shape.trimmed, shape.depth, shape.least_splits, shape.most_splits, shape.tf32 ? "tf32" : "float32",
           shape.accurate ? ":accurate" : "");
  return text;
}

// A row, or something else that has a name, and its splits: a line of the file.
struct Way {
  std::string name;
  long long splits;
};

static inline int row_named(const GpuRows &table, const std::string &name) {
  for (int i = 0; i < table.count; ++i)
    if (name == table.rows[i].name) return i;
  return -1;
}

// The file's answers, where tuning is asked for; else NULL.
static inline const char *tuning_file() {
  const char *wanted = getenv("CONVNET_OPS_AUTOTUNE");
  return wanted != NULL && strcmp(wanted, "1") == 0 ? getenv("CONVNET_OPS_AUTOTUNE_FILE") : NULL;
}

// Whether the file has an answer.
static inline bool read_tuning(const char *path, const std::string &key, Way *way) {
  FILE *file = fopen(path, "r");
  if (file == NULL) return false;
  char found[400], name[100];
  long long splits;
  bool any = false;
  while (fscanf(file, "%399s %99s %lld", found, name, &splits) == 3)
    if (key == found) {
      way->name = name;
      way->splits = splits < 1 ? 1 : splits;
      any = true;
    }
  fclose(file);
  return any;
}

// Milliseconds of one run(way), the least of three after one that may compile; or -1 with an exception.
template <typename Run>
static double time_way(const Way &way, gpudata *out, Run run) {
  double least = -1;
  for (int i = 0; i < 4; ++i) {
    timespec begin, end;
    gpudata_sync(out);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    if (run(way) != 0) return -1;
    gpudata_sync(out);
    clock_gettime(CLOCK_MONOTONIC, &end);
    const double ms = (end.tv_sec - begin.tv_sec) * 1e3 + (end.tv_nsec - begin.tv_nsec) / 1e6;
    if (i > 0 && (least < 0 || ms < least)) least = ms;
  }
  return least;
}

// The fastest way to compute `out`: the answer for `key` that this process or the file has, if it is one of today's
// (`exists`), else that of timing the candidates. Returns 0, or -1 with an exception.
template <typename Exists, typename Candidates, typename Run>
static int fastest_way(const std::string &key, gpudata *out, Exists exists, Candidates candidates, Run run,
                       Way *best) {
  static std::map<std::string, Way> known;
  const char *path = tuning_file();
  const std::string known_key = key + " " + path;
  if (known.count(known_key) != 0) {
    *best = known[known_key];
    return 0;
  }
  if (!read_tuning(path, key, best) || !exists(*best)) {
    double best_ms = -1;
    const std::vector<Way> ways = candidates();
    for (size_t i = 0; i < ways.size(); ++i) {
      const double ms = time_way(ways[i], out, run);
      if (ms < 0) return -1;
      if (best_ms < 0 || ms < best_ms) {
        best_ms = ms;
        *best = ways[i];
      }
    }
    FILE *file = fopen(path, "a");
    if (file == NULL) {
      PyErr_Format(PyExc_RuntimeError, "CONVNET_OPS_AUTOTUNE_FILE: '%s' cannot be written", path);
      return -1;
    }
    fprintf(file, "%s %s %lld\n", key.c_str(), best->name.c_str(), best->splits);
    fclose(file);
  }
  known[known_key] = *best;
  return 0;
}

// The rows whose estimate is within twice the best one's, each with its best splits and with half and twice as many.
static inline std::vector<Way> likely_rows(const GpuRows &table, const ProductShape &shape, const Card &card) {
  const Choice best = cheapest_row(table, shape, card);
  const double limit = 2 * row_cost(table.rows[best.row], shape, best.splits, card);
  std::vector<Way> ways;
  for (int i = 0; i < table.count; ++i) {
    const GpuRow &row = table.rows[i];
    if (row.weight == 0 || !row_supports(row, shape, card)) continue;
    const long long splits = cheapest_splits(row, shape, card);
    if (row_cost(row, shape, splits, card) > limit) continue;
    for (long long tried = splits / 2; tried <= 2 * splits; tried = tried < splits ? splits : 2 * tried)
      if (tried >= 1 && tried >= shape.least_splits && (tried == 1 || tried <= shape.most_splits)) {
        const Way way = {row.name, tried};
        ways.push_back(way);
      }
  }
  return ways;
}

// Chooses a row and calls run(choice), which writes `out` and may be called several times.
template <typename Run>
static int run_choice(const GpuRows &table, const ProductShape &shape, PyGpuContextObject *context, gpudata *out,
                      Run run) {
  const Card card = card_of(context);
  Choice choice;
  if (named_row(table, shape, card, &choice) != 0) return -1;
  if (choice.row < 0 && tuning_file() != NULL) {
    Way way;
    if (fastest_way(
            tuning_key(table, shape, card), out,
            [&](const Way &known) { return row_named(table, known.name) >= 0; },
            [&] { return likely_rows(table, shape, card); },
            [&](const Way &tried) {
              const Choice tried_choice = {row_named(table, tried.name), tried.splits};
              return run(tried_choice);
            },
            &way) != 0)
      return -1;
    choice.row = row_named(table, way.name);
    choice.splits = way.splits;
  }
  if (choice.row < 0) choice = cheapest_row(table, shape, card);
  print_choice(table, choice, shape, shape.depth);
  return run(choice);
}

#endif
