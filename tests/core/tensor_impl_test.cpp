#include "tandem/core/tensor_impl.h"

#include <pthread.h>

#include <cstring>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

#include "tandem/core/allocator.h"
#include "tandem/core/error.h"
#include "tandem/core/free_lists.h"
#include "tandem/core/modes.h"
#include "tests/catch.h"

using namespace tandem;
using namespace tandem::core;

TEST_CASE("make_tensor gives an owned contiguous tensor", "[tensor_impl]") {
  const Ref<TensorImpl> t = make_tensor({2, 3, 4}, float64);
  CHECK(t->refs.get() == 1);
  CHECK(t->sizes == Dims{2, 3, 4});
  CHECK(t->strides == Dims{12, 4, 1});
  CHECK(t->numel == 24);
  CHECK(t->nbytes() == 192);
  CHECK(t->dtype == float64);
  CHECK(t->device == cpu);
  CHECK(t->flags == kContiguous);
  CHECK(t->offset == 0);
  CHECK(t->storage->refs.get() == 1);
  CHECK(t->storage->nbytes == 192);
  CHECK(t->data == t->storage->data);
  CHECK(reinterpret_cast<uintptr_t>(t->data) % 64 == 0);
  CHECK((!t->grad_fn && !t->leaf && t->frame == nullptr && t->handle == -1));

  CHECK(make_tensor({}, float32)->numel == 1);
  const Ref<TensorImpl> empty = make_tensor({0, 3}, float32);
  CHECK(empty->numel == 0);
  CHECK(empty->strides == Dims{3, 1});
  CHECK(empty->data != nullptr);
}

TEST_CASE("make_tensor refuses impossible sizes", "[tensor_impl]") {
  CHECK_THROWS_WITH(make_tensor({3, -1}, float32), "negative size -1 in shape (3, -1)");
  CHECK_THROWS_WITH(make_tensor({int64_t{1} << 40, int64_t{1} << 40}, float32), Contains("size overflows"));
  CHECK_THROWS_WITH(make_tensor({int64_t{1} << 61}, float32), Contains("size in bytes overflows"));
  CHECK_THROWS_AS(make_tensor({std::numeric_limits<int64_t>::max()}, uint8), Error);
  CHECK_THROWS_WITH(make_tensor({4}, float32, Device{DeviceType::cuda, 99}),
                    Contains("cuda:99 is not there"));
  CHECK_THROWS_AS(make_storage(-1), Error);
  CHECK_THROWS_AS(make_storage(std::numeric_limits<int64_t>::max()), Error);
  CHECK_THROWS_AS(borrow_storage(nullptr, -1), Error);
}

TEST_CASE("an impl that comes back is as fresh as the first", "[tensor_impl]") {
  for (int round = 0; round < 2; ++round) {
    Ref<TensorImpl> t(new_impl());
    CHECK(t->refs.get() == 1);
    CHECK((t->dtype == float32 && t->device == cpu && t->flags == kContiguous && t->output_index == 0));
    CHECK((t->data == nullptr && t->numel == 0 && t->offset == 0 && !t->storage && !t->grad_fn && !t->leaf));
    CHECK((t->frame == nullptr && t->handle == -1));
    CHECK((t->sizes.rank() == 0 && t->strides.rank() == 0));
    t->dtype = int64;
    t->device = {DeviceType::cuda, 2};
    t->flags = kRequiresGrad | kPending | kTraceOwned | kNumber;
    t->output_index = 3;
    t->frame = &round;
    t->handle = 5;
    t->leaf = std::make_unique<LeafState>();
    set_contiguous_layout(*t, {4, 5});
    set_storage(*t, make_storage(400), 2);
  }
  Ref<TensorImpl> reused(new_impl());
  CHECK(reused->flags == kContiguous);
  CHECK((reused->handle == -1 && reused->frame == nullptr && reused->output_index == 0));
}

