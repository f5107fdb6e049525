// The workloads: eager calls of 4 floats, the price of a compared call, the host time of the MLP's traced
// step beside its plan, and that step beside its eight products.
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "benchmarks/bench/harness.h"
#include "benchmarks/bench/training.h"
#include "tandem/core/thread_pool.h"
#include "tandem/jit/executable.h"
#include "tandem/ops/products/products.h"
#include "tandem/tandem.h"

namespace td = tandem;

namespace bench {

namespace {

/// The eight products of that step alone, by one provider; microseconds for all.
struct Products {
  struct Shape {
    int64_t m, n, k;
    bool a_transposed, b_transposed;
  };
  static constexpr Shape kShapes[] = {
      {64, 256, 64, false, true},  {64, 128, 256, false, true},
      {64, 10, 128, false, true},                                 // forward: x W^T
      {10, 128, 64, true, false},  {64, 128, 10, false, false},   // dW3, dX3
      {128, 256, 64, true, false}, {64, 256, 128, false, false},  // dW2, dX2
      {256, 64, 64, true, false},                                 // dW1
  };
  std::vector<float> a = std::vector<float>(256 * 256, 0.5f), b = a, c = a;
  void run(td::ops::Provider p) {
    for (const Shape& s : kShapes) {
      td::ops::ProductCall call{};
      call.batch = 1;
      call.m = s.m, call.n = s.n, call.k = s.k;
      call.dtype = td::float32;
      call.a = a.data(), call.b = b.data(), call.c = c.data();
      call.a_row = s.a_transposed ? 1 : s.k, call.a_col = s.a_transposed ? s.m : 1;
      call.b_row = s.b_transposed ? 1 : s.n, call.b_col = s.b_transposed ? s.k : 1;
      call.c_row = s.n, call.c_col = 1;
      td::ops::product(call, p);
    }
  }
};

std::string peer_path() { return std::string(TANDEM_SOURCE_DIR) + "/build-release/benchmarks/libtorch"; }

/// Runs a block of the peer's program in a process of its own; microseconds per call as it prints them.
double peer_block(const std::string& workload) {
  const std::string command = "OPENBLAS_NUM_THREADS=1 " + peer_path() + " " + workload;
  std::FILE* pipe = popen(command.c_str(), "r");
  double us = 0;
  if (!pipe || std::fscanf(pipe, "%lf", &us) != 1)
    std::fprintf(stderr, "bench: the peer's program failed: %s\n", command.c_str());
  if (pipe) pclose(pipe);
  return us;
}

std::vector<Row> mlp(bool peers) {
  td::set_num_threads(1);
  td::manual_seed(1);
  auto eager = std::make_shared<Training>();
  auto traced = std::make_shared<Training>();
  auto step = td::trace([traced](td::Tensor x, td::Tensor y) { return traced->step(x, y); });
  auto products = std::make_shared<Products>();
  // The denominator is the fastest provider's eight products.
  td::ops::Provider best = td::ops::Provider::tiles;
  double best_us = 1e30;
  for (const auto p : {td::ops::Provider::tiles, td::ops::Provider::onednn, td::ops::Provider::eigen}) {
    if (!td::ops::provider_available(p)) continue;
    products->run(p);
    for (int i = 0; i < 5; ++i) {
      const double us = time_us(200, [&] { products->run(p); });
      if (us < best_us) best_us = us, best = p;
    }
  }
  std::vector<Contestant> contestants = {
      {"eight products alone", [=] { return time_us(100, [&] { products->run(best); }); }},
      {"traced step", [=]() mutable { return time_us(100, [&] { step(traced->x, traced->y); }); }},
      {"eager step", [=] { return time_us(100, [&] { eager->step(eager->x, eager->y); }); }},
  };
  if (peers) contestants.push_back({"LibTorch step", [] { return peer_block("mlp"); }});
  std::vector<Row> rows = interleave("mlp", contestants, peers ? 15 : 41);
  const td::TraceReport r = step.report();
  std::printf(
      "mlp: plan of %lld entries: %lld kernels (%lld compiled), %lld products, %lld natives; arena %lld "
      "bytes\n",
      static_cast<long long>(r.entries), static_cast<long long>(r.kernels),
      static_cast<long long>(r.compiled), static_cast<long long>(r.products),
      static_cast<long long>(r.natives), static_cast<long long>(r.arena_bytes));
  return rows;
}

std::vector<Row> eager_add(bool peers) {
  const td::Tensor a = td::rand({4}), b = td::rand({4});
  const td::Tensor g = td::rand({4}).requires_grad_();
  std::vector<Contestant> contestants = {
      {"add, 4 floats", [=] { return time_us(20000, [&] { td::add(a, b); }); }},
      {"add, 4 floats, gradient noted", [=] { return time_us(20000, [&] { td::add(g, b); }); }},
      {"mul by a number, 4 floats", [=] { return time_us(20000, [&] { td::mul(a, 0.5); }); }},
  };
  if (peers) {
    contestants.push_back({"LibTorch add", [] { return peer_block("add"); }});
    contestants.push_back({"LibTorch add, gradient noted", [] { return peer_block("add_grad"); }});
  }
  return interleave("eager", contestants, peers ? 15 : 41);
}

/// What a compared call costs: traced bodies of 10 and of 110 calls whose kernels do nothing that counts (4
/// floats, all but the last result unused); the difference over 100.
std::vector<Row> replay(bool) {
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
std::vector<Row> host(bool) {
  td::set_num_threads(1);
  td::manual_seed(1);
  Training training;
  auto step = td::trace([&](td::Tensor x, td::Tensor y) { return training.step(x, y); });
  const auto call = [&] { step(training.x, training.y); };
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
std::vector<Row> frozen(bool) {
  td::set_num_threads(1);
  td::manual_seed(1);
  Training training;
  const td::Tensor x = td::rand({4}), w = td::rand({4});
  std::vector<td::Tensor> many;
  for (int i = 0; i < 150; ++i) many.push_back(td::rand({4, 8}));
  auto few = td::trace([&](const td::Tensor& in) { return td::exp(in * w) + in; });
  auto step = td::trace([&](const td::Tensor& in, const td::Tensor& y) { return training.step(in, y); });
  auto wide = td::trace([&](const td::Tensor& in) {
    td::Tensor sum = many[0];
    for (size_t i = 1; i < many.size(); ++i) sum = sum + many[i];
    return sum.slice(1, 0, 4) * in;
  });
  const td::jit::WithoutEntries scope;
  for (int i = 0; i < 3; ++i) few(x), step(training.x, training.y), wide(x);
  auto frozen_few = few.freeze();
  auto frozen_wide = wide.freeze();
  auto frozen_step = step.freeze();
  const auto change = [](const td::Tensor& t) { t.requires_grad_().requires_grad_(false); };
  const auto block = [](auto f) { return [f]() mutable { return time_us(5000, f); }; };
  std::vector<Row> rows =
      interleave("frozen",
                 {{"call of 3 ops, 2 tensors", block([&] { frozen_few(x); })},
                  {"MLP step", block([&] { frozen_step(training.x, training.y); })},
                  {"150 captured tensors, unchanged", block([&] { frozen_wide(x); })},
                  {"the same, one changed before", block([&] { change(many[75]), frozen_wide(x); })},
                  {"that change alone", block([&] { change(many[75]); })},
                  {"MLP step, checked", block([&] { step(training.x, training.y); })}},
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

std::vector<Workload> workloads() {
  return {{"eager", eager_add},         {"replay", replay}, {"host", host}, {"frozen", frozen},
          {"transformer", transformer}, {"sizes", sizes},   {"mlp", mlp},   {"cuda", cuda}};
}

}  // namespace bench
