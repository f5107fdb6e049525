// Profiles of eager and traced code: every op and plan entry with the user's line, and the same values.
#include <nlohmann/json.hpp>

#include "tandem/core/io/file.h"
#include "tandem/tandem.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"
#include "tests/tracer/programs.h"

namespace td = tandem;

namespace {

int64_t calls(const td::ProfileTable& t, const std::string& kind, const std::string& name, int line) {
  int64_t n = 0;
  for (const td::ProfileRow& r : t.rows)
    if (r.kind == kind && r.name == name && (line == 0 || r.where.line == line)) {
      n += r.calls;
      if (line) CHECK(std::string(r.where.file).find("profile_test.cpp") != std::string::npos);
    }
  return n;
}

}  // namespace

TEST_CASE("eager ops are timed on their lines, small ones too") {
  td::Tensor w = td::ones({8, 8}).requires_grad_();
  const td::Tensor x = td::ones({4, 8});
  auto p = td::profile("");
  const int line = __LINE__ + 2;
  for (int i = 0; i < 5; ++i) {
    const td::Tensor y = td::relu(td::matmul(x, w));
    const td::Tensor z = y + y;
    z.sum().backward();
  }
  const td::ProfileTable t = p.finish();
  CHECK(calls(t, "op", "matmul", line) == 5);
  CHECK(calls(t, "op", "relu", line) == 5);
  CHECK(calls(t, "op", "add", line + 1) == 5);
  CHECK(calls(t, "op", "sum", line + 2) == 5);
  CHECK(calls(t, "backward", "matmul", line) == 5);
  CHECK(calls(t, "kernel", "relu", 0) == 0);  // part of the op
  for (const td::ProfileRow& r : t.rows) CHECK(r.kind != "call");
}

TEST_CASE("traced steps are timed entry by entry; values are those without a profile") {
  const ScratchFolder scratch;
  const std::string path = scratch / "p.json";
  const td::Tensor w = td::ones({64, 64});
  int line = 0;
  const auto body = [&](const td::Tensor& x, const td::Tensor& w) {
    line = __LINE__ + 1;
    return td::tanh(td::matmul(x, w) * 0.01);
  };
  auto f = td::trace(body, {.name = "my step"});
  const td::Tensor x = td::ones({16, 64});
  const auto expected = body(x, w).to_vector<float>();
  f(x, w);
  const td::TraceReport r = f.report();
  td::ProfileTable t;
  {
    auto p = td::profile(path);
    for (int i = 0; i < 4; ++i) CHECK(programs::equal_bits(f(x, w).to_vector<float>(), expected));
    t = p.finish();
  }
  CHECK(calls(t, "call", "my step", 0) == 4);
  CHECK(calls(t, "product", "matmul+mul+tanh", line) == 4);
  int64_t kernels = 0, bytes = 0;
  for (const td::ProfileRow& row : t.rows) {
    kernels += row.kind == "kernel" ? row.calls : 0;
    bytes += row.bytes;
    CHECK(row.kind != "compile");
    CHECK(row.kind != "op");
  }
  CHECK(kernels == 4 * (r.kernels - r.behind));
  CHECK(bytes == 4 * r.bytes_moved);
  const auto json = nlohmann::json::parse(td::core::read_file(path));
  CHECK(static_cast<int64_t>(json.at("traceEvents").size()) == 1 + 4 * (1 + r.entries));
  // Entries lie within their call.
  double from = 0, to = 0;
  std::vector<std::pair<double, double>> entries;
  for (const auto& e : json.at("traceEvents")) {
    if (e.at("ph") != "X") continue;
    const double ts = e.at("ts"), end = ts + e.at("dur").get<double>();
    if (e.at("cat") != "call") {
      entries.emplace_back(ts, end);
      continue;
    }
    from = ts, to = end;
    for (const auto& [a, b] : entries) CHECK((from <= a + 0.002 && b <= to + 0.002));
    entries.clear();
  }
  CHECK(programs::equal_bits(f(x, w).to_vector<float>(), expected));
}

TEST_CASE("a compilation is an event; a failing op ends its span") {
  auto f = td::trace([](const td::Tensor& x) { return td::exp(x) * 3; });
  auto p = td::profile("");
  f(td::ones({7}));
  CHECK_THROWS_AS(td::matmul(td::ones({2, 3}), td::ones({2, 3})), td::Error);
  td::ones({2}) + td::ones({2});
  const td::ProfileTable t = p.finish();
  CHECK(calls(t, "compile", "compile a plan", 0) == 1);
  CHECK(calls(t, "op", "add", 0) == 1);
}
