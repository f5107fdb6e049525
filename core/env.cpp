#include "tandem/core/env.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>

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

}  // namespace tandem::core
