// Images and the functions in them.
#include <dlfcn.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "tests/sim_gpu/driver/launch.h"
#include "tests/sim_gpu/image.h"

namespace sim_gpu {

std::shared_ptr<LoadedModule> LoadedModule::load(const void* image, Result* why) {
  *why = Result::invalid_image;
  ImageHead head;
  std::memcpy(&head.magic, image, sizeof head.magic);
  if (head.magic != ImageHead::kMagic) return nullptr;
  std::memcpy(&head, image, sizeof head);
  *why = Result::no_binary_for_gpu;
  const int here = settings().capability;
  if (head.ptx != 0 ? head.architecture > here : head.architecture != here)
    return nullptr;  // of other devices
  *why = Result::unknown;
  // A file of its own: the loader takes a name that it has seen for the same library.
  const char* folder = std::getenv("TMPDIR");
  std::string path = std::string(folder != nullptr && *folder != '\0' ? folder : "/tmp") + "/sim-gpu-XXXXXX";
  const int file = mkstemp(path.data());
  if (file < 0) return nullptr;
  const char* bytes = static_cast<const char*>(image) + sizeof head;
  size_t written = 0;
  while (written < head.bytes) {
    const ssize_t n = write(file, bytes + written, head.bytes - written);
    if (n <= 0) break;
    written += static_cast<size_t>(n);
  }
  close(file);
  std::shared_ptr<LoadedModule> out(new LoadedModule);
  if (written == head.bytes) out->library_ = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  unlink(path.c_str());
  if (out->library_ == nullptr) {
    const char* text = dlerror();
    say(std::string("an image that cannot be loaded: ") + (text != nullptr ? text : "disk full?"));
    return nullptr;
  }
  *why = Result::invalid_image;
  out->table_ = static_cast<const sim_module*>(dlsym(out->library_, "sim_gpu_module"));
  if (out->table_ == nullptr || out->table_->magic != sim_magic) return nullptr;
  *why = Result::success;
  return out;
}

LoadedModule::~LoadedModule() {
  if (library_ != nullptr) dlclose(library_);
}

}  // namespace sim_gpu
