#include "tandem/jit/programs.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>
#include <vector>

namespace tandem::jit {

namespace {
constexpr size_t kKernelsPerProgram = 12;
}

void for_programs(size_t kernels, const std::function<void(size_t begin, size_t end)>& work) {
  const size_t programs = (kernels + kKernelsPerProgram - 1) / kKernelsPerProgram;
  const size_t workers = std::min<size_t>(programs, std::max(1u, std::thread::hardware_concurrency()));
  std::vector<std::exception_ptr> errors(programs);
  std::atomic<size_t> next{0};
  const auto run = [&] {
    for (size_t i = next++; i < programs; i = next++) try {
        work(i * kernels / programs, (i + 1) * kernels / programs);
      } catch (...) {
        errors[i] = std::current_exception();
      }
  };
  {
    std::vector<std::jthread> threads;
    for (size_t i = 1; i < workers; ++i) threads.emplace_back(run);
    run();
  }
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

}  // namespace tandem::jit
