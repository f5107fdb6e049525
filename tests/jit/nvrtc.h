// NVRTC as tests use it: the log with what the assembler says, and PTX. Skips, and says so, where there is no
// NVRTC. One thread.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "tandem/core/cuda/libraries.h"
#include "tandem/jit/print_cuda.h"

namespace tandem::jit::samples {

inline bool has_nvrtc() {
  if (cuda::nvrtc() != nullptr) return true;
  std::fprintf(stderr, "skipped: %s\n", cuda::why_no_nvrtc().c_str());
  return false;
}

struct NvrtcResult {
  int failed = 0;
  std::string log, ptx;
  size_t cubin_bytes = 0;
};

/// The prelude and `kernels`.
inline NvrtcResult nvrtc_compile(const std::string& kernels, std::vector<std::string> options) {
  const cuda::Nvrtc& api = *cuda::nvrtc();
  cuda::Nvrtc::Program program = nullptr;
  NvrtcResult r;
  const std::string source = cuda_prelude() + kernels;
  r.failed = api.create(&program, source.c_str(), "kernels.cu", 0, nullptr, nullptr);
  if (r.failed != 0) return r;
  options.emplace_back("--ptxas-options=-v");
  std::vector<const char*> words;
  for (const std::string& o : options) words.push_back(o.c_str());
  r.failed = api.compile(program, static_cast<int>(words.size()), words.data());
  size_t bytes = 0;
  if (api.log_size(program, &bytes) == 0 && bytes > 0) {
    r.log.resize(bytes);
    api.log(program, r.log.data());
  }
  if (r.failed == 0 && api.ptx_size(program, &bytes) == 0) {
    r.ptx.resize(bytes);
    api.ptx(program, r.ptx.data());
  }
  if (r.failed == 0) api.cubin_size(program, &r.cubin_bytes);
  api.destroy(&program);
  return r;
}

/// The same for a device of `capability`.
inline NvrtcResult nvrtc_compile(const std::string& kernels, int capability = 90) {
  return nvrtc_compile(kernels, cuda_options(capability));
}

/// How often `part` stands in `text`.
inline int count(const std::string& text, const std::string& part) {
  int n = 0;
  for (size_t i = text.find(part); i != std::string::npos; i = text.find(part, i + part.size())) ++n;
  return n;
}

}  // namespace tandem::jit::samples
