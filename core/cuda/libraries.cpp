#include "tandem/core/cuda/libraries.h"

#include <dlfcn.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <vector>

#include "tandem/core/cuda/cudnn_api.h"
#include "tandem/core/env.h"
#include "tandem/core/log.h"

namespace tandem::cuda {

namespace {

namespace fs = std::filesystem;

/// Folders that may hold the libraries, in the order of the search; "" stands for the loader's own path.
std::vector<std::string> folders() {
  const core::Environment& env = core::environment();
  std::vector<std::string> out;
  for (size_t at = 0; at < env.cuda_path.size();) {
    const size_t end = std::min(env.cuda_path.find(':', at), env.cuda_path.size());
    const std::string folder = env.cuda_path.substr(at, end - at);
    if (!folder.empty())
      for (const char* below : {"", "/lib64", "/lib"}) out.push_back(folder + below);
    at = end + 1;
  }
  out.emplace_back();
  if (!env.cuda_home.empty()) out.push_back(env.cuda_home + "/lib64");
  if (const std::string usual = "/usr/local/cuda/lib64"; out.back() != usual) out.push_back(usual);
  std::error_code ignored;
  if (!env.python_environment.empty())
    for (const auto& python : fs::directory_iterator(env.python_environment + "/lib", ignored))
      for (const auto& part : fs::directory_iterator(python.path() / "site-packages" / "nvidia", ignored))
        out.push_back((part.path() / "lib").string());
  return out;
}

struct Opened {
  void* handle = nullptr;
  std::string missing;
};

/// A release of CUDA's; 0 if it is not known.
struct Release {
  int major = 0, minor = 0;
};
std::string to_string(Release r) { return std::to_string(r.major) + '.' + std::to_string(r.minor); }

/// The newest release that the driver runs programs of.
Release driver_release() {
  int version = 0;
  const Driver* const api = driver();
  if (!api || api->driver_version(&version) != Result::success) return {};
  return {version / 1000, version % 1000 / 10};
}

/// NVRTC asks for its builtins by their bare name, which is found outside the loader's path only if they are
/// open already.
void open_builtins(const std::string& folder) {
  std::error_code ignored;
  for (const auto& file : fs::directory_iterator(folder, ignored))
    if (file.path().filename().string().starts_with("libnvrtc-builtins.so."))
      dlopen(file.path().c_str(), RTLD_NOW | RTLD_LOCAL);
}

/// Which releases of CUDA a library may be of.
struct Bound {
  Release (*release)(void* handle) = nullptr;  // of a library; null: any
  Release newest;                              // any, if it is not known
  bool same = false;                           // of that major version, or of an older one, too
  const char* whose = "the driver";

