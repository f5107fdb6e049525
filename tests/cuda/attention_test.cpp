// Attention on the device: which calls cuDNN does, that they give what our own ops give on the CPU but for
// rounding, in both directions, and that traced programs do the same as eager ones. On the simulated GPU the
// library is the simulated one, whose first proposals are traps.
#include "tandem/eager/autograd.h"
#include "tandem/jit/attention_call.h"
#include "tests/cuda/on_device.h"
#include "tests/cuda/simulator.h"

namespace td = tandem;
using namespace tandem::test;
using td::Dims;
using td::DType;
using td::Tensor;

namespace {

long attentions() { return simulator().there ? simulator().sim_gpu_count("attentions") : 0; }

double distance(const Tensor& a, const Tensor& b) {
  const auto host = [](const Tensor& t) { return t.detach().to(td::cpu).to(td::float64); };
  return (host(a) - host(b)).abs().amax().item<double>();
}

struct Operands {
  Tensor q, k, v;
};
Operands on(const Operands& o, td::Device device, DType type) {
  const auto moved = [&](const Tensor& t) { return t.to(type).to(device).requires_grad_(); };
  return {moved(o.q), moved(o.k), moved(o.v)};
}
Operands random(const Dims& q, const Dims& k, const Dims& v) {
  return {td::randn(q), td::randn(k), td::randn(v)};
}

/// The result and the gradients of q, k and v.
std::vector<Tensor> outcome(const Operands& o, const Tensor& seed, bool causal, std::optional<double> scale,
                            bool grouped) {
  const Tensor y = td::scaled_dot_product_attention(o.q, o.k, o.v, {}, 0, causal, scale, grouped);
  const Tensor in[] = {o.q, o.k, o.v};
  std::vector<Tensor> out = {y.detach()};
  const Tensor g = seed.to(y.dtype()).to(y.device());
  for (const Tensor& t : td::autograd::grad(std::span<const Tensor>(&y, 1), std::span<const Tensor>(in, 3),
                                            std::span<const Tensor>(&g, 1)))
    out.push_back(t);
  return out;
}

struct Shape {
  Dims q, k, v;
  bool grouped = false;
};
const Shape kShapes[] = {
    {{2, 2, 64, 8}, {2, 2, 64, 8}, {2, 2, 64, 8}},
    {{1, 4, 48, 16}, {1, 2, 96, 16}, {1, 2, 96, 24}, true},
    {{3, 70, 8}, {3, 66, 8}, {3, 66, 16}},
    {{64, 24}, {80, 24}, {80, 8}},
    {{2, 1, 2, 65, 8}, {2, 1, 1, 64, 8}, {2, 1, 1, 64, 8}, true},
};

/// How far a half's result may be from ours, which multiplies in float32: values are near 1.
double tolerance(DType type) { return type == DType::float16 ? 6e-3 : 5e-2; }

}  // namespace

TEST_CASE("cuda attention: halves go to cuDNN, forward and backward, near the CPU's", "[cuda]") {
  need_device();
  td::manual_seed(3);
  for (const Shape& s : kShapes)
    for (const DType type : {DType::float16, DType::bfloat16})
      for (const bool causal : {false, true}) {
        CAPTURE(td::to_string(s.q), td::to_string(s.k), td::name(type), causal);
        const Operands o = random(s.q, s.k, s.v);
        Dims sizes = s.q;
        sizes[sizes.rank() - 1] = s.v.back();
        const Tensor seed = td::randn(sizes);
        const std::optional<double> scale = causal ? std::optional<double>() : 0.3;
        const std::vector<Tensor> here = outcome(on(o, td::cpu, type), seed, causal, scale, s.grouped);
        const long before = attentions();
        const std::vector<Tensor> there = outcome(on(o, kCuda, type), seed, causal, scale, s.grouped);
        if (simulator().there) CHECK(attentions() == before + 2);
        REQUIRE(there.size() == 4);
        for (size_t i = 0; i < there.size(); ++i) {
          CAPTURE(i);
          CHECK(there[i].dtype() == type);
          CHECK(distance(here[i], there[i]) < tolerance(type) * (i == 0 ? 1 : 4));
        }
      }
}

