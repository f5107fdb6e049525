// What a frozen function keeps of captured tensors from call to call: it is used only while these are as they
// were, whoever changes them in whatever way, and results are eager mode's bit for bit.
#include "tandem/core/allocator.h"
#include "tandem/tandem.h"
#include "tests/core/scratch_folder.h"
#include "tests/tracer/kept_programs.h"
#include "tests/tracer/scarce_memory.h"

using namespace programs;

namespace {

/// An Inference, frozen.
struct Frozen : Inference {
  std::optional<decltype(traced.freeze())> frozen = frozen_after_two(traced, rows(0));

  int64_t kept() const { return frozen->report().kept_bytes; }
  bool same() { return Inference::same(*frozen); }
};

}  // namespace

TEST_CASE("the second call in a row that finds weights unchanged keeps what is made of them", "[frozen]") {
  td::manual_seed(1);
  Frozen f;
  CHECK(f.same());
  CHECK(f.kept() == 0);
  CHECK(f.same());
  const int64_t kept = f.kept();
  CHECK(kept >= 4 * (20 * 80 + 70 * 32));  // two matrices in panels, and what the norm makes of its variance
  CHECK(kept < 8 * (20 * 80 + 70 * 32));
  CHECK(has(to_string(f.frozen->report()), "kept        " + std::to_string(kept) + " bytes"));
  CHECK(has(f.frozen->code(), "kept from call to call"));
  for (int i = 0; i < 3; ++i) CHECK(f.same());
  CHECK(f.kept() == kept);
}

TEST_CASE("what is kept follows every change of what it is made of", "[frozen]") {
  td::manual_seed(2);
  Frozen f;
  const auto warm = [&] {
    for (int i = 0; i < 3; ++i) CHECK(f.same());
    CHECK(f.kept() > 0);
  };
  const auto followed = [&](const char* how) {
    CAPTURE(how);
    CHECK(f.same());
    CHECK(f.kept() == 0);
    CHECK(f.same());
    CHECK(f.kept() > 0);
  };
  warm();
  f.net.hidden.weight.mul_(2);
  followed("in place");
  f.net.out.weight.narrow(0, 3, 2).fill_(0.5);
  followed("through a view");
  f.net.norm.running_var.add_(1);
  followed("statistics");
  td::Tensor alias = f.net.hidden.weight.detach();
  alias.copy_(td::randn({70, 20}));
  followed("through another tensor of the same memory");
  {
    const td::EnableGrad grad;
    td::optim::SGD opt(f.net.parameters(), {.lr = 0.1});
    f.net.train();
    td::cross_entropy(f.net.forward(rows(50)), td::randint(0, 17, {5}, {.dtype = td::int64})).backward();
    opt.step();
    f.net.eval();
  }
  followed("an eager step");
  {
    const td::EnableGrad grad;
    td::optim::AdamW opt(f.net.parameters(), {.lr = 0.1});
    auto step = td::trace([&](const td::Tensor& x, const td::Tensor& y) {
      const td::Tensor loss = td::cross_entropy(f.net.forward(x), y);
      opt.zero_grad();
      loss.backward();
      opt.step();
      return loss;
    });
    const td::Tensor y = td::randint(0, 17, {5}, {.dtype = td::int64});
    f.net.train();
    auto frozen_step = frozen_after_two(step, rows(60), y);
    CHECK(frozen_step.report().kept_bytes == 0);
    {
      f.net.eval();
      const td::NoGrad no_grad;
      CHECK(f.same());
      CHECK(f.same());
      CHECK(f.kept() > 0);
    }
    f.net.train();
    frozen_step(rows(61), y);
    CHECK(frozen_step.report().kept_bytes == 0);
    f.net.eval();
  }
  followed("a frozen step");
}

TEST_CASE("nothing is kept of memory whose address the program has", "[frozen]") {
  td::manual_seed(3);
  SECTION("a pointer that was asked for") {
    Frozen f;
    for (int i = 0; i < 3; ++i) CHECK(f.same());
    CHECK(f.kept() > 0);
    float* const w = f.net.hidden.weight.data<float>();
    for (int i = 0; i < 4; ++i) {
      w[i] += 1;
      CHECK(f.same());
      CHECK(f.kept() == 0);
    }
  }
  SECTION("memory that was brought") {
    std::vector<float> memory(70 * 20, 0.25f);
    const td::Tensor w = td::from_blob(memory.data(), {70, 20});
    const td::NoGrad no_grad;
    auto traced = td::trace([&](const td::Tensor& x) { return td::linear(x, w); });
    auto frozen = frozen_after_two(traced, rows(0));
    for (int i = 0; i < 4; ++i) {
      memory[3] = static_cast<float>(i);
      Values got, want;
      append(got, frozen(rows(i)));
      append(want, td::linear(rows(i), w));
      CHECK(equal_bits(got, want));
      CHECK(frozen.report().kept_bytes == 0);
    }
  }
}

