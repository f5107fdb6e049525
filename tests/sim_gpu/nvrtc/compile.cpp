// A kernel's file is the simulator's prelude and the program's text. Their first part, the prelude and
// whatever the text has before a line `// --- kernels ---`, is precompiled once per content: it is most of
// the compiler's work. A header that the compiler refuses is read as text, so stale ones cost time only.
#include "tests/sim_gpu/nvrtc/compile.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <sstream>

#include "tests/sim_gpu/nvrtc/kernel_text.h"

extern char** environ;

namespace sim_gpu {

extern const char prelude_text[];

namespace {

namespace fs = std::filesystem;

constexpr char kMark[] = "\n// --- kernels ---\n";

class Folder {
 public:
  explicit Folder(const fs::path& parent) {
    std::string name = (parent / "sim-gpu-XXXXXX").string();
    if (mkdtemp(name.data()) != nullptr) path_ = name;
  }
  ~Folder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::string read(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

uint64_t hash(const std::string& text) {
  uint64_t h = 0xcbf29ce484222325;
  for (const unsigned char c : text) h = (h ^ c) * 0x100000001b3;
  return h;
}

/// Where a program lies, by PATH.
std::string locate(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  const char* path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');)
    if (access((folder + '/' + name).c_str(), X_OK) == 0) return folder + '/' + name;
  return name;
}

const std::string& compiler() {
  static const auto* const path = [] {
#ifdef SIM_GPU_ADDRESS
    const char* wanted = nullptr;  // the kernels must use the run-time library of this build's compiler
#else
    const char* wanted = std::getenv("TANDEM_CXX");
#endif
    if (wanted != nullptr && (*wanted == '\0' || std::strcmp(wanted, "none") == 0)) wanted = nullptr;
    return new std::string(locate(wanted != nullptr ? wanted : SIM_GPU_CXX));
  }();
  return *path;
}

std::vector<std::string> fixed_options() {
  std::vector<std::string> out = {"-x",
                                  "c++",
                                  "-std=c++20",
                                  "-O1",
                                  "-fPIC",
                                  "-fno-strict-aliasing",
                                  "-ffp-contract=off",
                                  "-fno-math-errno",
                                  "-fno-trapping-math",
                                  "-fno-exceptions",
                                  "-fno-rtti",
                                  "-fno-stack-protector",
                                  "-fvisibility=hidden",
                                  "-fno-asynchronous-unwind-tables",
                                  "-pipe"};
  if (__builtin_cpu_supports("fma") && __builtin_cpu_supports("avx2")) {
    out.emplace_back("-mavx2");
    out.emplace_back("-mfma");
  }
  const char* checks = std::getenv("SIM_GPU_CHECKS");
  const char* accesses = std::getenv("SIM_GPU_ACCESSES");
  if (accesses != nullptr && std::strcmp(accesses, "1") == 0) {
    out.emplace_back("-fsanitize=thread");
    out.emplace_back("-DSIM_ACCESSES");
    out.emplace_back("-nodefaultlibs");  // not its run-time library
  } else if (checks == nullptr || std::strcmp(checks, "0") != 0)
    out.emplace_back("-fsanitize=alignment,bounds,signed-integer-overflow,integer-divide-by-zero,shift");
#ifdef SIM_GPU_ADDRESS
  out.emplace_back("-fsanitize=address");
  out.emplace_back("-g1");
  out.emplace_back("-fno-omit-frame-pointer");
#endif
  return out;
}

/// Runs the compiler in `folder`, its messages into `log`.
bool run(std::vector<std::string> arguments, const fs::path& folder, std::string* log) {
  const std::string said = (folder / "messages").string();
  std::vector<char*> argv;
  for (std::string& a : arguments) argv.push_back(a.data());
  argv.push_back(nullptr);
  std::vector<char*> environment;
  for (char** e = environ; *e != nullptr; ++e)
    if (std::strncmp(*e, "LD_PRELOAD=", 11) != 0 && std::strncmp(*e, "CPATH=", 6) != 0)
      environment.push_back(*e);
  environment.push_back(nullptr);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&files, 1, said.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
  posix_spawn_file_actions_adddup2(&files, 1, 2);
  pid_t child = 0;
  const int failed = posix_spawn(&child, argv[0], &files, nullptr, argv.data(), environment.data());
  posix_spawn_file_actions_destroy(&files);
  if (failed != 0) {
    *log += "cannot start " + arguments[0] + ": " + std::strerror(failed) + "\n";
    return false;
  }
  int status = 0;
  while (waitpid(child, &status, 0) < 0) {
    if (errno == ECHILD) break;  // somebody else in this process took it: the object tells
    if (errno != EINTR) return false;
  }
  *log += read(said);
  return status == 0;
}

fs::path own_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&compile_kernels), &info) == 0) return {};
  return fs::path(info.dli_fname).parent_path();
}