TEST_CASE("cuda attention: our own ops do the rest, and all of it without the library", "[cuda]") {
  need_device();
  td::manual_seed(4);
  const auto compare = [&](const Shape& s, DType type, const std::function<Tensor(const Operands&)>& f) {
    const Operands o = random(s.q, s.k, s.v);
    const long before = attentions();
    const Tensor there = f(on(o, kCuda, type)), here = f(on(o, td::cpu, type));
    CHECK(attentions() == before);
    CHECK(distance(here, there) < tolerance(type == DType::float32 ? DType::float16 : type));
  };
  const auto plain = [](const Operands& o) { return td::scaled_dot_product_attention(o.q, o.k, o.v); };
  const Shape usual{{2, 2, 64, 8}, {2, 2, 64, 8}, {2, 2, 64, 8}};
  compare(usual, DType::float32, plain);
  compare(usual, DType::bfloat16, [](const Operands& o) {
    const Tensor i = td::arange(0.f, 64, 1);
    const Tensor mask = (i.reshape({64, 1}) >= i).to(o.q.device());
    return td::scaled_dot_product_attention(o.q, o.k, o.v, mask);
  });
  compare({{2, 2, 64, 12}, {2, 2, 64, 12}, {2, 2, 64, 12}}, DType::float16, plain);
  compare({{1, 1, 64, 264}, {1, 1, 64, 264}, {1, 1, 64, 8}}, DType::float16, plain);
  compare({{2, 2, 63, 8}, {2, 2, 65, 8}, {2, 2, 65, 8}}, DType::float16, plain);
  {
    td::jit::cudnn_off = true;
    compare({{2, 2, 65, 8}, {2, 2, 65, 8}, {2, 2, 65, 8}}, DType::float16, plain);
    td::jit::cudnn_off = false;
  }
  if (!simulator().there) return;
  simulator().sim_gpu_set_engines(1ul << 21 | 1ul << 22);  // traps alone
  compare({{2, 2, 66, 8}, {2, 2, 66, 8}, {2, 2, 66, 8}}, DType::float16, plain);
  simulator().sim_gpu_set_engines(~0ul);
  compare({{2, 2, 66, 8}, {2, 2, 66, 8}, {2, 2, 66, 8}}, DType::float16, plain);  // once decided
}

TEST_CASE("cuda attention: parts of a packed projection are read where they lie", "[cuda]") {
  need_device();
  td::manual_seed(5);
  const Tensor packed = td::randn({2, 64, 3 * 16}).to(td::bfloat16).to(kCuda);
  const auto part = [&](int64_t i, bool lies) {
    const Tensor view = packed.narrow(2, 16 * i, 16).reshape({2, 64, 2, 8}).permute({0, 2, 1, 3});
    return lies ? view : view.contiguous();
  };
  const auto run = [&](bool lies) {
    const Tensor q = part(0, lies), k = part(1, lies), v = part(2, lies);
    return td::scaled_dot_product_attention(q, k, v, {}, 0, true);
  };
  const std::vector<char> copied = bits_of(run(false)), kept = bits_of(run(true));
  CHECK(copied == kept);
  run(true);
  if (!simulator().there) return;
  const long launches = simulator().sim_gpu_count("launches"), before = attentions();
  run(true);
  CHECK(simulator().sim_gpu_count("launches") == launches);  // no copies
  CHECK(attentions() == before + 1);
}

TEST_CASE("cuda attention: operands whose leading axes are expanded or turned", "[cuda]") {
  need_device();
  td::manual_seed(9);
  const Dims sizes{2, 3, 2, 64, 8};
  const Tensor whole = td::randn(sizes).to(td::float16).to(kCuda);
  const auto check = [&](const Tensor& view) {
    const Tensor copy = view.contiguous();
    const auto run = [&](const Tensor& t) {
      const Tensor q = t.detach().requires_grad_();
      const Tensor y = td::scaled_dot_product_attention(q, q, q);
      const Tensor g = td::autograd::grad(std::vector<Tensor>{y.to(td::float32).square().sum()},
                                          std::vector<Tensor>{q})[0];
      return std::pair(bits_of(y.detach()), bits_of(g));
    };
    CHECK(run(view) == run(copy));
  };
  for (int axis = 0; axis < 3; ++axis) check(whole.narrow(axis, 1, 1).expand(sizes));
  check(whole.narrow(0, 1, 1).narrow(1, 2, 1).expand(sizes));
  check(whole.transpose(0, 1));
  check(whole.transpose(1, 2));
  check(whole.transpose(0, 2));
  check(whole.select(0, 1).narrow(0, 1, 1).expand({3, 2, 64, 8}));
}

