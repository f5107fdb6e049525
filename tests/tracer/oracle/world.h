// One world in which a program runs, eager or traced: what its statements see and change, and what can be
// seen of it after each call. The statements of rows.def are its members. Made and used by one thread; the
// Resolved outlives it.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <map>
#include <memory>
#include <optional>

#include "tandem/eager/autograd.h"
#include "tandem/eager/functions.h"
#include "tandem/eager/optim/optim.h"
#include "tandem/tracer/trace.h"
#include "tests/tracer/oracle/program.h"

namespace oracle {

namespace td = tandem;
using td::Tensor;

// Types that programs use; printed where they are used.
#define ORACLE_BOOM \
  struct Boom {};
#define ORACLE_BATCH          \
  struct Batch {              \
    Tensor x;                 \
    std::vector<Tensor> rest; \
    float number;             \
  };
#define ORACLE_OUT                      \
  struct Out {                          \
    Tensor first;                       \
    std::optional<Tensor> second;       \
    std::map<std::string, Tensor> more; \
  };
ORACLE_BOOM
ORACLE_BATCH
ORACLE_OUT

/// How often each row ran.
using Coverage = std::array<int64_t, kKinds>;

class World {
 public:
  World(const Program& p, const Resolved& resolved, bool traced, const Options& options,
        Coverage* coverage = nullptr);

  void call(const Call& c);
  /// Bits of all that was looked at, and where each call's begin.
  std::vector<uint32_t> out;
  std::vector<size_t> calls;
  std::vector<std::string> errors;          // one a call; empty if none
  std::function<td::TraceReport()> report;  // null in an eager world

 private:
  struct Body;
  using Run = void (World::*)(const Tensor& a, const Tensor& b, Tensor& r, const int& k, const float& f,
                              const Body& body);
#define ROW(name, ...) \
  void row_##name(const Tensor&, const Tensor&, Tensor&, const int&, const float&, const Body&);
#define BLOCK ROW
#define OUTSIDE ROW
#define ARGUMENT(group, name, ...) ROW(name)
#define CHOICE(group, name, ...) ROW(name)
#define LOOK(name, ...) void look_##name();
#define STATE(name, declaration, ...) \
  declaration;                        \
  void set_##name();
#include "tests/tracer/oracle/rows.def"

  void run(const Statement& s);
  bool run(const std::vector<Line>& lines, std::vector<Tensor>& slots);
  Tensor run_body(Tensor x, Tensor y, Tensor z);
  const Tensor& value(int reference, const std::vector<Tensor>& slots) const;
  void show(const Tensor& t);
  void threw(std::string what);
  template <class F>
  auto trace(F f) {
    auto traced_function = td::trace(
        std::move(f), {.compile = options_.compile, .verify = options_.verify, .debug = options_.debug});
    report = [traced_function] { return traced_function.report(); };
    return traced_function;
  }

  static const Run kRuns[kKinds];
  const Program& program_;
  const Resolved& resolved_;
  const Options options_;
  Coverage* coverage_;
  const bool traced;
  const int grads;
  std::function<Tensor(Tensor, Tensor, Tensor)> self, step;
  bool returned_ = false;
  Tensor returned_value_;
};

}  // namespace oracle
