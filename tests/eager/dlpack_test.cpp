// DLPack: both directions, lifetimes, and structures of hostile producers, field by field.
#include "tandem/eager/dlpack.h"

#include <atomic>
#include <cstring>
#include <limits>
#include <thread>

#include "tandem/core/allocator.h"
#include "tandem/eager/functions.h"
#include "tests/catch.h"
#include "tests/error_message.h"

namespace td = tandem;
using td::Tensor;
using td::dlpack::ManagedTensor;
using td::dlpack::ManagedTensorVersioned;
using td::test::message;

namespace {

std::vector<double> values(const Tensor& t) { return t.to_vector<double>(); }

/// A foreign producer of six floats as (2, 3), which counts what happens to it.
struct Producer {
  std::atomic<int> deleted{0};
  alignas(64) float data[8] = {0, 1, 2, 3, 4, 5, 6, 7};
  int64_t shape[16] = {2, 3}, strides[16] = {3, 1};
  ManagedTensorVersioned managed{};
  ManagedTensor old{};

  Producer() {
    managed.version = {1, 1};
    managed.manager_ctx = this;
    managed.deleter = [](ManagedTensorVersioned* m) { ++static_cast<Producer*>(m->manager_ctx)->deleted; };
    managed.dl_tensor = {data, {1, 0}, 2, {2, 32, 1}, shape, strides, 0};
    old.dl_tensor = managed.dl_tensor;
    old.manager_ctx = this;
    old.deleter = [](ManagedTensor* m) { ++static_cast<Producer*>(m->manager_ctx)->deleted; };
  }
};

/// The error for a changed structure; the deleter must have been called once.
template <class F>
std::string refused(F change) {
  Producer p;
  change(p);
  const std::string text = message([&] { td::from_dlpack(&p.managed); });
  CHECK(p.deleted == (p.managed.deleter ? 1 : 0));
  return text;
}

}  // namespace

TEST_CASE("dlpack: a tensor goes out as it is", "[eager]") {
  const Tensor base = td::arange(0.f, 24).reshape({4, 6}),
               t = base.index({td::Slice{1, 4, 2}, td::Slice{2, 5}});
  ManagedTensorVersioned* m = td::to_dlpack(t);
  CHECK(m->version.major == 1);
  CHECK(m->version.minor == 1);
  CHECK(m->flags == 0);
  CHECK(m->dl_tensor.device.device_type == 1);
  CHECK(m->dl_tensor.ndim == 2);
  CHECK(m->dl_tensor.dtype.code == td::dlpack::kFloat);
  CHECK(m->dl_tensor.dtype.bits == 32);
  CHECK(m->dl_tensor.dtype.lanes == 1);
  CHECK(m->dl_tensor.shape[0] == 2);
  CHECK(m->dl_tensor.shape[1] == 3);
  CHECK(m->dl_tensor.strides[0] == 12);
  CHECK(m->dl_tensor.strides[1] == 1);
  const auto* first =
      reinterpret_cast<const float*>(static_cast<char*>(m->dl_tensor.data) + m->dl_tensor.byte_offset);
  CHECK(first == t.data<float>());
  m->deleter(m);
}

TEST_CASE("dlpack: each dtype makes the round trip over the same memory", "[eager]") {
  for (int i = 0; i < td::kDTypeCount; ++i) {
    const auto dtype = static_cast<td::DType>(i);
    const Tensor t = td::tensor({0.f, 1.f, 3.f, 2.f}).to(dtype).reshape({2, 2}).transpose(0, 1);
    const Tensor back = td::from_dlpack(td::to_dlpack(t));
    CHECK(back.dtype() == dtype);
    CHECK(back.sizes() == t.sizes());
    CHECK(back.strides() == t.strides());
    CHECK(back.impl()->data == t.impl()->data);
    CHECK(values(back) == values(t));
    CHECK(values(td::from_dlpack(td::to_dlpack_unversioned(t))) == values(t));
  }
  const Tensor scalar = td::from_dlpack(td::to_dlpack(td::scalar_tensor(2.5f)));
  CHECK(scalar.sizes() == td::Dims{});
  CHECK(scalar.item<float>() == 2.5f);
}

