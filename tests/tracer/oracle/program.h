// Random programs for the oracle: what a program is, how one is made from a seed, printed as a C++ test, and
// made smaller. A program is a list of statements (rows.def) with blocks, and a list of calls with what the
// outside does before each. Operands are chosen at generation; a statement whose operand was taken away takes
// another one that is alive, so every sub-list of a program is a program.
//
// Values; any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace oracle {

/// What a value is: (4), (n, 4) for the call's n, or either.
enum class Shape : uint8_t { none, vec, mat, any };
/// Of a statement's result: none, a kind of its own, that of an operand, or of both broadcast.
enum class Result : uint8_t { none, vec, mat, as_a, as_b, join };
enum class Group : uint8_t { statement, block, outside, x, y, z, signature, optimizer };

enum class Kind : uint8_t {
#define ROW(name, ...) name,
#define BLOCK(name, ...) name,
#define OUTSIDE(name, ...) name,
#define ARGUMENT(group, name, ...) name,
#define CHOICE(group, name, ...) name,
#include "tests/tracer/oracle/rows.def"
  count_
};
constexpr size_t kKinds = static_cast<size_t>(Kind::count_);

struct Row {
  const char* name;
  Group group;
  Shape a, b;
  Result result;
  const char* text;  // C++ over a, b, r, k, f and the names of the world
};
extern const Row kRows[kKinds];
inline const Row& row(Kind k) { return kRows[static_cast<size_t>(k)]; }

struct Statement {
  Kind what{};
  int id = 0;        // unique in its program; others refer to the result by it
  int a = 0, b = 0;  // references, see kReferences
  int k = 0;         // 0 .. 3
  float f = 0.5f;
  std::vector<Statement> body;
};
/// References: the arguments 0 to 2, the parameters p[0] to p[3], then results by id.
constexpr int kArguments = 3, kParameters = 4, kReferences = kArguments + kParameters;

/// One call: what the outside does before it, host state, and the arguments.
struct Call {
  std::vector<Statement> before;
  Statement x, y, z;
  int n = 3, trips = 1, position = 0;
  float scale = 1;
  bool flag = false, flag2 = false, boom = false, moved = false;
};

struct Program {
  uint32_t seed = 0;
  std::vector<Statement> body;
  std::vector<Call> calls;
  Kind signature{}, optimizer{};
  int grads = 0;        // bit i: p[i] is a leaf that wants a gradient
  uint32_t look = ~0u;  // bit i: what the i-th row of looks shows is compared
  int next_id = 0;
};

/// How the traced world is traced.
struct Options {
  bool compile = false, debug = false;
  int verify = 0;
};

Program make_program(uint32_t seed);

/// A program whose references are slots: 0 to 2 the arguments, -1 - i parameter i, then results in order.
struct Line {
  const Row* row = nullptr;
  const Statement* from = nullptr;
  int a = 0, b = 0, slot = -1;
  std::vector<Line> body;
  int gives = -1;        // no statement: `a` is assigned to this slot
  bool returns = false;  // no statement: `a` is the result
};
struct Resolved {
  std::vector<Line> lines;
  int slots = kArguments;
};
Resolved resolve(const Program& p);

/// The program as a Catch2 test case that needs tandem/tandem.h alone; `title` names it.
std::string print(const Program& p, const std::string& title, const Options& options);

/// The smallest program found for which `fails` holds, in at most `most` trials.
Program reduce(Program p, const std::function<bool(const Program&)>& fails, int most = 4000);

int count_statements(const Program& p);

}  // namespace oracle