TEST_CASE("casts of weights under autocast are made once", "[frozen]") {
  td::manual_seed(4);
  Classifier net;
  net.eval();
  const td::NoGrad no_grad;
  auto traced = td::trace([&](const td::Tensor& x) {
    const td::autocast mixed(td::bfloat16);
    return net.forward(x);
  });
  auto frozen = frozen_after_two(traced, rows(0));
  for (int i = 0; i < 4; ++i) {
    Values got, want;
    append(got, frozen(rows(i)).to(td::float32));
    const td::autocast mixed(td::bfloat16);
    append(want, net.forward(rows(i)).to(td::float32));
    CHECK(equal_bits(got, want));
  }
  CHECK(frozen.report().kept_bytes >= 2 * (20 * 70 + 70 * 17));
}

TEST_CASE("signatures keep for themselves", "[frozen]") {
  td::manual_seed(5);
  Frozen f;
  f.traced(rows(1, 9));
  f.traced(rows(2, 9));
  f.frozen.emplace(f.traced.freeze());
  const auto same = [&](int64_t n) {
    Values got, want;
    append(got, (*f.frozen)(rows(7, n)));
    append(want, f.net.forward(rows(7, n)));
    return equal_bits(got, want);
  };
  for (int i = 0; i < 3; ++i) CHECK((same(5) && same(9)));
  const int64_t both = f.kept();
  f.net.out.bias.add_(1);  // read by the plan as it is, and never kept
  CHECK((same(5) && same(9)));
  CHECK(f.kept() == both);
  f.net.hidden.bias.add_(1);
  f.net.hidden.weight.add_(1);
  CHECK((same(5) && same(9)));
  CHECK(f.kept() == 0);
}

TEST_CASE("a loaded function keeps, too, and follows its own state", "[frozen]") {
  td::manual_seed(6);
  Frozen f;
  const ScratchFolder folder;
  const std::string path = folder / "f.tandem";
  f.frozen->save(path, {.names = f.net.state()});
  const td::FrozenFunction loaded = td::load_function(path);
  const auto check = [&] {
    Values got, want;
    append(got, loaded({rows(3)})[0]);
    append(want, f.net.forward(rows(3)));
    CHECK(equal_bits(got, want));
  };
  for (int i = 0; i < 3; ++i) check();
  CHECK(loaded.report().kept_bytes > 0);
  f.net.hidden.weight.mul_(3);
  for (const td::NamedTensor& n : loaded.state())
    if (n.name == "hidden.weight") n.tensor.mul_(3);
  check();
  CHECK(loaded.report().kept_bytes == 0);
}

TEST_CASE("an error in a frozen run with kept values names its op and line", "[frozen]") {
  td::manual_seed(9);
  LookUp body;
  auto traced = td::trace([&](const td::Tensor& x, const td::Tensor& index) { return body(x, index); });
  const td::Tensor good = LookUp::index(3);
  auto frozen = frozen_after_two(traced, rows(0), good);
  for (int i = 0; i < 3; ++i) frozen(rows(i), good);
  REQUIRE(frozen.report().kept_bytes > 0);
  const std::string error = error_of([&] { frozen(rows(0), LookUp::index(7)); });
  CAPTURE(error);
  CHECK(has(error, "out of range"));
  CHECK(has(error, here(body.line, "kept_programs.h")));
}

#ifdef TANDEM_TEST_SCARCE_MEMORY
TEST_CASE("where there is no memory for what could be kept, nothing is, and the calls go on", "[frozen]") {
  td::manual_seed(8);
  const td::NoGrad no_grad;
  td::nn::Linear wide(2048, 4096);
  auto traced = td::trace([&](const td::Tensor& x) { return wide.forward(x); });
  const td::Tensor x = td::randn({6, 2048});
  auto frozen = frozen_after_two(traced, x);
  const Values want = frozen(x).to_vector<float>();
  const tandem::test::LogCapture log;
  td::core::empty_cache();
  {
    const tandem::test::ScarceMemory scarce(8 << 20);
    CHECK(frozen(x).to_vector<float>() == want);
  }
  CHECK(log.warned("nothing is kept of captured tensors"));
  for (int i = 0; i < 3; ++i) CHECK(frozen(x).to_vector<float>() == want);
  CHECK(frozen.report().kept_bytes == 0);
}
#endif