TEST_CASE("dlpack: no elements have null data, and strides all the same", "[eager]") {
  ManagedTensorVersioned* m = td::to_dlpack(td::zeros({3, 0}));
  CHECK(m->dl_tensor.data == nullptr);
  CHECK(m->dl_tensor.byte_offset == 0);
  REQUIRE(m->dl_tensor.strides != nullptr);
  CHECK(td::from_dlpack(m).sizes() == td::Dims{3, 0});
}

TEST_CASE("dlpack: memory outlives the tensor, and the deleter may run on any thread", "[eager]") {
  ManagedTensorVersioned* m = nullptr;
  {
    const Tensor t = td::arange(0.f, 1000);
    m = td::to_dlpack(t);
  }
  const Tensor other = td::full({1000}, -1.f);  // would be the same memory, had it been free
  const auto* data = static_cast<const float*>(m->dl_tensor.data);
  CHECK(data[0] == 0);
  CHECK(data[999] == 999);
  std::thread([&] { m->deleter(m); }).join();
}

TEST_CASE("dlpack: both sides see changes; a copy sees none", "[eager]") {
  const Tensor t = td::zeros({3});
  const Tensor shared = td::from_dlpack(td::to_dlpack(t));
  ManagedTensorVersioned* m = td::to_dlpack(t, {.copy = true});
  CHECK(m->flags == td::dlpack::kIsCopied);
  const Tensor copied = td::from_dlpack(m);
  t.add_(1.f);
  CHECK(values(shared) == std::vector<double>{1, 1, 1});
  shared.mul_(5.f);
  CHECK(values(t) == std::vector<double>{5, 5, 5});
  CHECK(values(copied) == std::vector<double>{0, 0, 0});
}

TEST_CASE("dlpack: what comes home is the storage that went out, with its versions", "[eager]") {
  const Tensor base = td::arange(0.f, 24).reshape({4, 6}),
               part = base.index({td::Slice{1, 3}, td::Slice{2, 5}});
  Tensor home = td::from_dlpack(td::to_dlpack(part));
  CHECK(home.impl()->storage == base.impl()->storage);
  CHECK(home.impl()->offset == 8);
  CHECK(values(home) == values(part));
  Tensor w = td::ones({4, 6}).requires_grad_();
  const Tensor loss = (w * base).sum();
  home.add_(1.f);
  CHECK_THAT(message([&] { loss.backward(); }), Contains("was changed in place"));
  Tensor leaf = td::from_dlpack(td::to_dlpack(part)).requires_grad_();
  (leaf * 2.f).sum().backward();
  CHECK(values(leaf.grad())[0] == 2);
  // A consumer may have written into the struct.
  ManagedTensorVersioned* m = td::to_dlpack(base);
  alignas(64) float other[24] = {5};
  m->dl_tensor.data = other;
  CHECK(td::from_dlpack(m).data<float>() == other);
  m = td::to_dlpack(base);
  m->dl_tensor.byte_offset = 4, m->dl_tensor.shape[0] = 1;
  const Tensor moved = td::from_dlpack(m);
  CHECK(moved.impl()->offset == 1);
  CHECK(values(moved)[0] == 1);
}

TEST_CASE("dlpack: an exported value that backward needs keeps its version", "[eager]") {
  Tensor w = td::ones({2}).requires_grad_();
  const Tensor x = td::tensor({1.f, 2.f});
  Tensor loss = (w * x).sum();
  ManagedTensorVersioned* m = td::to_dlpack(x);
  loss.backward();  // exporting is no change
  loss = (w * x).sum();
  x.add_(1.f);
  CHECK_THAT(message([&] { loss.backward(); }), Contains("was changed in place"));
  m->deleter(m);
}

TEST_CASE("dlpack: tensors that require grad are refused", "[eager]") {
  const Tensor w = td::ones({2}).requires_grad_();
  CHECK_THAT(message([&] { td::to_dlpack(w); }), Contains("requires grad") && Contains("dlpack_test.cpp"));
  ManagedTensorVersioned* m = td::to_dlpack(w.detach());
  m->deleter(m);
  CHECK_THAT(message([&] { td::to_dlpack(Tensor()); }), Contains("undefined tensor"));
}

