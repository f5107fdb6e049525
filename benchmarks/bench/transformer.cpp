// The host's side of a transformer's training step (12 layers, 148 parameters, AdamW): its plan's entries are
// not run, so sizes are small. And what a batch size costs that was not seen before.
#include <cstdio>
#include <memory>

#include "benchmarks/bench/harness.h"
#include "benchmarks/bench/training.h"
#include "tandem/core/thread_pool.h"
#include "tandem/jit/executable.h"
#include "tandem/jit/kernel_cache.h"

using td::Tensor;

namespace bench {

std::vector<Row> transformer() {
  td::set_num_threads(1);
  td::manual_seed(1);
  Training training(recipe("host_transformer"));
  const td::Tensor &x = training.batch(0)[0], &y = training.batch(0)[1];
  auto step = td::trace([&](Tensor a, Tensor b) { return training.step(a, b); });
  const auto call = [&] { step(x, y); };
  {
    const td::jit::WithoutEntries scope;
    for (int i = 0; i < 3; ++i) call();
  }
  const td::TraceReport r = step.report();
  std::fprintf(stderr, "bench: the transformer's step has %zu parameters, %lld ops, %lld plan entries\n",
               training.net.module->parameters().size(), static_cast<long long>(r.ops),
               static_cast<long long>(r.entries));
  std::vector<Row> rows = interleave(
      "transformer",
      {{"12-layer step beside its plan, warm", [&] { return time_us(20, call), time_us(100, call); }},
       {"the same, 8 MB of memory touched", [&] { return time_after_us(8, call); }},
       {"the same, L1 and L2 lost", [&] { return time_without_inner_caches_us(call); }},
       {"the same, all caches lost", [&] { return time_after_us(128, call); }}},
      101);
  const td::TraceReport ran = step.report();
  if (ran.recorded != 1 || ran.plans != 1 || ran.op_by_op || ran.eager_calls)
    std::fprintf(stderr, "bench: the step was not replayed: the host's figures mean nothing\n");
  return rows;
}

std::vector<Row> sizes() {
  td::set_num_threads(1);
  td::manual_seed(1);
  auto training = std::make_shared<Training>(recipe("host_mlp"));
  auto step = td::trace([training](Tensor x, Tensor y) { return training->step(x, y); });
  int64_t batch = 63;
  Tensor x, y;
  const auto next = [&] {
    x = td::rand({batch, 64}), y = td::randint(0, 10, {batch});
    return time_us(1, [&] { step(x, y); });
  };
  next(), ++batch, next();
  const int64_t compiled = td::jit::cache_stats().compiles;
  std::vector<Row> rows =
      interleave("sizes",
                 {{"MLP step, a batch size seen before", [&] { return time_us(1, [&] { step(x, y); }); }},
                  {"a batch size not seen before", [&] { return ++batch, next(); }}},
                 41);
  if (td::jit::cache_stats().compiles != compiled)
    std::fprintf(stderr, "bench: a new batch size compiled a kernel\n");
  return rows;
}

}  // namespace bench
