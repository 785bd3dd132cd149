// libnvrtc.so: the functions that libgpuarray uses. Programs are compiled by the host's compiler.
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <map>
#include <string>

#include "kernel_builder.h"

namespace {

enum Result { kSuccess = 0, kInvalidInput = 3, kInvalidProgram = 4, kInvalidOption = 5, kCompilation = 6 };

// What CUDA 13 compiles for.
const char *const kCapabilities[] = {"75", "80", "86", "87", "88", "89", "90", "100", "103", "110", "120", "121"};

struct Program {
  std::string source, image, log;
};

}  // namespace

extern "C" {

int nvrtcCreateProgram(Program **program, const char *source, const char *, int header_count, const char **headers,
                       const char **names) {
  if (program == NULL || source == NULL) return kInvalidInput;
  *program = new Program{source, "", ""};
  std::string &text = (*program)->source;
  for (int i = 0; i < header_count; ++i) {
    const std::string include = "#include \"" + std::string(names[i]) + "\"";
    const size_t at = text.find(include);
    if (at != std::string::npos) text.replace(at, include.size(), headers[i]);
  }
  return kSuccess;
}

int nvrtcDestroyProgram(Program **program) {
  if (program == NULL || *program == NULL) return kInvalidProgram;
  delete *program;
  *program = NULL;
  return kSuccess;
}

int nvrtcCompileProgram(Program *program, int count, const char **options) {
  std::string capability = "90";
  for (int i = 0; i < count; ++i) {
    const std::string option = options[i];
    const size_t at = option.find("compute_");
    if (at != std::string::npos) {
      capability = option.substr(at + 8);
      if (std::find(std::begin(kCapabilities), std::end(kCapabilities), capability) == std::end(kCapabilities)) {
        program->log = "nvrtc: error: invalid value for --gpu-architecture (-arch): " + option;
        return kInvalidOption;
      }
    } else if (option != "-arch" && option != "-G" && option != "-lineinfo") {
      program->log = "the emulated NVRTC does not know the option " + option;
      return kInvalidOption;
    }
  }
  const BuiltKernel built = build_kernel(program->source, capability);
  program->log = built.log;
  if (built.path.empty()) {
    // Callers often lose the log.
    fprintf(stderr, "emulated NVRTC: %s\n", built.log.c_str());
    return kCompilation;
  }
  program->image = to_image(program->source, capability);
  return kSuccess;
}

int nvrtcGetPTXSize(Program *program, size_t *size) {
  *size = program->image.size() + 1;
  return kSuccess;
}

int nvrtcGetPTX(Program *program, char *ptx) {
  memcpy(ptx, program->image.c_str(), program->image.size() + 1);
  return kSuccess;
}

int nvrtcGetProgramLogSize(Program *program, size_t *size) {
  *size = program->log.size() + 1;
  return kSuccess;
}

int nvrtcGetProgramLog(Program *program, char *log) {
  memcpy(log, program->log.c_str(), program->log.size() + 1);
  return kSuccess;
}

const char *nvrtcGetErrorString(int result) {
  switch (result) {
    case kSuccess: return "NVRTC_SUCCESS";
    case kInvalidInput: return "NVRTC_ERROR_INVALID_INPUT";
    case kInvalidProgram: return "NVRTC_ERROR_INVALID_PROGRAM";
    case kInvalidOption: return "NVRTC_ERROR_INVALID_OPTION";
    case kCompilation: return "NVRTC_ERROR_COMPILATION";
  }
  return "an unknown error of NVRTC";
}

}  // extern "C"