TEST_CASE("dlpack: a producer's memory is used as it is, and given back once", "[eager]") {
  Producer p;
  {
    const Tensor t = td::from_dlpack(&p.managed);
    CHECK(t.sizes() == td::Dims{2, 3});
    CHECK(t.data<float>() == p.data);
    CHECK(values(t) == std::vector<double>{0, 1, 2, 3, 4, 5});
    const Tensor row = t[1];
    t.add_(10.f);
    CHECK(p.data[0] == 10);
    CHECK(p.deleted == 0);
    CHECK(values(row) == std::vector<double>{13, 14, 15});
  }
  CHECK(p.deleted == 1);
  Producer unversioned;
  { CHECK(values(td::from_dlpack(&unversioned.old))[5] == 5); }
  CHECK(unversioned.deleted == 1);
  Producer view;
  const Tensor row = td::from_dlpack(&view.managed)[1];  // outlives the whole
  CHECK(view.deleted == 0);
  CHECK(values(row + 1.f) == std::vector<double>{4, 5, 6});
}

TEST_CASE("dlpack: strides, offsets and missing strides", "[eager]") {
  Producer p;
  p.strides[0] = 1, p.strides[1] = 2;
  p.managed.dl_tensor.byte_offset = 4;
  CHECK(values(td::from_dlpack(&p.managed)) == std::vector<double>{1, 3, 5, 2, 4, 6});
  Producer none;
  none.managed.dl_tensor.strides = nullptr;
  CHECK(values(td::from_dlpack(&none.managed)) == std::vector<double>{0, 1, 2, 3, 4, 5});
  Producer expanded;
  expanded.strides[0] = 0;
  CHECK(values(td::from_dlpack(&expanded.managed)) == std::vector<double>{0, 1, 2, 0, 1, 2});
  Producer scalar;
  scalar.managed.dl_tensor.ndim = 0;
  scalar.managed.dl_tensor.shape = scalar.managed.dl_tensor.strides = nullptr;
  CHECK(td::from_dlpack(&scalar.managed).sizes() == td::Dims{});
  Producer empty;  // strides of what has no elements, or one position, may be anything
  empty.shape[0] = 0, empty.strides[1] = -7;
  empty.managed.dl_tensor.data = nullptr;
  CHECK(td::from_dlpack(&empty.managed).sizes() == td::Dims{0, 3});
  Producer one;
  one.shape[0] = 1, one.strides[0] = -1234567;
  CHECK(values(td::from_dlpack(&one.managed)) == std::vector<double>{0, 1, 2});
  Producer pinned;
  pinned.managed.dl_tensor.device.device_type = td::dlpack::kCudaHost;
  CHECK(td::from_dlpack(&pinned.managed).device() == td::cpu);
  Producer forever;
  forever.managed.deleter = nullptr;
  { CHECK(values(td::from_dlpack(&forever.managed))[1] == 1); }
  Producer newer;
  newer.managed.version.minor = 77;
  CHECK(values(td::from_dlpack(&newer.managed))[1] == 1);
}

TEST_CASE("dlpack: read-only memory is copied", "[eager]") {
  Producer p;
  p.managed.flags = td::dlpack::kReadOnly;
  const Tensor t = td::from_dlpack(&p.managed);
  CHECK(p.deleted == 1);
  t.add_(1.f);
  CHECK(p.data[0] == 0);
  const Tensor mine = td::zeros({2});
  const Tensor back = td::from_dlpack(td::to_dlpack(mine, {.read_only = true}));
  back.add_(1.f);
  CHECK(values(mine) == std::vector<double>{0, 0});
}

