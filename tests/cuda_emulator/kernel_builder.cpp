#include "kernel_builder.h"

#include <dlfcn.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <regex>
#include <set>
#include <sstream>

namespace {

const char *const kImageMark = "// An image of the emulated NVRTC, for compute capability ";

// C++17's <math.h> is twice as long as C++14's, and takes longer to read than most kernels; GNU's C++14 knows what kernels
// use of C++17.
const char *const kStandard = " -std=gnu++14 ";

// What the preprocessor makes of the #line before a kernel's text.
const char *const kKernelLine = "# 1 \"kernel.cu\"\n";

std::string read_file(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

bool exists(const std::string &path) { return access(path.c_str(), R_OK) == 0; }

// The folder of this library: build/. The headers lie in the one above.
std::string library_folder() {
  Dl_info info;
  dladdr((void *)&read_file, &info);
  char *resolved = realpath(info.dli_fname, NULL);
  std::string path = resolved;
  free(resolved);
  return path.substr(0, path.rfind('/'));
}

std::string quoted(const std::string &path) { return "'" + std::regex_replace(path, std::regex("'"), "'\\''") + "'"; }

uint64_t fnv(const std::string &text, uint64_t hash) {
  for (unsigned char c : text) hash = (hash ^ c) * 1099511628211ull;
  return hash;
}

std::string content_key(const std::string &text) {
  char key[40];
  snprintf(key, sizeof key, "%016llx%016llx", (unsigned long long)fnv(text, 14695981039346656037ull),
           (unsigned long long)fnv(text, 0x9e3779b97f4a7c15ull));
  return key;
}

std::string compiler() {
  const char *chosen = getenv("CUDA_EMULATOR_CXX");
  return chosen == NULL ? "g++" : chosen;
}

std::string mode_flags(const std::string &mode) {
  if (mode == "address") return " -fsanitize=address";
  // Calls of __tsan_read4 and its kind at every access; runtime.cpp defines them, ThreadSanitizer's library stays out.
  if (mode == "race") return " -fsanitize=thread";
  return "";
}

// Precompiles `header` into a folder of its own: reading it, and what it includes, takes longer than compiling many a kernel.
void precompile(const std::string &compile, const std::string &header, const std::string &folder) {
  const std::string built = folder + "/builtins.h.gch", work = folder + "/" + std::to_string(getpid());
  if (exists(built)) return;
  mkdir(folder.c_str(), 0777);
  // Several processes may come here at once.
  if (system((compile + " -x c++-header " + quoted(header) + " -o " + quoted(work)).c_str()) == 0)
    rename(work.c_str(), built.c_str());
}

// The position after the bracket that closes the one at `open`.
size_t after_bracket(const std::string &text, size_t open) {
  int depth = 0;
  for (size_t i = open; i < text.size(); ++i) {
    if (text[i] == '(') ++depth;
    if (text[i] == ')' && --depth == 0) return i + 1;
  }
  return text.size();
}

// Preprocessed text with __shared__, __global__ and __launch_bounds__ of the kernel's own lines turned into C++. Line numbers
// stay what they are.
std::string rewritten(const std::string &preprocessed) {
  // The headers before them are most of the text, and searching it would take longer than compiling the kernel.
  const size_t begin_of_kernel = std::min(preprocessed.find(kKernelLine), preprocessed.size());
  std::string text = preprocessed.substr(begin_of_kernel);
  // The only PTX in cluda.h.
  static const std::regex from_half("asm\\(\"\\{ cvt\\.f32\\.f16 [^:]*: *\"=f\"\\(([^)]*)\\) *: *\"h\"\\(([^)]*)\\)\\);");
  static const std::regex to_half("asm\\(\"\\{ cvt\\.rn\\.f16\\.f32 [^:]*: *\"=h\"\\(([^)]*)\\) *: *\"f\"\\(([^)]*)\\)\\);");
  text = std::regex_replace(text, from_half, "$1 = emulator_half_to_float($2);");
  text = std::regex_replace(text, to_half, "$1 = emulator_float_to_half($2);");
  static const std::regex dynamic("extern\\s+__shared__\\s+([\\w ]+?)\\s+(\\w+)\\s*\\[\\s*\\]\\s*;");
  text = std::regex_replace(text, dynamic, "$1 *$2 = ($1 *)emulator_dynamic_shared();");
  static const std::regex shared(
      "__shared__\\s+(?:__attribute__\\(\\(aligned\\((\\d+)\\)\\)\\)\\s+)?([\\w ]+?)\\s+(\\w+\\s*[^;()]*);");
  static const std::regex declarator("(\\w+)\\s*((?:\\[[^\\]]*\\]\\s*)*),?\\s*");
  std::string result;
  std::smatch found;
  auto begin = text.cbegin();
  while (std::regex_search(begin, text.cend(), found, shared)) {
    result.append(begin, found[0].first);
    const std::string type = found[2], names = found[3];
    const std::string alignment = found[1].matched ? found[1].str() : "alignof(" + type + ")";
    for (std::sregex_iterator it(names.begin(), names.end(), declarator), end; it != end; ++it) {
      const std::string name = (*it)[1], dims = (*it)[2];
      result += "static char " + name + "_key; " + type + " (&" + name + ")" + dims + " = *(" + type + " (*)" + dims +
                ")emulator_shared(&" + name + "_key, \"" + name + "\", sizeof(" + type + dims + "), " + alignment + "); ";
    }
    begin = found[0].second;
  }
  result.append(begin, text.cend());
  text = result;

  std::set<std::string> described;
  std::string descriptions;
  size_t at;
  while ((at = text.find("__global__")) != std::string::npos) {
    text.replace(at, 10, "");
    std::string bounds = "1024";
    const size_t name_end = [&] {
      for (;;) {
        const size_t open = text.find('(', at);
        const size_t limit = text.find("__launch_bounds__", at);
        if (limit == std::string::npos || limit > open) return open;
        const size_t close = after_bracket(text, open);
        bounds = text.substr(open + 1, close - open - 2);
        bounds = bounds.substr(0, bounds.find(','));
        text.erase(limit, close - limit);
      }
    }();
    static const std::regex last_word("(\\w+)\\s*$");
    std::smatch word;
    const std::string head = text.substr(at, name_end - at);
    if (!std::regex_search(head, word, last_word)) continue;
    // Under a name of its own: a device function may be its overload.
    const std::string name = word[1], entry = "emulated_" + name;
    text.insert(at + word.position(1), "emulated_");
    if (!described.insert(name).second) continue;
    const std::string caller = "emulator::Caller<decltype(" + entry + "), &" + entry + ">";
    descriptions += "extern \"C\" const EmulatorKernel emulator_kernel_" + name + " = {\"" + name + "\", &" + caller +
                    "::run, " + caller + "::count, " + caller + "::sizes, " + bounds + "};\n";
  }
  return preprocessed.substr(0, begin_of_kernel) + text + "\n" + descriptions;
}

}  // namespace

std::string checked_mode() {
  const char *mode = getenv("CUDA_EMULATOR_CHECK");
  return mode == NULL ? "" : mode;
}

std::string to_image(const std::string &source, const std::string &capability) {
  return kImageMark + capability + "\n" + source;
}

bool from_image(const char *image, std::string *source, std::string *capability) {
  const std::string text(image), mark(kImageMark);
  const size_t end = text.find('\n');
  if (text.compare(0, mark.size(), mark) != 0 || end == std::string::npos) return false;
  *capability = text.substr(mark.size(), end - mark.size());
  *source = text.substr(end + 1);
  return true;
}

BuiltKernel build_kernel(const std::string &source, const std::string &capability) {
  static const std::string folder = library_folder(), above = folder.substr(0, folder.rfind('/'));
  static const std::string headers =
      read_file(above + "/builtins.h") + read_file(above + "/runtime.h") + read_file(above + "/kernel_builder.cpp");
  const std::string mode = checked_mode();
  const std::string flags =
      kStandard + std::string("-O1 -g1 -gdwarf-4 -fPIC -w -fno-strict-aliasing -ffp-contract=fast") + mode_flags(mode);
  const std::string shared_key = compiler() + flags + '\0' + headers;
  const std::string key = content_key(source + '\0' + capability + '\0' + shared_key);
  const std::string kernels = folder + "/kernels", built = kernels + "/" + key + ".so";
  if (exists(built)) return {built, ""};

  mkdir(kernels.c_str(), 0777);
  const std::string work = kernels + "/" + key + "." + std::to_string(getpid());
  std::ofstream(work + ".cpp") << "#define __CUDA_ARCH__ " << capability << "0\n#include \"builtins.h\"\n#line 1 \"kernel.cu\"\n"
                               << source;
  // Without the sanitizer's library that a test process may have preloaded.
  const std::string run = "env -u LD_PRELOAD " + compiler(), log = " >>" + quoted(work + ".log") + " 2>&1";
  const std::string precompiled = kernels + "/headers_" + content_key(shared_key);
  precompile(run + flags, above + "/builtins.h", precompiled);
  // -fpch-preprocess leaves the precompiled header to be read by the compiler.
  bool good = system((run + flags + " -E -fpch-preprocess -I " + quoted(precompiled) + " -I " + quoted(above) + " " +
                      quoted(work + ".cpp") + " -o " + quoted(work + ".i") + log).c_str()) == 0;
  if (good) {
    std::ofstream(work + ".ii") << rewritten(read_file(work + ".i"));
    good = system((run + flags + " -c " + quoted(work + ".ii") + " -o " + quoted(work + ".o") + log).c_str()) == 0 &&
           // The race check's calls lead to this library, so the sanitizer stays out of the link.
           system((run + " -shared " + (mode == "address" ? "-fsanitize=address " : "") + quoted(work + ".o") + " -o " +
                   quoted(work + ".so") + " " + quoted(folder + "/libcuda.so") + log).c_str()) == 0;
  }
  BuiltKernel result = {good ? built : "", read_file(work + ".log")};
  if (good) rename((work + ".so").c_str(), built.c_str());
  for (const char *suffix : {".cpp", ".i", ".ii", ".o", ".log"}) unlink((work + suffix).c_str());
  return result;
}
