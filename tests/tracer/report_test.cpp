// Reports: the numbers are those of programs simple enough to count by hand.
#include <sstream>

#include "tandem/tandem.h"
#include "tests/catch.h"

namespace td = tandem;

TEST_CASE("a report counts bytes moved, alone and together") {
  const td::Tensor w = td::ones({1024});
  auto f = td::trace([&](const td::Tensor& x) { return td::tanh(x * 2 + w); }, {.name = "f"});
  const td::Tensor x = td::ones({1024});
  for (int i = 0; i < 3; ++i) f(x);
  const td::TraceReport r = f.report();
  CHECK(r.calls == 3);
  CHECK(r.recorded == 1);
  CHECK(r.signatures == 1);
  CHECK(r.segments == 1);
  CHECK(r.ops == 3);
  CHECK(r.plans == 1);
  CHECK(r.groups == 1);
  CHECK(r.entries == 1);
  CHECK(r.distinct_kernels == 1);
  CHECK(r.bytes_moved == 3 * 4096);              // x and w read, the result written
  CHECK(r.bytes_unfused == (2 + 3 + 2) * 4096);  // mul, add, tanh
  CHECK(r.persistent_bytes == 4096);
  CHECK(r.escaping_bytes == 4096);
  CHECK(r.arena_bytes == 0);
  CHECK(r.fallbacks.empty());

  std::ostringstream out;
  out << r;
  CHECK(out.str() == td::to_string(r));
  for (const char* part :
       {"f\n", "3, of them 1 recorded", "1 signature, 1 branch, 1 segment, 3 ops", "1 group in 1 launch",
        "12.0 KiB; op by op 28.0 KiB, 2.3 times", "persistent 4.0 KiB, escaping 4.0 KiB"}) {
    INFO(out.str() << part);
    CHECK(out.str().find(part) != std::string::npos);
  }
}

TEST_CASE("alike groups share a launch; what is captured counts once") {
  td::Tensor a = td::ones({100}), b = td::ones({200});
  auto f = td::trace([&](const td::Tensor& x) {
    const td::NoGrad no_grad;
    a.mul_(2);
    b.mul_(2);
    return x + 1;
  });
  for (int i = 0; i < 2; ++i) f(td::ones({3}));
  f(td::ones({4}));
  const td::TraceReport r = f.report();
  CHECK(r.signatures == 2);
  CHECK(r.persistent_bytes == 1200);  // not once for each signature
  CHECK(r.plans == 2);
  CHECK(r.groups == 6);
  CHECK(r.entries == 4);
  CHECK(r.bytes_moved == 2 * 2 * 1200 + 2 * (12 + 16));
}

TEST_CASE("a report says what runs op by op, and why") {
  td::Tensor base = td::zeros({10});
  auto f = td::trace([&](const td::Tensor& x) {
    base.slice(0, 0, 10, 2).copy_(x);  // no graph for it
    return x + 1;
  });
  for (int i = 0; i < 2; ++i) f(td::ones({5}));
  const td::TraceReport r = f.report();
  CHECK(r.plans == 0);
  REQUIRE(r.op_by_op_reasons.size() == 1);
  CHECK(td::to_string(r).find("a segment runs op by op: " + r.op_by_op_reasons[0]) != std::string::npos);
  CHECK(td::to_string(r).find("2 segment runs") != std::string::npos);
}

TEST_CASE("a report says what differed when something new was recorded") {
  float bound = 100;
  auto f = td::trace([&](td::Tensor x) {
    const td::Tensor y = x * 2.f;
    return y.sum().item<float>() > bound ? td::tanh(y) : y + 1.f;
  });
  f(td::ones({3, 4}));
  CHECK(f.report().misses.empty());
  f(td::ones({5, 4}));
  bound = 0;
  f(td::ones({5, 4}));
  const td::TraceReport r = f.report();
  REQUIRE(r.misses.size() == 2);
  CHECK_THAT(r.misses[0], Contains("sizes (3, 4) before, (5, 4) now"));
  CHECK_THAT(r.misses[1], Contains("a new branch"));
  CHECK_THAT(r.misses[1], Contains("tanh"));
  CHECK_THAT(to_string(r), Contains("miss        a new signature of arguments (1 are known): arg0"));
}
