#include "tandem/jit/cuda_executable.h"

#include <cstring>

#include "tandem/core/env.h"
#include "tandem/core/profile.h"
#include "tandem/jit/attention_call.h"
#include "tandem/jit/cuda_graph.h"

namespace tandem::jit {

using cuda::Pointer;
using cuda::Runtime;

namespace {
int64_t constant_bytes(const Plan& plan) {
  return static_cast<int64_t>(plan.constants.size() * sizeof(Line));
}
}  // namespace

CudaExecutable::CudaExecutable(const Graph& g, const Plan& plan, Device device, bool graph)
    : plan_(plan),
      device_(Runtime::of(device)),
      constants_(device_, constant_bytes(plan)),
      steps_(cuda_steps(device_, g, plan, constants_.memory())) {
  for (const Entry& e : plan.entries) {
    may_fail_ |= e.may_fail;
    errors_.push_back(e.may_fail ? std::make_shared<const std::string>(e.op + ": index out of range")
                                 : nullptr);
  }
  if (graph) graph_ = std::make_unique<CudaGraph>(*this);
  device_.copy_in(constants_.memory(), plan.constants.data(), constant_bytes(plan));
}

CudaExecutable::~CudaExecutable() = default;

void CudaExecutable::run_product(const CudaProductStep& p, const int64_t* sources,
                                 cuda::StreamHandle stream) const {
  const auto at = [&](const CudaValue& v) { return static_cast<Pointer>(v.in(sources)); };
  if (p.convolution)
    return run_convolution(device_, *p.convolution, at(p.a), at(p.b), at(p.c),
                           p.bias.source < 0 ? 0 : at(p.bias), at(p.workspace), stream);
  if (p.attention) {
    Pointer memory[AttentionCall::kBackward];
    const size_t n = p.values.size() - 1;
    for (size_t i = 0; i < n; ++i) memory[i] = at(p.values[i]);
    return run_attention(device_, *p.attention, {memory, n}, p.values[n].in(sources), at(p.workspace),
                         stream);
  }
  jit::run_product(device_, *p.call, *p.library, at(p.a), at(p.b), at(p.bias), at(p.c), at(p.workspace),
                   stream);
}

void CudaExecutable::launch(const CudaStep& step, const int64_t* sources) const {
  if (!step.function) {
    run_product(steps_.products[static_cast<size_t>(step.product)], sources, device_.stream());
    return;
  }
  int64_t words[kManyCudaWords];
  std::memcpy(words, steps_.words.data() + step.first_word,
              static_cast<size_t>(step.n_words) * sizeof(int64_t));
  const CudaPatch* const patches = steps_.patches.data() + step.first_patch;
  for (int32_t i = 0; i < step.n_patches; ++i) words[patches[i].word] = patches[i].value.in(sources);
  void* parameters[] = {words};
  device_.check(device_.api().launch(step.function, step.shape.grid, 1, 1, step.shape.block, 1, 1,
                                     step.shape.shared_bytes, device_.stream(), parameters, nullptr),
                "cuLaunchKernel");
}

// One launch after another; waits for each entry where that is asked for. Where one cannot be queued behind
// others, `*reached` is 1 + its entry.
void CudaExecutable::run_steps(int64_t* sources, Location where, int* reached) const {
  static constexpr const char* kKinds[] = {"kernel", "product", "native"};
  const bool wait = core::environment().sync || core::profiling();
  const std::vector<CudaStep>& steps = steps_.steps;
  for (size_t i = 0; i < steps.size();) {
    const auto entry = static_cast<size_t>(steps[i].entry);
    const Entry& e = plan_.entries[entry];
    const Location line = where.known() ? where : e.where;
    const core::ProfileSpan span(kKinds[static_cast<int>(e.kind)], e.name, line,
                                 plan_.notes[entry].bytes_read + plan_.notes[entry].bytes_written);
    try {
      if (errors_[entry])
        sources[CudaSteps::kError] = static_cast<int64_t>(device_.error_word(errors_[entry], line));
      for (; i < steps.size() && static_cast<size_t>(steps[i].entry) == entry; ++i) launch(steps[i], sources);
      if (wait) [[unlikely]]
        device_.synchronize_current();
    } catch (const Error& error) {
      if (reached && i > 0) *reached = static_cast<int>(entry) + 1;
      fail_again(error, e.op, line);
    }
  }
}

void CudaExecutable::run(void* const* inputs, const int64_t* numbers, void* const* outputs, Location where,
                         bool nothing, int* reached) const {
  constexpr int32_t kMany = 256;
  int64_t few[kMany];
  std::vector<int64_t> many;
  int64_t* sources = few;
  if (steps_.n_sources() > kMany) many.resize(static_cast<size_t>(steps_.n_sources())), sources = many.data();
  sources[CudaSteps::kArena] = sources[CudaSteps::kError] = 0;
  int64_t* to = sources + CudaSteps::kFirst;
  const auto take = [&](const void* from, int32_t n) {
    if (n > 0) std::memcpy(to, from, static_cast<size_t>(n) * sizeof(int64_t));
    to += n;
  };
  static_assert(sizeof(void*) == sizeof(int64_t));
  take(inputs, steps_.n_inputs);
  take(outputs, steps_.n_outputs);
  take(numbers, steps_.n_numbers);
  if (nothing) return;
  device_.use();
  std::unique_lock<std::recursive_mutex> launching;
  const bool several = device_.several();
  // Before the graph's lock. To poison memory is work, which takes it behind that, if a second stream
  // appears.
  if (may_fail_ || several || core::environment().poison) launching = device_.launching();
  if (graph_ && !core::environment().sync && !core::profiling() && graph_->run(sources, several)) return;
  const cuda::Block arena(device_, steps_.arena_bytes);
  sources[CudaSteps::kArena] = static_cast<int64_t>(arena.memory());
  const cuda::Ordered order(device_, [&](auto&& touch) { touches(sources, touch); });
  run_steps(sources, where, reached);
}

}  // namespace tandem::jit