/// The path of a header with `text`, precompiled; made at first use in any process.
fs::path precompiled(const std::string& text, const std::vector<std::string>& options) {
  static std::mutex mutex;
  static std::map<uint64_t, fs::path> known;
  static Folder* fallback = nullptr;  // where the library's folder cannot be written
  std::string key = text + compiler();
  for (const std::string& o : options) key += '\0' + o;
  struct stat info {};
  if (stat(compiler().c_str(), &info) == 0)
    key += std::to_string(info.st_size) + '.' + std::to_string(info.st_mtime);
  const uint64_t h = hash(key);
  const std::lock_guard<std::mutex> lock(mutex);
  if (const auto found = known.find(h); found != known.end()) return found->second;
  fs::path parent = own_folder() / "precompiled";
  std::error_code error;
  fs::create_directories(parent, error);
  if (access(parent.c_str(), W_OK) != 0) {
    if (fallback == nullptr) {
      fallback = new Folder(fs::temp_directory_path());
      std::atexit([] { delete fallback; });
    }
    parent = fallback->path();
  }
  const fs::path final = parent / std::to_string(h);
  if (!fs::exists(final)) {
    const Folder work(parent);
    const fs::path made = work.path() / "made";
    fs::create_directories(made, error);
    std::ofstream(made / "first.h") << text;
    std::vector<std::string> command = {compiler()};
    command.insert(command.end(), options.begin(), options.end());
    command[2] = "c++-header";
    for (const std::string& a :
         {std::string("-o"), (made / "first.h.gch").string(), (made / "first.h").string()})
      command.push_back(a);
    std::string log;
    if (!run(command, work.path(), &log)) fs::remove(made / "first.h.gch", error);
    fs::rename(made, final, error);  // fails if another process was faster: then its folder serves
  }
  return known[h] = final / "first.h";
}

std::string line_mark(int line, const std::string& name) {
  std::string quoted;
  for (const char c : name) {
    if (c == '"' || c == '\\') quoted += '\\';
    if (c != '\n') quoted += c;
  }
  return "\n#line " + std::to_string(line) + " \"" + quoted + "\"\n";
}

}  // namespace

Compiled compile_kernels(const std::string& text, const std::string& name,
                         const std::vector<std::string>& macros, int architecture) {
  Compiled out;
  const KernelText kernels = prepare_kernel_text(text);
  std::vector<std::string> options = fixed_options();
  options.insert(options.end(), macros.begin(), macros.end());
  options.push_back("-D__CUDA_ARCH__=" + std::to_string(architecture * 10));

  const size_t mark = kernels.text.find(kMark);
  const size_t shared = mark == std::string::npos ? 0 : mark + 1;
  int line = 1;
  for (size_t i = 0; i < shared; ++i) line += kernels.text[i] == '\n' ? 1 : 0;
  std::string first = prelude_text;
  if (shared != 0) first += line_mark(1, name) + kernels.text.substr(0, shared);
  const fs::path header = precompiled(first, options);

  const Folder folder(fs::temp_directory_path());
  if (folder.path().empty()) {
    out.log = "the simulated compiler cannot make a folder for temporary files\n";
    return out;
  }
  const fs::path source = folder.path() / "kernel.cpp", object = folder.path() / "kernel.so";
  std::ofstream(source) << line_mark(line, name) << kernels.text.substr(shared)
                        << kernel_table_text(kernels.kernels);
  std::vector<std::string> command = {compiler()};
  command.insert(command.end(), options.begin(), options.end());
  for (const std::string& a : {std::string("-shared"), std::string("-Wl,-Bsymbolic"), std::string("-include"),
                               header.string(), std::string("-o"), object.string(), source.string()})
    command.push_back(a);
  const bool ran = run(command, folder.path(), &out.log);
  if (ran) out.object = read(object);
  out.ok = !out.object.empty();
  if (!out.ok && out.log.empty()) out.log = compiler() + " failed without a word\n";
  return out;
}

}  // namespace sim_gpu
