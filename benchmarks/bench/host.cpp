// What the host pays: eager calls of 4 floats, the price of a compared call, the host time of the MLP's
// traced step beside its plan, and of frozen calls.
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "benchmarks/bench/harness.h"
#include "benchmarks/bench/training.h"
#include "tandem/core/thread_pool.h"
#include "tandem/jit/executable.h"

namespace bench {

namespace {

std::vector<Row> eager_calls() {
  td::set_num_threads(1);
  const td::Tensor a = td::rand({4}), b = td::rand({4});
  const td::Tensor g = td::rand({4}).requires_grad_();
  return interleave(
      "eager",
      {{"add, 4 floats", [=] { return time_us(20000, [&] { td::add(a, b); }); }},
       {"add, 4 floats, gradient noted", [=] { return time_us(20000, [&] { td::add(g, b); }); }},
       {"mul by a number, 4 floats", [=] { return time_us(20000, [&] { td::mul(a, 0.5); }); }}},
      41);
}

/// What a compared call costs: traced bodies of 10 and of 110 calls whose kernels do nothing that counts (4
/// floats, all but the last result unused); the difference over 100.
std::vector<Row> replay() {
  td::set_num_threads(1);
  const td::Tensor x = td::rand({4}), w = td::rand({4});
  const auto body = [w](int n) {
    return [w, n](td::Tensor t) {
      td::Tensor last;
      for (int i = 0; i < n; ++i) last = td::add(t, w);
      return last;
    };
  };
  auto few = td::trace(body(10));
  auto many = td::trace(body(110));
  std::vector<Row> rows =
      interleave("replay",
                 {{"traced call of 10 ops", [=]() mutable { return time_us(5000, [&] { few(x); }); }},
                  {"traced call of 110 ops", [=]() mutable { return time_us(2000, [&] { many(x); }); }}},
                 41);
  rows.push_back({"replay", "per compared call", (rows[1].median_us - rows[0].median_us) / 100,
                  (rows[1].min_us - rows[0].min_us) / 100, 0});
  return rows;
}

/// What the traced MLP step costs beside its plan: the whole call (the body and its comparisons, the frame,
/// the results' memory) with a plan whose entries are not run.
std::vector<Row> host() {
  td::set_num_threads(1);
  td::manual_seed(1);
  Training training(recipe("host_mlp"));
  const td::Tensor &x = training.batch(0)[0], &y = training.batch(0)[1];
  auto step = td::trace([&](td::Tensor a, td::Tensor b) { return training.step(a, b); });
  const auto call = [&] { step(x, y); };
  {
    const td::jit::WithoutEntries scope;
    for (int i = 0; i < 3; ++i) call();
  }
  std::vector<Row> rows =
      interleave("host",
                 {{"MLP step beside its plan, warm", [&] { return time_us(5000, call); }},
                  {"the same, 8 MB of memory touched", [&] { return time_after_us(8, call); }},
                  {"the same, L1 and L2 lost", [&] { return time_without_inner_caches_us(call); }},
                  {"the same, all caches lost", [&] { return time_after_us(128, call); }}},
                 101);
  const td::TraceReport r = step.report();
  if (r.recorded != 1 || r.plans != 1 || r.op_by_op || r.eager_calls)
    std::fprintf(stderr, "bench: the step was not replayed: the host's figures mean nothing\n");
  return rows;
}

/// What a frozen call costs beside its plan: of a few ops, of the MLP's step, and with 150 captured tensors,
/// unchanged and with one changed before each call.
std::vector<Row> frozen() {
  td::set_num_threads(1);
  td::manual_seed(1);
  Training training(recipe("host_mlp"));
  const td::Tensor &in = training.batch(0)[0], &labels = training.batch(0)[1];
  const td::Tensor x = td::rand({4}), w = td::rand({4});
  std::vector<td::Tensor> many;
  for (int i = 0; i < 150; ++i) many.push_back(td::rand({4, 8}));
  auto few = td::trace([&](const td::Tensor& t) { return td::exp(t * w) + t; });
  auto step = td::trace([&](const td::Tensor& a, const td::Tensor& b) { return training.step(a, b); });
  auto wide = td::trace([&](const td::Tensor& t) {
    td::Tensor sum = many[0];
    for (size_t i = 1; i < many.size(); ++i) sum = sum + many[i];
    return sum.slice(1, 0, 4) * t;
  });
  const td::jit::WithoutEntries scope;
  for (int i = 0; i < 3; ++i) few(x), step(in, labels), wide(x);
  auto frozen_few = few.freeze();
  auto frozen_wide = wide.freeze();
  auto frozen_step = step.freeze();
  const auto change = [](const td::Tensor& t) { t.requires_grad_().requires_grad_(false); };
  const auto block = [](auto f) { return [f]() mutable { return time_us(5000, f); }; };
  std::vector<Row> rows =
      interleave("frozen",
                 {{"call of 3 ops, 2 tensors", block([&] { frozen_few(x); })},
                  {"MLP step", block([&] { frozen_step(in, labels); })},
                  {"150 captured tensors, unchanged", block([&] { frozen_wide(x); })},
                  {"the same, one changed before", block([&] { change(many[75]), frozen_wide(x); })},
                  {"that change alone", block([&] { change(many[75]); })},
                  {"MLP step, checked", block([&] { step(in, labels); })}},
                 41);
  const auto difference = [&](const char* name, size_t a, size_t b, size_t c) {
    rows.push_back({"frozen", name, rows[a].median_us - rows[b].median_us - rows[c].median_us,
                    rows[a].min_us - rows[b].min_us - rows[c].min_us, 0});
  };
  rows.push_back({"frozen", "150 tensors, unchanged: guards and inputs",
                  rows[2].median_us - rows[0].median_us, rows[2].min_us - rows[0].min_us, 0});
  difference("150 tensors, a change: scan", 3, 2, 4);
  if (frozen_wide.report().tensors.size() != 150 || frozen_wide.report().scans < 2)
    std::fprintf(stderr, "bench: the guards did not run: the frozen figures mean nothing\n");
  return rows;
}

}  // namespace

std::vector<HostPart> host_parts() {
  return {{"eager", eager_calls},       {"replay", replay}, {"host", host}, {"frozen", frozen},
          {"transformer", transformer}, {"sizes", sizes},   {"cuda", cuda}};
}

}  // namespace bench
