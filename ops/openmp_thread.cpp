#include "tandem/ops/openmp_thread.h"

#include <dlfcn.h>

namespace tandem::ops {

namespace {

struct OpenMp {
  using Set = void (*)(int);
  using Get = int (*)();
  Set set = reinterpret_cast<Set>(dlsym(RTLD_DEFAULT, "omp_set_num_threads"));
  Get get = reinterpret_cast<Get>(dlsym(RTLD_DEFAULT, "omp_get_max_threads"));
};

const OpenMp& open_mp() {
  static const OpenMp found;
  return found;
}

}  // namespace

OneThread::OneThread() : before_(open_mp().set && open_mp().get ? open_mp().get() : 1) {
  if (before_ != 1) open_mp().set(1);
}
OneThread::~OneThread() {
  if (before_ != 1) open_mp().set(before_);
}

}  // namespace tandem::ops
