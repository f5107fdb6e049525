// The simulated NVRTC: its C functions over compile.h. A program belongs to its maker; different programs may
// be compiled by different threads at once.
#include <algorithm>
#include <cstring>
#include <iterator>
#include <string>
#include <vector>

#include "tandem/core/cuda/api.h"
#include "tests/sim_gpu/driver_control.h"
#include "tests/sim_gpu/image.h"
#include "tests/sim_gpu/nvrtc/compile.h"

namespace tandem::cuda {

struct ProgramOfNvrtc {
  std::string text, name, log;
  std::string image;  // empty until compiled
  bool ptx = false;
};

}  // namespace tandem::cuda

namespace sim_gpu {

using Program = tandem::cuda::ProgramOfNvrtc*;

// nvrtcResult
constexpr int kSuccess = 0, kOutOfMemory = 1, kInvalidInput = 3, kInvalidProgram = 4, kInvalidOption = 5,
              kCompilation = 6;

#define TANDEM_CUDA(result, name, symbol, parameters) extern "C" SIM_GPU_EXPORT result symbol parameters;
#include "tandem/core/cuda/nvrtc.def"
#undef TANDEM_CUDA

namespace {

constexpr int kArchitectures[] = {75, 80, 86, 89, 90};

struct Options {
  int architecture = 75;
  bool ptx = false;
  std::vector<std::string> macros;
  std::string refused;  // the first that NVRTC would refuse
};

/// `value` of `-name=value` or `--name=value`.
bool takes(const std::string& option, const char* name, std::string* value) {
  const size_t dashes = option.compare(0, 2, "--") == 0 ? 2 : 1;
  const std::string head = std::string(name) + '=';
  if (option[0] != '-' || option.compare(dashes, head.size(), head) != 0) return false;
  *value = option.substr(dashes + head.size());
  return true;
}

bool is_flag(const std::string& option) {
  for (const char* known :
       {"use_fast_math", "default-device", "device-as-default-execution-space", "lineinfo",
        "generate-line-info", "restrict", "w", "disable-warnings", "extra-device-vectorization", "no-cache",
        "minimal", "device-debug", "G", "extensible-whole-program", "no-source-include",
        "display-error-number", "err-no", "pch"})
    if (option == std::string("-") + known || option == std::string("--") + known) return true;
  return false;
}

Options read_options(int n, const char* const* options) {
  Options out;
  for (int i = 0; i < n && out.refused.empty(); ++i) {
    const std::string option = options[i];
    std::string value;
    if (takes(option, "gpu-architecture", &value) || takes(option, "arch", &value)) {
      out.ptx = value.compare(0, 8, "compute_") == 0;
      const bool code = value.compare(0, 3, "sm_") == 0;
      if (out.ptx || code) out.architecture = std::atoi(value.c_str() + (code ? 3 : 8));
      if (std::find(std::begin(kArchitectures), std::end(kArchitectures), out.architecture) ==
              std::end(kArchitectures) ||
          !(out.ptx || code))
        out.refused = option;
    } else if (takes(option, "std", &value)) {
      if (value != "c++17" && value != "c++20" && value != "c++14" && value != "c++11" && value != "c++03")
        out.refused = option;
    } else if (takes(option, "fmad", &value) || takes(option, "prec-div", &value) ||
               takes(option, "prec-sqrt", &value) || takes(option, "ftz", &value) ||
               takes(option, "relocatable-device-code", &value) || takes(option, "rdc", &value)) {
      if (value != "true" && value != "false") out.refused = option;
    } else if (takes(option, "define-macro", &value)) {
      out.macros.push_back("-D" + value);
    } else if (option.compare(0, 2, "-D") == 0 && option.size() > 2) {
      out.macros.push_back(option);
    } else if (!(takes(option, "maxrregcount", &value) || takes(option, "ptxas-options", &value) ||
                 takes(option, "diag-suppress", &value) || takes(option, "diag-error", &value) ||
                 takes(option, "dopt", &value) || takes(option, "split-compile", &value) ||
                 takes(option, "optimization-info", &value) || takes(option, "include-path", &value) ||
                 option.compare(0, 2, "-I") == 0 || is_flag(option))) {
      out.refused = option;
    }
  }
  return out;
}

}  // namespace

int nvrtcVersion(int* major, int* minor) {
  if (major == nullptr || minor == nullptr) return kInvalidInput;
  Dl_info info{};
  const bool older = dladdr(reinterpret_cast<void*>(&nvrtcVersion), &info) != 0 &&
                     std::strstr(info.dli_fname, ".so.12") != nullptr;
  *major = older ? 12 : 13;
  *minor = older ? 4 : 0;
  return kSuccess;
}

int nvrtcGetNumSupportedArchs(int* count) {
  if (count == nullptr) return kInvalidInput;
  *count = static_cast<int>(std::size(kArchitectures));
  return kSuccess;
}

int nvrtcGetSupportedArchs(int* architectures) {
  if (architectures == nullptr) return kInvalidInput;
  std::copy(std::begin(kArchitectures), std::end(kArchitectures), architectures);
  return kSuccess;
}

const char* nvrtcGetErrorString(int error) {
  switch (error) {
    case kSuccess:
      return "NVRTC_SUCCESS";
    case kOutOfMemory:
      return "NVRTC_ERROR_OUT_OF_MEMORY";
    case kInvalidInput:
      return "NVRTC_ERROR_INVALID_INPUT";
    case kInvalidProgram:
      return "NVRTC_ERROR_INVALID_PROGRAM";
    case kInvalidOption:
      return "NVRTC_ERROR_INVALID_OPTION";
    case kCompilation:
      return "NVRTC_ERROR_COMPILATION";
    default:
      return "NVRTC_ERROR unknown";
  }
}

int nvrtcCreateProgram(Program* program, const char* source, const char* name, int n_headers,
                       const char* const* headers, const char* const* include_names) {
  if (program == nullptr || source == nullptr || n_headers < 0) return kInvalidInput;
  if (n_headers > 0 && (headers == nullptr || include_names == nullptr)) return kInvalidInput;
  if (made_to_fail("nvrtcCreateProgram")) return kOutOfMemory;
  *program = new tandem::cuda::ProgramOfNvrtc{source, name != nullptr ? name : "default_program", "", ""};
  return kSuccess;
}

int nvrtcDestroyProgram(Program* program) {
  if (program == nullptr || *program == nullptr) return kInvalidProgram;
  delete *program;
  *program = nullptr;
  return kSuccess;
}

int nvrtcCompileProgram(Program program, int n_options, const char* const* options) {
  if (program == nullptr) return kInvalidProgram;
  program->image.clear();
  const Options read = read_options(n_options, options);
  if (!read.refused.empty()) {
    program->log = "nvrtc: error: unrecognized option " + read.refused + " found\n";
    return kInvalidOption;
  }
  if (made_to_fail("nvrtcCompileProgram")) {
    program->log = "made to fail\n";
    return kOutOfMemory;
  }
  if (auto* const add = SIM_GPU_CONTROL(sim_gpu_add)) add("compiles", 1);
  const Compiled compiled = compile_kernels(program->text, program->name, read.macros, read.architecture);
  program->log = compiled.log;
  if (!compiled.ok) return kCompilation;
  ImageHead head;
  head.bytes = compiled.object.size();
  head.architecture = read.architecture;
  head.ptx = program->ptx = read.ptx;
  program->image.assign(reinterpret_cast<const char*>(&head), sizeof head);
  program->image += compiled.object;
  return kSuccess;
}

int nvrtcGetProgramLogSize(Program program, size_t* bytes) {
  if (program == nullptr || bytes == nullptr) return kInvalidInput;
  *bytes = program->log.size() + 1;
  return kSuccess;
}

int nvrtcGetProgramLog(Program program, char* text) {
  if (program == nullptr || text == nullptr) return kInvalidInput;
  std::memcpy(text, program->log.c_str(), program->log.size() + 1);
  return kSuccess;
}

int nvrtcGetCUBINSize(Program program, size_t* bytes) {
  if (program == nullptr || bytes == nullptr) return kInvalidInput;
  if (program->image.empty()) return kInvalidProgram;
  *bytes = program->ptx ? 0 : program->image.size();
  return kSuccess;
}

int nvrtcGetCUBIN(Program program, char* image) {
  if (program == nullptr || image == nullptr) return kInvalidInput;
  if (program->image.empty() || program->ptx) return kInvalidProgram;
  std::memcpy(image, program->image.data(), program->image.size());
  return kSuccess;
}

// Only of a virtual architecture, though the real one has it for all.
int nvrtcGetPTXSize(Program program, size_t* bytes) {
  if (program == nullptr || bytes == nullptr) return kInvalidInput;
  if (program->image.empty() || !program->ptx) return kInvalidProgram;
  *bytes = program->image.size();
  return kSuccess;
}

int nvrtcGetPTX(Program program, char* text) {
  if (program == nullptr || text == nullptr) return kInvalidInput;
  if (program->image.empty() || !program->ptx) return kInvalidProgram;
  std::memcpy(text, program->image.data(), program->image.size());
  return kSuccess;
}

}  // namespace sim_gpu