  bool allows(Release found) const {
    if (newest.major == 0 || found.major == 0) return true;
    return same ? found.major == newest.major : found.major <= newest.major;
  }
};

/// A driver runs what libraries of its own major version make, and of older ones.
Bound up_to_driver(Release (*release)(void* handle)) { return {release, driver_release()}; }

Opened open(const char* what, std::initializer_list<const char*> names, const Bound& bound) {
  std::string looked, others;
  for (const std::string& folder : folders()) {
    for (const char* name : names) {
      const std::string path = folder.empty() ? name : folder + '/' + name;
      void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
      if (!handle) continue;
      const Release found = bound.release && bound.newest.major > 0 ? bound.release(handle) : Release{};
      std::string text = std::string(what) + ": " + path;
      if (!bound.release || bound.allows(found)) {
        core::log(core::LogArea::jit, core::LogLevel::info, text);
        if (!folder.empty()) open_builtins(folder);
        return {handle, ""};
      }
      dlclose(handle);
      text += " is of CUDA " + to_string(found) +
              (bound.same ? std::string(", ") + bound.whose + " of " + to_string(bound.newest)
                          : std::string(", newer than ") + bound.whose);
      core::log(core::LogArea::jit, core::LogLevel::info, text);
      others += (others.empty() ? "" : ", ") + to_string(found) + " in " +
                (folder.empty() ? "the loader's path" : folder);
    }
    looked += (looked.empty() ? "" : ", ") + (folder.empty() ? std::string("the loader's path") : folder);
  }
  std::string wanted;
  if (!others.empty())
    return {nullptr, std::string(what) + " was not found in a version for " + bound.whose + ": found " +
                         others + ", " + bound.whose + (bound.same ? " is of " : " supports up to ") +
                         to_string(bound.newest) + "; looked in " + looked};
  for (const char* name : names) wanted += (wanted.empty() ? "" : " or ") + std::string(name);
  return {nullptr, std::string(what) + " was not found: looked for " + wanted + " in " + looked};
}

template <class Table>
struct Library {
  Table table;
  std::string missing;
};

/// Fills a member of a table; the first symbol that the library lacks is told.
template <class F>
void fill(const Opened& library, const char* symbol, F& function, std::string& missing) {
  if (!library.handle) return;
  function = reinterpret_cast<F>(dlsym(library.handle, symbol));
  if (!function && missing.empty())
    missing = std::string("the library found is too old: it has no ") + symbol;
}

/// Opens a library and fills its table by `fill_table(library, table, missing)`.
template <class Table, class Fill>
Library<Table>* find(const char* what, std::initializer_list<const char*> names, const Bound& bound,
                     Fill&& fill_table) {
  auto* out = new Library<Table>;
  const Opened library = open(what, names, bound);
  out->missing = library.missing;
  fill_table(library, out->table, out->missing);
  return out;
}

Release nvrtc_release(void* handle) {
  Release r;
  if (const auto version = reinterpret_cast<decltype(Nvrtc::version)>(dlsym(handle, "nvrtcVersion")))
    version(&r.major, &r.minor);
  return r;
}

/// It counts as 120403 or 130001.
Release cublaslt_release(decltype(CublasLt::version) version) {
  const int number = version ? static_cast<int>(version()) : 0;
  return {number / 10000, number % 10000 / 100};
}
Release cublaslt_release(void* handle) {
  return cublaslt_release(reinterpret_cast<decltype(CublasLt::version)>(dlsym(handle, "cublasLtGetVersion")));
}

/// The CUDA that it was made with, which counts as 13010.
Release cudnn_release(void* handle) {
  const auto version =
      reinterpret_cast<decltype(Cudnn::runtime_version)>(dlsym(handle, "cudnnGetCudartVersion"));
  const int number = version ? static_cast<int>(version()) : 0;
  return {number / 1000, number % 1000 / 10};
}

#define TANDEM_CUDA(result, name, symbol, parameters) fill(library, #symbol, table.name, missing);
const Library<Driver>& find_driver() {
  static const auto* const found =
      find<Driver>("the CUDA driver", {"libcuda.so.1"}, {},
                   [](const Opened& library, Driver& table, std::string& missing) {
#include "tandem/core/cuda/driver.def"
                   });
  return *found;
}

const Library<Nvrtc>& find_nvrtc() {
  static const auto* const found =
      find<Nvrtc>("NVRTC, CUDA's run-time compiler,", {"libnvrtc.so.13", "libnvrtc.so.12"},
                  up_to_driver(nvrtc_release), [](const Opened& library, Nvrtc& table, std::string& missing) {
#include "tandem/core/cuda/nvrtc.def"
                  });
  return *found;
}

const Library<CublasLt>& find_cublaslt() {
  static const auto* const found = find<CublasLt>(
      "cuBLASLt, CUDA's matrix products,", {"libcublasLt.so.13", "libcublasLt.so.12"},
      up_to_driver(cublaslt_release), [](const Opened& library, CublasLt& table, std::string& missing) {
#include "tandem/core/cuda/cublaslt.def"
      });
  return *found;
}

// cuDNN opens the cuBLASLt of its own CUDA by name, finds the one that is open already, and ends the process
// if there is none: so it is only opened beside that.
const Library<Cudnn>& find_cudnn() {
  static const auto* const found = [] {
    const Library<CublasLt>& products = find_cublaslt();
    const Bound bound{cudnn_release, cublaslt_release(products.table.version), true, "cuBLASLt"};
    const auto* const library =
        products.missing.empty() ? find<Cudnn>("cuDNN, CUDA's convolutions,", {"libcudnn.so.9"}, bound,
                                               [](const Opened& library, Cudnn& table, std::string& missing) {
#include "tandem/core/cuda/cudnn.def"
                                               })
                                 : new Library<Cudnn>{{}, products.missing};
    if (!library->missing.empty())
      core::log(core::LogArea::jit, core::LogLevel::warn,
                library->missing + "; convolutions are done by kernels of Tandem's own, which are slower");
    return library;
  }();
  return *found;
}
#undef TANDEM_CUDA

}  // namespace

const Driver* driver() { return find_driver().missing.empty() ? &find_driver().table : nullptr; }
const Nvrtc* nvrtc() { return find_nvrtc().missing.empty() ? &find_nvrtc().table : nullptr; }
const CublasLt* cublaslt() { return find_cublaslt().missing.empty() ? &find_cublaslt().table : nullptr; }
const Cudnn* cudnn() { return find_cudnn().missing.empty() ? &find_cudnn().table : nullptr; }
const std::string& why_no_driver() { return find_driver().missing; }
const std::string& why_no_nvrtc() { return find_nvrtc().missing; }
const std::string& why_no_cublaslt() { return find_cublaslt().missing; }
const std::string& why_no_cudnn() { return find_cudnn().missing; }

const std::string& nvrtc_identity() {
  static const std::string* const text = [] {
    int major = 0, minor = 0;
    nvrtc()->version(&major, &minor);
    auto* out = new std::string("nvrtc " + std::to_string(major) + '.' + std::to_string(minor));
    Dl_info info{};
    struct stat file {};
    if (dladdr(reinterpret_cast<void*>(nvrtc()->version), &info) && stat(info.dli_fname, &file) == 0)
      *out += ", " + std::to_string(file.st_size) + " bytes, " + std::to_string(file.st_mtim.tv_sec) + '.' +
              std::to_string(file.st_mtim.tv_nsec);
    return out;
  }();
  return *text;
}

}  // namespace tandem::cuda
