// The dynamic loader knows a library by the path it was asked for and by its inode, and silently returns the
// one already loaded if either is known. A path such as /proc/self/fd/7 comes back as soon as the number is
// free, so paths are made unlike each other, and each object carries its key, which is compared after
// loading.
#include "tandem/jit/module.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstring>

#include "tandem/jit/child_process.h"

namespace tandem::jit {

namespace {

constexpr char kKeySymbol[] = "tandem_module_key";

#ifndef MFD_EXEC
#define MFD_EXEC 0x0010U
#endif

int memory_file(const std::string& key) {
  const std::string name = "tandem-" + key.substr(0, 16);
  int fd = memfd_create(name.c_str(), MFD_CLOEXEC | MFD_EXEC);
  if (fd < 0 && errno == EINVAL) fd = memfd_create(name.c_str(), MFD_CLOEXEC);  // kernels before 6.3
  return fd;
}

// A path to descriptor `fd` that this process has not used before: the counter's bits as "/" or "/." between
// its parts.
std::string fresh_path(int fd) {
  static std::atomic<uint32_t> counter{0};
  std::string path = "/proc/self/fd";
  for (uint32_t bits = ++counter; bits != 0; bits >>= 1) path += (bits & 1) != 0 ? "/." : "/";
  return path + "/" + std::to_string(fd);
}

bool may_run(int fd) {
  void* page = mmap(nullptr, 1, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
  if (page == MAP_FAILED) return false;
  munmap(page, 1);
  return true;
}

// The loader's message begins with the path, which tells nobody anything.
std::string loader_message(const std::string& path) {
  const char* text = dlerror();
  std::string message = text != nullptr ? text : "unknown reason";
  if (message.rfind(path + ": ", 0) == 0) message.erase(0, path.size() + 2);
  return message;
}

}  // namespace

std::string module_source(const std::string& source, const std::string& key) {
  const std::string name = kKeySymbol;
  return source + "\nextern \"C\" { extern const char " + name + "[]; const char " + name + "[] = \"" + key +
         "\"; }\n";
}

std::shared_ptr<const Module> Module::load(const std::string& object, const std::string& source,
                                           const std::string& key, const LoadPlaces& places,
                                           std::string* error, bool* no_place) {
  *no_place = false;
  void* handle = nullptr;
  std::string tried;
  // Takes over `fd`; true if the search for a place is over.
  const auto attempt = [&](int fd, const std::string& place, const std::string& path, bool written) {
    bool done = false;
    if (fd < 0 || !written) {
      tried += "; " + place + ": " + system_error_text(errno);
    } else if (!may_run(fd)) {
      tried += "; " + place + ": code may not run there (" + system_error_text(errno) + ")";
    } else {
      handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
      done = handle != nullptr;
      if (!done) *error = loader_message(path);
      // Without /proc a descriptor has no path: a file in a folder still has one.
      if (!done) done = access(path.c_str(), F_OK) == 0;
      if (!done) tried += "; " + place + ": " + *error;
    }
    if (fd >= 0) close(fd);
    return done;
  };

  bool done = false;
  if (places.memory) {
    const int fd = memory_file(key);
    const bool written = fd >= 0 && write_all(fd, object.data(), object.size());
    done = attempt(fd, "memory", fd >= 0 ? fresh_path(fd) : "", written);
  }
  for (size_t i = 0; i < places.folders.size() && !done; ++i) {
    std::string path = places.folders[i] + "/.tandem-" + key.substr(0, 16) + "-XXXXXX";
    const int fd = mkostemp(path.data(), O_CLOEXEC);
    const bool written = fd >= 0 && write_all(fd, object.data(), object.size());
    done = attempt(fd, places.folders[i], path, written);
    if (fd >= 0) unlink(path.c_str());
  }
  if (!done) {
    *no_place = true;
    *error = "no place from which compiled kernels can be run" + tried +
             "; set TMPDIR to a folder that is not mounted noexec";
    return nullptr;
  }
  if (handle == nullptr) return nullptr;

  const auto* found = static_cast<const char*>(dlsym(handle, kKeySymbol));
  if (found == nullptr || std::strncmp(found, key.c_str(), key.size() + 1) != 0) {
    *error = "the loaded object is not the one that was asked for";
    return nullptr;
  }
  std::shared_ptr<Module> module(new Module);
  module->handle_ = handle;
  module->source_ = source;
  module->key_ = key;
  return module;
}

void* Module::symbol(const char* name) const { return dlsym(handle_, name); }

}  // namespace tandem::jit
