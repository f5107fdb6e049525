#include "tandem/core/env.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>

namespace tandem::core {

namespace {

std::string text(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr ? value : "";
}

void complain(const char* variable, const std::string& value, const char* expected) {
  std::fprintf(stderr, "tandem: %s=%s is ignored; expected %s\n", variable, value.c_str(), expected);
}

bool flag(const char* variable, bool otherwise) {
  const std::string value = text(variable);
  if (value.empty()) return otherwise;
  if (value == "0" || value == "1") return value == "1";
  complain(variable, value, "0 or 1");
  return otherwise;
}

int number(const char* variable, int least, int most, int otherwise) {
  const std::string value = text(variable);
  if (value.empty()) return otherwise;
  char* end = nullptr;
  const long parsed = std::strtol(value.c_str(), &end, 10);
  if (*end == '\0' && parsed >= least && parsed <= most) return static_cast<int>(parsed);
  const std::string expected = "a number from " + std::to_string(least) + " to " + std::to_string(most);
  complain(variable, value, expected.c_str());
  return otherwise;
}

std::string cache_folder() {
  if (const std::string chosen = text("TANDEM_CACHE_DIR"); !chosen.empty()) return chosen;
  if (const std::string xdg = text("XDG_CACHE_HOME"); !xdg.empty()) return xdg + "/tandem";
  if (const std::string home = text("HOME"); !home.empty()) return home + "/.cache/tandem";
  return "off";
}

std::string dump_setting() {
  const std::string value = text("TANDEM_DUMP");
  const std::string kinds = ",graph,passes,kernels,plan,";
  const size_t end = std::min(value.find(':'), value.size());
  for (size_t at = 0; at < end;) {
    const size_t next = std::min(value.find(',', at), end);
    if (kinds.find(',' + value.substr(at, next - at) + ',') == std::string::npos) {
      complain("TANDEM_DUMP", value, "some of graph,passes,kernels,plan, then perhaps :folder");
      return "";
    }
    at = next + 1;
  }
  return value;
}

Environment read() {
  Environment e;
  e.log = text("TANDEM_LOG");
  e.cache_dir = cache_folder();
  e.compiler = text("TANDEM_CXX");
  e.dump = dump_setting();
  e.num_threads = number("TANDEM_NUM_THREADS", 1, 256, 0);
  e.jit = flag("TANDEM_JIT", true);
  e.winograd = flag("TANDEM_WINOGRAD", true);
#ifdef TANDEM_DEBUG_MEMORY
  e.poison = flag("TANDEM_POISON", true);
#else
  e.poison = flag("TANDEM_POISON", false);
#endif
  e.cuda_path = text("TANDEM_CUDA_PATH");
  e.cuda_home = text("CUDA_HOME");
  e.python_environment = text("VIRTUAL_ENV");
  if (e.python_environment.empty()) e.python_environment = text("CONDA_PREFIX");
  e.sync = flag("TANDEM_SYNC", false);
  e.cuda_exact = flag("TANDEM_CUDA_EXACT", false);
  e.cuda_tune = flag("TANDEM_CUDA_TUNE", false);
  return e;
}

}  // namespace

const Environment& environment() {
  static const Environment& settings = *new const Environment(read());  // outlives static destructors
  return settings;
}

bool dumps(const char* what) {
  const std::string& setting = environment().dump;
  const std::string kinds = ',' + setting.substr(0, setting.find(':')) + ',';
  return kinds.find(',' + std::string(what) + ',') != std::string::npos;
}

void dump(const char* what, const std::string& text) {
  if (!dumps(what)) return;
  const std::string& setting = environment().dump;
  const size_t colon = setting.find(':');
  if (colon == std::string::npos) {
    const std::string whole = std::string("--- ") + what + '\n' + text + '\n';
    std::fwrite(whole.data(), 1, whole.size(), stderr);
    return;
  }
  static std::atomic<int> count{0};
  const std::string folder = setting.substr(colon + 1);
  const std::string file = std::to_string(getpid()) + '-' + std::to_string(++count) + '.' + what + ".txt";
  std::error_code ignored;  // a folder that is not there is found below
  std::filesystem::create_directories(folder, ignored);
  std::ofstream out(std::filesystem::path(folder) / file, std::ios::binary);
  out << text << std::flush;
  static std::once_flag told;
  if (!out) std::call_once(told, [&] { complain("TANDEM_DUMP", setting, "a folder to write to"); });
}

}  // namespace tandem::core
