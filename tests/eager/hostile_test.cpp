// Hostile calls of every op through the dispatcher: each ends in results or in an Error that names the op and
// the user's line, with all operands as they were; what has results can be differentiated or refuses with an
// Error.
#include "tests/eager/hostile.h"

#include "tests/catch.h"
#include "tests/error_message.h"

using namespace tandem;
using namespace tandem::test;

namespace {

constexpr int64_t kSmall = 1 << 20;  // elements that are worth looking at

std::vector<std::vector<double>> small_values(const std::vector<Tensor>& in) {
  std::vector<std::vector<double>> values;
  for (const Tensor& t : in)
    values.push_back(t.defined() && t.numel() <= kSmall ? read_values(t) : std::vector<double>{});
  return values;
}

bool same(const Lists& a, const Lists& b) {
  for (size_t i = 0; i < a.size(); ++i)
    for (size_t k = 0; k < a[i].size(); ++k)
      if (a[i][k] != b[i][k] && !(std::isnan(a[i][k]) && std::isnan(b[i][k]))) return false;
  return true;
}

/// What is wrong with how `run` ends; empty if nothing. `refused`: it ended in an Error.
template <class F>
std::string wrong_end(F&& run, const std::string& begin, bool& refused) {
  refused = false;
  try {
    run();
  } catch (const Error& e) {
    refused = true;
    const std::string text = e.what();
    const std::string named = text.substr(0, text.find(':'));  // the op, or one of its body
    if (begin != "" && named != begin && !ops::find_op(named.c_str())) return "names no op: " + text;
    if (text.find(" at user.cpp:31") == std::string::npos) return "without the user's line: " + text;
  } catch (const std::exception& e) {
    return std::string("no tandem::Error: ") + e.what();
  }
  return {};
}

}  // namespace

TEST_CASE("hostile calls of every op end in results or in an Error", "[eager]") {
  int calls = 0, refused_calls = 0;
  for_each_op([&](const ops::OpDef& op) {
    const HostileCalls hostile(op);
    CAPTURE(op.name);
    CHECK(hostile.calls().size() >= 50);
    for (const HostileCall& c : hostile.calls()) {
      CAPTURE(c.what);
      for (const bool grad : {false, true}) {
        std::vector<Tensor> in = c.in;
        for (Tensor& t : in)
          if (grad && t.defined() && is_floating(t.dtype())) t = t.detach().requires_grad_();
        const Lists before = small_values(in);
        std::vector<Tensor> out;
        bool refused = false;
        CHECK(wrong_end([&] { out = call_sample(op, c.sample, in); }, op.name, refused) == "");
        CHECK(same(before, small_values(in)));
        ++calls, refused_calls += refused;
        if (!grad || refused) continue;
        std::vector<Tensor> roots, weights;
        for (const Tensor& t : out) {
          if (!t.requires_grad() || t.numel() > kSmall) continue;
          roots.push_back(t);
          weights.push_back(ones(t.sizes(), {.dtype = t.dtype()}));
        }
        if (roots.empty()) continue;
        CHECK(wrong_end([&] { autograd::backward(roots, weights); }, "", refused) == "");
      }
    }
  });
  std::printf("hostile calls: %d, refused: %d\n", calls, refused_calls);
  CHECK(calls > 50 * ops::kOpCount);
}
