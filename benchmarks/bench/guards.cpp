// What it costs to find out that nothing changed (protocol 5.i): a function of one number over so many
// captured tensors, whose kernels are not run, replayed.
#include <memory>

#include "benchmarks/bench/harness.h"
#include "benchmarks/bench/workload.h"
#include "tandem/jit/executable.h"
#include "tandem/tandem.h"

namespace td = tandem;

namespace bench {

namespace {

struct Sum {
  std::shared_ptr<std::vector<td::Tensor>> parts;
  td::Tensor operator()(const td::Tensor& x) const {
    td::Tensor sum = x;
    for (const td::Tensor& t : *parts) sum = td::add(sum, t);
    return sum;
  }
};

Workload guards(int count) {
  Workload w;
  w.name = "guards_" + std::to_string(count);
  w.section = "5.i";
  w.what = "a replayed call that captured " + std::to_string(count) + " tensors, without its kernels";
  w.threads = {1};
  w.counted = "nothing: the host's time";
  w.bars = {{Bar::Of::times_faster, 100, "PyTorch"}};
  if (count == 2)
    w.open =
        "a call with its guards costs 0.09 us whatever their number, Dynamo's 8 us with two; no next idea";
  if (count == 150) w.bars.push_back({Bar::Of::at_most_us, 0.5, ""});
  w.prepare = [count](const Setting& setting) {
    const Sum sum{std::make_shared<std::vector<td::Tensor>>()};
    for (int i = 0; i < count; ++i)
      sum.parts->push_back(td::full({4}, static_cast<float>(i)).to(setting.device));
    const td::Tensor x = td::ones({4}).to(setting.device);
    const auto checked = std::make_shared<td::TracedFunction<Sum>>(sum, td::TraceOptions{.name = "guards"});
    const td::jit::WithoutEntries scope;  // of plans that are made while it lives
    for (int i = 0; i < 3; ++i) (*checked)(x);
    const auto frozen = std::make_shared<td::Frozen<Sum>>(checked->freeze());
    const auto ours = [&](const char* name, auto f) {
      return Contestant{name, Side::ours, setting.threads,
                        [f, x](int calls) { return time_us(calls, [&] { (*f)(x); }); }, nullptr};
    };
    Prepared p;
    p.contestants = {ours("frozen", frozen), ours("traced", checked)};
    return p;
  };
  return w;
}

}  // namespace

std::vector<Workload> guard_workloads() { return {guards(2), guards(150), guards(450)}; }

}  // namespace bench
