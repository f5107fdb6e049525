// Plans on several threads: kernels cut over the pool, and runs of one executable side by side.
#include <thread>

#include "tandem/core/thread_pool.h"
#include "tandem/jit/plan.h"
#include "tests/jit/program.h"

using namespace tandem;
using namespace tandem::test;
using ops::Emitter;
using ops::OpId;
using Values = std::vector<Value>;

TEST_CASE("large kernels are split over threads, and executables may run on several at once", "[jit]") {
  const Program p{{{DType::float32, {300, 700}},
                   {DType::float32, {300, 700}},
                   {DType::float32, {900, 300}},
                   {DType::float32, {900, 300}},
                   {DType::float32, {11}}},
                  {0.5},
                  [](Emitter& e, const Values& in, const Values& n) {
                    const Value a = e.mul(e.exp(in[0]), in[1]);
                    const Value product = e.matmul(in[2], a);
                    return Values{a,
                                  e.call(OpId::softmax, {a}, {1}),
                                  e.sum(a, {0}, false),
                                  e.sum(product, {}, false),
                                  e.sub(in[0], e.mul(in[1], n[0])),
                                  e.sub(in[2], e.mul(in[3], n[0])),
                                  e.sub(in[4], e.mul(in[4], n[0]))};
                  },
                  {}};
  const int threads = num_threads();
  set_num_threads(1);
  const RunResult one = run(p, kFused);
  set_num_threads(4);
  const RunResult four = run(p, kFused);
  set_num_threads(threads);
  CHECK(one.outputs == four.outputs);

  const jit::Graph g = graph_of(p);
  const auto x = Executable::make(g, kFused);
  std::vector<std::string> inputs;
  std::vector<void*> in;
  for (size_t i = 0; i < p.inputs.size(); ++i) inputs.push_back(input_bytes(p.inputs[i], 1 + i));
  for (std::string& s : inputs) in.push_back(s.data());
  const int64_t half = std::bit_cast<int64_t>(0.5);
  std::vector<std::vector<std::string>> results(4);
  std::vector<std::thread> runners;
  for (auto& mine : results)
    runners.emplace_back([&] {
      std::vector<void*> out;
      for (const std::string& s : one.outputs) mine.emplace_back(s.size(), '\0');
      for (std::string& s : mine) out.push_back(s.data());
      for (int k = 0; k < 3; ++k) x->run(in.data(), &half, out.data());
    });
  for (std::thread& t : runners) t.join();
  for (const auto& mine : results) CHECK(mine == one.outputs);
}

TEST_CASE("calls of one entry are cut for the threads, and dealt out where they are a row", "[jit]") {
  Program p;
  // Rows beyond, at and below the number of threads; without elements, in the middle and last.
  for (const Dims& sizes : {Dims{1, 400000}, Dims{9, 40000}, Dims{1, 300000}, Dims{2, 200000}, Dims{1, 0},
                            Dims{3, 100000}, Dims{1, 7}, Dims{1, 0}})
    p.inputs.push_back({DType::float32, sizes});
  p.body = [](Emitter& e, const Values& in, const Values&) {
    Values sums;
    for (const Value& x : in) sums.push_back(e.sum(x, {1}, false));
    return sums;
  };
  const int before = num_threads();
  for (const int threads : {1, 2, 3, 7}) {
    CAPTURE(threads);
    set_num_threads(threads);
    CHECK(check_program(p, 1e-4).stats.entries == 1);
  }
  set_num_threads(before);
}

TEST_CASE("threads have each index once, and no more of a call's than their share", "[jit]") {
  jit::Entry e;
  std::vector<jit::KernelCall> calls;
  const auto add = [&](int64_t range, int64_t work) {
    jit::KernelCall c;
    c.range = range, c.work = work, c.start = e.work;
    e.work += range * work;
    calls.push_back(c);
  };
  SECTION("one call of few long rows") { add(3, 1000000); }
  SECTION("calls of a row each") {
    for (int i = 0; i < 24; ++i) add(1, 1000);
  }
  SECTION("elements, many and few") { add(1000003, 1), add(100, 1), add(64, 1); }
  SECTION("of all sizes") {
    for (const int64_t range : {1, 400000, 2, 0, 9, 31}) add(range, 1 + range % 7);
  }
  for (const int64_t parts : {1, 2, 3, 8, 64}) {
    CAPTURE(parts);
    std::vector<int64_t> had(static_cast<size_t>(parts));
    for (const jit::KernelCall& c : calls) {
      CHECK(first_index(e, c, 0, parts) == 0);
      CHECK(first_index(e, c, parts, parts) == c.range);
      for (int64_t part = 0; part < parts; ++part) {
        const int64_t n = first_index(e, c, part + 1, parts) - first_index(e, c, part, parts);
        CHECK(n >= 0);
        const bool lines = c.work == 1 && c.range >= 4096 * parts;
        if (lines) CHECK(first_index(e, c, part, parts) % 64 == 0);
        if (c.range >= parts) CHECK(n <= c.range / parts + (lines ? 64 : 1));
        had[static_cast<size_t>(part)] += n * c.work;
      }
    }
    int64_t spare = 0;  // an index of each call that is cut, and one of the others
    int64_t uncut = 0;
    for (const jit::KernelCall& c : calls) {
      if (c.range >= parts)
        spare += c.work == 1 ? 64 : c.work;
      else
        uncut = std::max(uncut, c.work);
    }
    for (const int64_t elements : had) CHECK(elements <= 2 * (e.work / parts) + spare + uncut);
  }
}
