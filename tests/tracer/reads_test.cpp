// Reads of memory that exists already, but that ops of the running call have changed or use and that have not
// run yet: captured tensors and arguments (R6, R16).
#include "tandem/eager/data/readers.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"
#include "tests/tracer/programs.h"

using namespace programs;
using td::Tensor;

TEST_CASE("a captured tensor that the call has changed is read with its new value", "[tracer]") {
  const auto program = [](bool traced) {
    const Tensor p = td::zeros({2}), rows = td::zeros({2, 2});
    Values out;
    const auto f = wrapped(traced, [&](const Tensor& x) {
      p.add_(x);
      append(out, p);
      out.push_back(p.sum().item<float>());
      rows.select(0, 1).add_(p);
      append(out, rows);
      x.mul_(2.f);
      append(out, x);
      append(out, p);  // not changed since: no segment ends
      return p * 2.f;
    });
    for (int i = 0; i < 4; ++i) append(out, f(td::full({2}, static_cast<double>(i + 1))));
    return out;
  };
  CHECK(same(program));
}

TEST_CASE("a read of real memory that nothing pending changes ends no segment", "[tracer]") {
  const Tensor p = td::ones({2});
  auto f = td::trace(
      [&](const Tensor& x) {
        const Tensor y = p + x;
        CHECK(p.to_vector<float>() == Values(2, 1.f));
        return y;
      },
      {.compile = false});
  f(p + 1.f);
  CHECK(f.report().segments == 1);
}

TEST_CASE("memory whose address is handed out is used by earlier ops as it was", "[tracer]") {
  const auto program = [](bool traced) {
    const Tensor p = td::zeros({2});
    Values out;
    const auto f = wrapped(traced, [&](const Tensor& x) {
      const Tensor y = p + x;
      p.data<float>()[0] += 5.f;
      return y + p;
    });
    for (int i = 0; i < 3; ++i) append(out, f(td::ones({2})));
    append(out, p);
    return out;
  };
  CHECK(same(program));
}

TEST_CASE("a gradient that a skipped backward adds to is read with its new value", "[tracer]") {
  const auto program = [](bool traced) {
    const Tensor w = leaf(2);
    Values out;
    const auto f = wrapped(traced, [&](const Tensor& x) {
      const Tensor loss = (w * x).sum();
      loss.backward();
      append(out, w.grad());
      return loss.detach();
    });
    for (int i = 0; i < 4; ++i) append(out, f(td::full({2}, static_cast<double>(i + 1))));
    return out;
  };
  CHECK(same(program));
}

TEST_CASE("write_npy in a traced call writes what is still to come", "[tracer]") {
  const ScratchFolder folder;
  auto f = td::trace([&](const Tensor& x) {
    const Tensor y = x * 2.f;
    td::data::write_npy(folder / "y.npy", y.view({2, 2}).transpose(0, 1));
    return y + 1.f;
  });
  for (int i = 0; i < 3; ++i) {
    CHECK(f(td::arange(float(i), i + 4)).to_vector<float>()[0] == 2.f * float(i) + 1);
    const Tensor written = td::data::read_npy(folder / "y.npy");
    CHECK(written.sizes() == td::Dims{2, 2});
    CHECK(written.flatten().to_vector<float>()[1] == 2.f * float(i + 2));
  }
}