TEST_CASE("cuda attention: operands at any address", "[cuda]") {
  need_device();
  td::manual_seed(6);
  const Tensor flat = td::randn({3 * 2 * 64 * 8 + 1}).to(td::float16).to(kCuda);
  const auto run = [&](int64_t shift) {
    std::vector<Tensor> in;
    for (int64_t i = 0; i < 3; ++i) {
      const Tensor aligned = flat.narrow(0, i * 1024, 1024).clone();
      const Tensor room = td::zeros({1025}, {.dtype = td::float16, .device = kCuda});
      room.narrow(0, shift, 1024).copy_(aligned);
      in.push_back(room.narrow(0, shift, 1024).reshape({2, 64, 8}).detach().requires_grad_());
    }
    const Tensor y = td::scaled_dot_product_attention(in[0], in[1], in[2], {}, 0, true);
    const std::vector<Tensor> grads =
        td::autograd::grad(std::vector<Tensor>{y.to(td::float32).square().sum()}, in);
    return std::vector<std::vector<char>>{bits_of(y.detach()), bits_of(grads[0]), bits_of(grads[1]),
                                          bits_of(grads[2])};
  };
  CHECK(run(0) == run(1));
}

TEST_CASE("cuda attention: traced steps are the eager ones bit for bit, also with another scale", "[cuda]") {
  need_device();
  td::manual_seed(7);
  const Tensor w = td::randn({16, 48}).to(td::bfloat16).to(kCuda).requires_grad_();
  double scale = 0.25;
  const auto body = [&](const Tensor& x) {
    const Tensor packed = td::matmul(x, w);
    const auto part = [&](int64_t i) {
      return packed.narrow(2, 16 * i, 16).reshape({2, 64, 2, 8}).permute({0, 2, 1, 3});
    };
    const Tensor q = part(0), k = part(1), v = part(2);
    const Tensor y = td::scaled_dot_product_attention(q, k, v, {}, 0, true, scale);
    const Tensor loss = y.permute({0, 2, 1, 3}).to(td::float32).square().sum();
    w.zero_grad();
    loss.backward();
    return loss;
  };
  auto step = td::trace(body);
  std::vector<Tensor> kept;
  for (int i = 0; i < 6; ++i) {
    if (i == 4) scale = 0.5;
    kept.push_back(td::randn({2, 64, 16}).to(td::bfloat16).to(kCuda));
    const Tensor loss = step(kept.back());
    const std::vector<char> traced = bits_of(loss), grad = bits_of(w.grad());
    CHECK(bits_of(body(kept.back())) == traced);
    CHECK(bits_of(w.grad()) == grad);
  }
  CHECK(step.report().misses.empty());
}

TEST_CASE("cuda attention: second derivatives go through our own ops", "[cuda]") {
  need_device();
  td::manual_seed(8);
  const Operands o = random({1, 64, 8}, {1, 64, 8}, {1, 64, 8});
  const auto second = [&](td::Device device) {
    const Operands in = on(o, device, td::float16);
    const Tensor y = td::scaled_dot_product_attention(in.q, in.k, in.v);
    const Tensor loss = y.to(td::float32).square().sum();
    const std::vector<Tensor> first =
        td::autograd::grad(std::vector<Tensor>{loss}, std::vector<Tensor>{in.q}, {}, true, true);
    return td::autograd::grad(std::vector<Tensor>{first[0].to(td::float32).square().sum()},
                              std::vector<Tensor>{in.k})[0];
  };
  const Tensor here = second(td::cpu), there = second(kCuda);
  CHECK(distance(here, there) < 0.02 * here.to(td::float32).abs().amax().item<float>() + 0.02);
}

