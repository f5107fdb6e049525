// Eager calls (protocol 5.g): what one op costs the host, on 4 and on 1024 floats; and sorting.
#include <memory>

#include "benchmarks/bench/harness.h"
#include "benchmarks/bench/pattern.h"
#include "benchmarks/bench/workload.h"
#include "tandem/tandem.h"

namespace td = tandem;

namespace bench {

namespace {

using td::Tensor;

constexpr int kChain = 10;

struct Operands {
  Operands(int64_t n, td::Device device) {
    const auto make = [&](uint32_t seed) {
      const std::vector<float> v = values(n, seed, 1);
      return td::tensor(std::span<const float>(v), td::Dims{n}).to(device);
    };
    a = make(kInputs), b = make(kInputs + 1);
    one = td::ones({n}).to(device);
    changed = a.clone();
    leaf = a.clone().requires_grad_();
    const std::vector<float> va = values(64, kInputs, 1), vb = values(64, kInputs + 1, 1);
    ma = td::tensor(std::span<const float>(va), {8, 8}).to(device);
    mb = td::tensor(std::span<const float>(vb), {8, 8}).to(device);
    mleaf = ma.clone().requires_grad_();
  }
  Tensor a, b, one, changed, leaf, ma, mb, mleaf;
};

/// What is sorted: lines of 1024, and as many numbers as a vocabulary has words.
struct Unsorted {
  explicit Unsorted(td::Device device) {
    const auto make = [&](const td::Dims& sizes) {
      const std::vector<float> v = values(td::numel(sizes), kInputs, 1);
      return td::tensor(std::span<const float>(v), sizes).to(device);
    };
    lines = make({1024, 1024}), words = make({50257});
  }
  Tensor lines, words;
};

struct Op {
  std::string name, what;
  std::function<Tensor(Operands&)> call;
  std::function<double(Operands&, int calls)> time_us;
  double times;    // LibTorch's time over ours on 4 floats, a bar
  bool large;      // also on 1024 elements
  double at_most;  // us, a bar; 0: none
};

/// The loop is compiled around the call, so that nothing else is timed.
template <class F>
Op op(const std::string& name, const std::string& what, F f, double times, bool large = false,
      double at_most = 0) {
  return {name,  what,  f,      [f](Operands& o, int calls) { return time_us(calls, [&] { f(o); }); },
          times, large, at_most};
}

std::vector<Op> ops() {
  return {
      op(
          "add", "a + b", [](Operands& o) { return td::add(o.a, o.b); }, 8, true, 0.13),
      op(
          "add_grad", "a + b, gradient noted", [](Operands& o) { return td::add(o.leaf, o.b); }, 4),
      op(
          "mul_", "a.mul_(b)", [](Operands& o) { return o.changed.mul_(o.one), o.changed; }, 8),
      op(
          "relu", "relu(a)", [](Operands& o) { return td::relu(o.a); }, 8, true),
      op(
          "sum", "a.sum()", [](Operands& o) { return o.a.sum(); }, 8, true),
      op(
          "view", "a.reshape({2, n / 2}), a view",
          [](Operands& o) {
            return o.a.reshape({2, o.a.numel() / 2});
          },
          8),
      op(
          "slice", "a.slice(0, 1, 3), a view", [](Operands& o) { return o.a.slice(0, 1, 3); }, 4),
      op(
          "relu_grad", "relu(a), gradient noted", [](Operands& o) { return td::relu(o.leaf); }, 4),
      op(
          "sum_grad", "a.sum(), gradient noted", [](Operands& o) { return o.leaf.sum(); }, 4),
      op(
          "view_grad", "a.reshape({2, n / 2}), gradient noted",
          [](Operands& o) {
            return o.leaf.reshape({2, o.leaf.numel() / 2});
          },
          4),
      op(
          "slice_grad", "a.slice(0, 1, 3), gradient noted", [](Operands& o) { return o.leaf.slice(0, 1, 3); },
          4),
      op(
          "mm_grad", "mm of 8 x 8, gradient noted", [](Operands& o) { return td::mm(o.mleaf, o.mb); }, 2),
      op(
          "mm", "mm of 8 x 8", [](Operands& o) { return td::mm(o.ma, o.mb); }, 2),
      op(
          "chain", "ten multiplications, their sum, and backward",
          [](Operands& o) {
            Tensor y = o.leaf;
            for (int i = 0; i < kChain; ++i) y = td::mul(y, o.one);
            o.leaf.zero_grad();
            y.sum().backward();
            return o.leaf.grad();
          },
          10, false, 9),
  };
}

Workload sorting(const std::string& name, const std::string& what, int64_t numbers,
                 Tensor (*call)(const Unsorted&)) {
  Workload w;
  w.name = "eager_" + name;
  w.section = "5.g";
  w.what = what + ", eagerly";
  w.threads = {1};
  w.units = static_cast<double>(numbers);
  w.unit = "numbers";
  w.counted = "nothing: comparisons depend on the algorithm";
  w.bars = {{Bar::Of::times_faster, 1, "LibTorch"}, {Bar::Of::times_faster, 1, "PyTorch"}};
  const auto answer = [call](const Unsorted& u) { return Answer{call(u).to_vector<double>()}; };
  w.reference = [=] { return answer(Unsorted(td::cpu)); };
  w.prepare = [=](const Setting& setting) {
    const auto u = std::make_shared<Unsorted>(setting.device);
    Prepared p;
    p.contestants = {{"eager", Side::ours, setting.threads,
                      [=](int calls) { return time_us_on(setting.device, calls, [&] { call(*u); }); },
                      [=] { return answer(*u); }}};
    return p;
  };
  return w;
}

Workload workload(const Op& op, int64_t n) {
  Workload w;
  w.name = "eager_" + op.name + (n > 4 ? "_1024" : "");
  w.section = "5.g";
  w.what = op.what + (op.name.starts_with("mm") ? "" : ", " + std::to_string(n) + " floats") + ", eagerly";
  w.threads = {1};
  w.counted = "nothing: the host's time";
  if (op.name == "mm")
    w.open = "1,024 FLOP among checks made for large products; next: the short way of small operands";
  if (op.name == "view")
    w.open =
        "beside a second thread four counts are locked instructions; next: a view that has its memory from "
        "its "
        "parent, which must keep it when the parent gets other memory";
  w.bars = {{Bar::Of::times_faster, n == 4 ? op.times : 4, "LibTorch"},
            {Bar::Of::times_faster, 4, "PyTorch"}};
  if (op.at_most > 0 && n == 4) w.bars.push_back({Bar::Of::at_most_us, op.at_most, ""});
  w.reference = [=] {
    Operands o(n, td::cpu);
    return Answer{op.call(o).detach().to_vector<double>()};
  };
  w.prepare = [=](const Setting& setting) {
    const auto o = std::make_shared<Operands>(n, setting.device);
    Prepared p;
    p.contestants = {{"eager", Side::ours, setting.threads, [=](int calls) { return op.time_us(*o, calls); },
                      [=] { return Answer{op.call(*o).detach().to_vector<double>()}; }}};
    return p;
  };
  return w;
}

}  // namespace

std::vector<Workload> dispatch_workloads() {
  std::vector<Workload> all;
  for (const Op& op : ops())
    for (const int64_t n : {4, 1024})
      if (n == 4 || op.large) all.push_back(workload(op, n));
  all.push_back(sorting("sort", "1,024 lines of 1,024 floats sorted", 1 << 20,
                        [](const Unsorted& u) { return u.lines.sort(-1).values; }));
  all.push_back(sorting("topk", "the 50 largest of 50,257 floats", 50257,
                        [](const Unsorted& u) { return u.words.topk(50).values; }));
  return all;
}

}  // namespace bench