TEST_CASE("dlpack: hostile structures are refused, field by field, and given back", "[eager]") {
  constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
  CHECK_THAT(message([] { td::from_dlpack(static_cast<ManagedTensorVersioned*>(nullptr)); }),
             Contains("null"));
  CHECK_THAT(message([] { td::from_dlpack(static_cast<ManagedTensor*>(nullptr)); }), Contains("null"));
  CHECK_THAT(refused([](Producer& p) {
               p.managed.version.major = 2;  // all that follows the deleter means something else
               std::memset(reinterpret_cast<char*>(&p.managed.flags), 0xee,
                           sizeof(ManagedTensorVersioned) - offsetof(ManagedTensorVersioned, flags));
             }),
             Contains("version 2.x") && Contains("dlpack_test.cpp"));
  CHECK_THAT(refused([](Producer& p) { p.managed.version.major = 0; }), Contains("version 0.x"));
  CHECK_THAT(refused([](Producer& p) { p.managed.dl_tensor.ndim = -1; }), Contains("ndim is -1"));
  CHECK_THAT(refused([](Producer& p) { p.managed.dl_tensor.ndim = 9; }), Contains("ndim is 9"));
  CHECK_THAT(refused([](Producer& p) { p.managed.dl_tensor.shape = nullptr; }), Contains("shape is null"));
  CHECK_THAT(refused([](Producer& p) { p.shape[1] = -3; }), Contains("negative size -3"));
  CHECK_THAT(refused([](Producer& p) { p.shape[0] = p.shape[1] = kHuge; }),
             Contains("overflow") || Contains("too large") || Contains("exceed"));
  CHECK_THAT(refused([](Producer& p) { p.shape[0] = kHuge / 6; }), Contains("size in bytes"));
  CHECK_THAT(refused([](Producer& p) { p.strides[0] = kHuge; }),
             Contains("strides") || Contains("size in bytes"));
  CHECK_THAT(refused([](Producer& p) { p.strides[0] = kHuge / 4; }), Contains("size in bytes"));
  CHECK_THAT(refused([](Producer& p) { p.strides[1] = -1; }), Contains("negative step -1"));
  CHECK_THAT(refused([](Producer& p) { p.managed.dl_tensor.data = nullptr; }),
             Contains("data is null for 6"));
  CHECK_THAT(refused([](Producer& p) { p.managed.dl_tensor.byte_offset = ~uint64_t{0}; }),
             Contains("byte_offset"));
  CHECK_THAT(refused([](Producer& p) {
               p.managed.dl_tensor.byte_offset = ~reinterpret_cast<uintptr_t>(p.data) - 7;
             }),
             Contains("byte_offset"));
  CHECK_THAT(refused([](Producer& p) { p.managed.dl_tensor.byte_offset = 2; }),
             Contains("not aligned to the 4 bytes"));
  CHECK_THAT(refused([](Producer& p) { p.managed.dl_tensor.device.device_type = 10; }),
             Contains("device type 10"));
  CHECK_THAT(refused([](Producer& p) { p.managed.dl_tensor.device.device_type = -5; }),
             Contains("device type -5"));
  for (const td::dlpack::PackType t : {td::dlpack::PackType{0, 8, 1},
                                       {0, 16, 1},
                                       {1, 16, 1},
                                       {2, 32, 4},
                                       {2, 32, 0},
                                       {2, 8, 1},
                                       {3, 64, 1},
                                       {5, 64, 1},
                                       {6, 1, 1},
                                       {17, 4, 1},
                                       {255, 255, 65535}})
    CHECK_THAT(refused([&](Producer& p) { p.managed.dl_tensor.dtype = t; }), Contains("no dtype for code"));
  // Sizes whose product is 0 and whose strides would leave int64.
  Producer wide;
  wide.shape[0] = 0, wide.shape[1] = wide.shape[2] = wide.shape[3] = kHuge;
  wide.managed.dl_tensor.ndim = 4;
  CHECK_THAT(message([&] { td::from_dlpack(&wide.managed); }), Contains("size overflows"));
  CHECK(wide.deleted == 1);
}

TEST_CASE("dlpack: 10,000 round trips leave nothing behind", "[eager]") {
  const auto trip = [](int n) {
    const Tensor t = td::full({1 + n % 50, 300}, n % 7);
    const Tensor back = td::from_dlpack(td::to_dlpack(t));
    return back[0][0].item<float>() == float(n % 7);
  };
  for (int i = 0; i < 100; ++i) trip(i);
  const int64_t before = td::core::allocator_stats().live_bytes;
  bool right = true;
  for (int i = 0; i < 10000; ++i) right = right && trip(i);
  CHECK(right);
  CHECK(td::core::allocator_stats().live_bytes == before);
}
