// A traced function that branches on a value: y**3 if the sum of y is above 3, else y / 3. The trace runs
// what is pending when `if` reads the condition, and follows whichever way the program goes.
#include <tandem/tandem.h>

#include <cstdio>

#include "samples/cli.h"

namespace td = tandem;

namespace {

td::Tensor cube_or_third(const td::Tensor& y) {
  if (y.sum() > 3) return td::pow(y, 3);
  return y / 3;
}

bool same_bits(const td::Tensor& a, const td::Tensor& b) {
  return a.sizes() == b.sizes() && a.to_vector<float>() == b.to_vector<float>();
}

}  // namespace

int main(int argc, char** argv) {
  samples::Options options(argc, argv,
                           "Runs a function that branches on a value eagerly and traced, on both branches.");
  options.done();

  auto traced = td::trace(cube_or_third, {.name = "cube_or_third"});
  const struct {
    const char* name;
    td::Tensor y;
  } inputs[] = {{"sum 6, cubed", td::tensor({1.f, 2.f, 3.f})},
                {"sum 1.5, divided by 3", td::tensor({0.25f, 0.5f, 0.75f})},
                {"sum 4.5, cubed", td::tensor({0.5f, 1.f, 3.f})},
                {"sum -1, divided by 3", td::tensor({-2.f, 0.5f, 0.5f})}};
  bool equal = true;
  for (const auto& [name, y] : inputs) {
    const td::Tensor eager = cube_or_third(y);
    const td::Tensor replayed = traced(y);
    const bool same = same_bits(eager, replayed);
    equal = equal && same;
    const std::vector<float> e = eager.to_vector<float>(), t = replayed.to_vector<float>();
    std::printf("%-22s eager (%g, %g, %g)  traced (%g, %g, %g)  %s\n", name, e[0], e[1], e[2], t[0], t[1],
                t[2], same ? "equal" : "DIFFERENT");
  }
  const td::TraceReport r = traced.report();
  std::printf("calls %lld, recorded %lld, segments %lld, plans %lld\n", static_cast<long long>(r.calls),
              static_cast<long long>(r.recorded), static_cast<long long>(r.segments),
              static_cast<long long>(r.plans));
  std::puts(equal ? "eager and traced results are equal bit for bit" : "eager and traced results differ");
  return equal ? 0 : 1;
}
