#include "tandem/jit/group_order.h"

namespace tandem::jit {

namespace {
constexpr size_t at(int i) { return static_cast<size_t>(i); }
}  // namespace

int GroupOrder::add() {
  if (size() - window_ == kWindow) window_ = size();
  before_.push_back({});
  has_users_.push_back(0);
  gone_.push_back(0);
  return size() - 1;
}

void GroupOrder::depend(int g, int from) {
  if (from < window_ || g < window_) return;
  has_users_[at(from)] = 1;
  if (test(before_[at(g)], from - window_)) return;
  Bits more = before_[at(from)];
  set(more, from - window_);
  add_all(before_[at(g)], more);
  if (!has_users_[at(g)]) return;
  for (int h = window_; h < size(); ++h)
    if (test(before_[at(h)], g - window_)) add_all(before_[at(h)], more);
}

bool GroupOrder::would_wait(int a, int b) const {
  for (int h = window_; h < size(); ++h) {
    if (h == a || h == b || gone_[at(h)]) continue;
    const Bits& before = before_[at(h)];
    if (test(before, a - window_) && test(before_[at(b)], h - window_)) return true;
    if (test(before, b - window_) && test(before_[at(a)], h - window_)) return true;
  }
  return false;
}

void GroupOrder::merge(int a, int b) {
  gone_[at(b)] = 1;
  has_users_[at(a)] |= has_users_[at(b)];
  Bits& mine = before_[at(a)];
  add_all(mine, before_[at(b)]);
  clear(mine, a - window_);
  clear(mine, b - window_);
  Bits more = mine;
  set(more, a - window_);
  for (int h = window_; h < size(); ++h) {
    Bits& before = before_[at(h)];
    if (h == a || h == b || !(test(before, a - window_) || test(before, b - window_))) continue;
    add_all(before, more);
    clear(before, b - window_);
  }
}

}  // namespace tandem::jit