TEST_CASE("layouts and storages are set", "[tensor_impl]") {
  Ref<TensorImpl> t(new_impl());
  t->dtype = int64;
  const Ref<Storage> storage = make_storage(800);
  set_layout(*t, {3, 2}, {1, 3});
  set_storage(*t, storage, 4);
  CHECK_FALSE(t->has(kContiguous));
  CHECK(t->numel == 6);
  CHECK(t->data == static_cast<char*>(storage->data) + 32);
  CHECK(storage->refs.get() == 2);
  set_contiguous_layout(*t, t->sizes);
  CHECK(t->has(kContiguous));
  CHECK(t->strides == Dims{2, 1});
  set_storage(*t, nullptr);
  CHECK(t->data == nullptr);
  CHECK(storage->refs.get() == 1);
}

TEST_CASE("borrowed memory is released once, with the last tensor", "[tensor_impl]") {
  static int released = 0;
  float data[4] = {1, 2, 3, 4};
  {
    Ref<Storage> storage = borrow_storage(
        data, sizeof(data), [](void* context) { ++*static_cast<int*>(context); }, &released);
    CHECK(storage->data == data);
    Ref<TensorImpl> a(new_impl()), b(new_impl());
    set_storage(*a, storage);
    set_storage(*b, std::move(storage));
    a.reset();
    CHECK(released == 0);
  }
  CHECK(released == 1);
  borrow_storage(data, sizeof(data)).reset();
  CHECK(data[3] == 4);
}

namespace {

int live_nodes = 0;

struct Node : TapeNode {
  std::vector<Ref<TensorImpl>> saved;
  Node() {
    ++live_nodes;
    destroy = [](TapeNode* n) { delete static_cast<Node*>(n); };
  }
  ~Node() { --live_nodes; }
};

std::vector<TensorImpl*> dying, changed;
bool keep = false;

bool note_event(TensorImpl* t, bool dies) noexcept {
  (dies ? dying : changed).push_back(t);
  if (dies && keep) {
    t->refs.set(1);
    return true;
  }
  return false;
}

struct SlotEventGuard {
  SlotEventGuard() { slot_event = note_event, dying.clear(), changed.clear(); }
  ~SlotEventGuard() { slot_event = before; }
  SlotEvent before = slot_event;
};

}  // namespace