TEST_CASE("cuda attention: every call of planning may fail; the program goes on", "[cuda]") {
  need_device();
  if (!simulator().there) return;
  td::jit::CudnnAttention s;
  const auto shape = [&](int64_t rows) {
    s.batch = 1, s.heads = s.shared = 2, s.rows = rows, s.columns = 64, s.width = s.out_width = 8;
    s.causal = s.backward = true;
    s.q_strides = td::contiguous_strides(s.q()), s.k_strides = td::contiguous_strides(s.k());
    s.v_strides = td::contiguous_strides(s.v()), s.grad_strides = td::contiguous_strides(s.y());
    return s;
  };
  td::cuda::Runtime& device = td::cuda::Runtime::of(kCuda);
  REQUIRE(td::jit::cudnn_attention(device, shape(100)));
  int reached = 0, without = 0;
  for (long failing = 1; failing <= 3000; failing += 7) {
    std::string why;
    simulator().sim_gpu_fail_call(failing);
    const auto found = td::jit::cudnn_attention(device, shape(100 + failing), &why);
    const std::string failed = simulator().sim_gpu_failed_call();
    simulator().sim_gpu_fail_call(0);
    if (failed.empty()) break;
    CAPTURE(failing, failed, why);
    CHECK((found != nullptr) == why.empty());
    ++reached;
    if (!found) ++without;
  }
  CHECK(reached > 50);
  CHECK(without > 50);
}

TEST_CASE("cuda attention: the simulated library takes what the vendor's does, and no more", "[cuda]") {
  need_device();
  if (!simulator().there) return;
  const td::cuda::Cudnn& api = *td::cuda::cudnn();
  td::cuda::Runtime::of(kCuda).use();
  td::cuda::Cudnn::Handle handle = nullptr;
  REQUIRE(api.create(&handle) == 0);
  const auto refused = [&](const std::function<void(td::jit::CudnnAttention&)>& change) {
    td::jit::CudnnAttention s;
    s.batch = 1, s.heads = s.shared = 2, s.rows = s.columns = 64, s.width = s.out_width = 8;
    s.q_strides = {1024, 512, 8, 1};
    change(s);
    s.k_strides = td::contiguous_strides(s.k()), s.v_strides = td::contiguous_strides(s.v());
    s.grad_strides = td::contiguous_strides(s.y());
    std::string why;
    const auto plan = td::jit::CudnnPlan::make({&api, handle, nullptr}, td::jit::attention_graph(api, s),
                                               td::jit::attention_terms(s), &why);
    CHECK(plan.has_value() == why.empty());
    if (plan) CHECK(plan->engine() == 31);
    return why;
  };
  for (const bool backward : {false, true}) {
    CAPTURE(backward);
    const auto with = [&](auto change) {
      return refused([&](td::jit::CudnnAttention& s) {
        s.backward = backward;
        change(s);
      });
    };
    CHECK(with([](auto&) {}) == "");
    CHECK(with([](auto& s) { s.causal = true; }) == "");
    CHECK(with([](auto& s) { s.heads = 4, s.q_strides = {2048, 512, 8, 1}; }) == "");
    CHECK_THAT(with([](auto& s) {
                 s.width = 12, s.q_strides = {1536, 768, 12, 1};
               }),
               Contains("this width of a head"));
    CHECK_THAT(with([](auto& s) { s.q_strides[2] = 9; }), Contains("no multiple of 16 bytes"));
    CHECK_THAT(with([](auto& s) { s.q_strides = {1024, 512, 1, 64}; }), Contains("not one after another"));
    CHECK_THAT(with([](auto& s) { s.dtype = DType::float32; }), Contains("none of 0 proposals"));
    CHECK_THAT(with([](auto& s) {
                 s.width = s.out_width = 264, s.q_strides = {33792, 16896, 264, 1};
               }),
               Contains("this width of a head"));
  }
  CHECK(api.destroy(handle) == 0);
}