TEST_CASE("a tape of 100,000 nodes is dropped without recursion", "[tensor_impl]") {
  Ref<TensorImpl> t = make_tensor({1}, float32);
  for (int i = 0; i < 100'000; ++i) {
    Node* node = new Node;
    node->saved.push_back(t);
    node->saved.push_back(make_tensor({1}, float32));
    Ref<TensorImpl> next = make_tensor({1}, float32);
    next->grad_fn = Ref<TapeNode>(node);
    t = std::move(next);
  }
  CHECK(live_nodes == 100'000);
  // On a small stack, so that recursion would show.
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, size_t{512} << 10);
  pthread_t thread{};
  const auto drop = [](void* last) -> void* {
    static_cast<Ref<TensorImpl>*>(last)->reset();
    return nullptr;
  };
  REQUIRE(pthread_create(&thread, &attributes, drop, &t) == 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
  CHECK(live_nodes == 0);
}

TEST_CASE("the last reference counts until it is left, and another may be taken before", "[tensor_impl]") {
  static Ref<TensorImpl> taken;
  const SlotEvent before = slot_event;
  slot_event = [](TensorImpl* t, bool dies) noexcept {
    if (dies && !taken) taken = Ref<TensorImpl>(t);  // as somebody else would at this moment
    return dies && !t->refs.leave();
  };
  for (const bool shared : {false, true}) {
    Ref<TensorImpl> t = make_tensor({4}, float32);
    t->slot = true;
    TensorImpl* raw = t.get();
    std::thread([other = shared ? t : Ref<TensorImpl>()] {}).join();
    t.reset();
    CHECK(taken.get() == raw);
    CHECK(taken->refs.get() == 1);
    CHECK(taken->storage->nbytes == 16);
    taken->slot = false;
    taken.reset();
  }
  slot_event = before;
}

TEST_CASE("slots tell of changes and of death", "[tensor_impl]") {
  SlotEventGuard guard;
  Ref<TensorImpl> t = make_tensor({4}, float32);
  set_contiguous_layout(*t, {2, 2});
  CHECK(changed.empty());
  t->slot = true;
  set_contiguous_layout(*t, {4});
  set_layout(*t, {2}, {2});
  set_storage(*t, make_storage(16));
  CHECK(changed == std::vector<TensorImpl*>(3, t.get()));

  TensorImpl* raw = t.get();
  SECTION("death cannot be stopped by default") {
    CHECK_FALSE(guard.before(raw, true));
    t.reset();
    CHECK(dying == std::vector<TensorImpl*>{raw});
  }
  SECTION("a dying slot can be taken over") {
    keep = true;
    t.reset();
    keep = false;
    CHECK(dying == std::vector<TensorImpl*>{raw});
    Ref<TensorImpl> taken = Ref<TensorImpl>::adopt(raw);
    CHECK(taken->refs.get() == 1);
    CHECK(taken->storage->nbytes == 16);
    taken->slot = false;
  }
  SECTION("the count is 0 when a shared tensor's last owner goes") {
    Ref<TensorImpl> second = t;
    t.reset();
    CHECK(dying.empty());
    second.reset();
    CHECK(dying.size() == 1);
  }
}

TEST_CASE("a warm tensor does not reach the system", "[tensor_impl]") {
  if (kBypassCaches) return;
  make_tensor({4, 5}, float32).reset();
  const int64_t before = allocator_stats().system_calls;
  for (int i = 0; i < 1000; ++i) make_tensor({4, 5}, float32);
  CHECK(allocator_stats().system_calls == before);
}

TEST_CASE("tensors may be dropped on another thread", "[tensor_impl]") {
  std::vector<Ref<TensorImpl>> tensors;
  for (int i = 0; i < 1000; ++i) tensors.push_back(make_tensor({16}, float32));
  std::vector<Ref<TensorImpl>> copies = tensors;
  std::thread other([&] { tensors.clear(); });
  copies.clear();
  other.join();
  empty_cache();
}

TEST_CASE("one of several references is given up, lent by this thread's call or not", "[tensor_impl]") {
  int call = 0, other_call = 0;
  const auto drop_one = [&](void* lent_by, const void* running, uint32_t references) {
    Ref<TensorImpl> t(new_impl());
    t->frame = lent_by;
    t->refs.set(references);
    const void* outer = std::exchange(cache_.frame, running);
    Ref<TensorImpl>::adopt(t.get()).reset();
    cache_.frame = outer;
    const uint32_t left = t->refs.get();
    t->refs.set(1);
    return left;
  };
  for (const uint32_t n : {2u, 3u}) {
    CHECK(drop_one(nullptr, nullptr, n) == n - 1);
    CHECK(drop_one(&call, nullptr, n) == n - 1);
    CHECK(drop_one(nullptr, &call, n) == n - 1);
    CHECK(drop_one(&call, &call, n) == n - 1);
    CHECK(drop_one(&call, &other_call, n) == n - 1);
  }
}

TEST_CASE("modes hold for a scope and a thread", "[modes]") {
  CHECK(modes().grad);
  {
    NoGrad off;
    CHECK_FALSE(modes().grad);
    {
      EnableGrad on;
      CHECK(modes().grad);
    }
    CHECK_FALSE(modes().grad);
    std::thread([] { CHECK(modes().grad); }).join();
  }
  CHECK(modes().grad);
  Modes changed_modes = modes();
  changed_modes.flush_denormals = true;
  CHECK(modes_word(changed_modes) != modes_word(modes()));
  {
    ModeGuard guard(changed_modes);
    CHECK(modes() == changed_modes);
    set_default_device({DeviceType::cuda, 1});
    CHECK(default_device() == Device{DeviceType::cuda, 1});
  }
  CHECK(default_device() == cpu);
}
