// Indices out of range. A kernel that meets one sets a word, in memory of the host, so that to look at it
// costs no copy; who synchronises looks at the words of all launches that are done by then, clears what is
// set, and throws what the first one stands for. It may be another thread than the one that launched: it may
// have read what came of it, so it is told, and the one that launched too, when it synchronises next.
#include <algorithm>
#include <atomic>

#include "tandem/core/cuda/runtime.h"

namespace tandem::cuda {

namespace {

constexpr size_t kMostOwed = 64;

/// Numbers of threads are not used again.
uint64_t this_thread_number() {
  static std::atomic<uint64_t> made{0};
  static thread_local const uint64_t mine = ++made;
  return mine;
}

}  // namespace

void Runtime::add_error_words() {
  use();
  unused_errors_.reserve(error_words_.size() + kErrorWords);
  expected_.reserve(error_words_.size() + kErrorWords);
  error_words_.reserve(error_words_.size() + kErrorWords);
  error_regions_.reserve(error_regions_.size() + 1);
  void* region = nullptr;
  check(api_.allocate_host(&region, kErrorWords * sizeof(int64_t)), "cuMemAllocHost");
  error_regions_.push_back(static_cast<int64_t*>(region));
  std::fill_n(error_regions_.back(), kErrorWords, 0);
  for (size_t i = kErrorWords; i-- > 0;) unused_errors_.push_back(error_words_.size() + i);
  error_words_.resize(error_words_.size() + kErrorWords);
}

size_t Runtime::error_index(Pointer word) const {
  for (size_t r = 0; r < error_regions_.size(); ++r)
    if (const Pointer offset = word - reinterpret_cast<Pointer>(error_regions_[r]);
        offset < kErrorWords * sizeof(int64_t))
      return r * kErrorWords + offset / sizeof(int64_t);
  internal_error("an address that is no error word");
}

bool Runtime::take_error_word(ErrorText what, Location where, size_t* index) {
  if (unused_errors_.empty()) return false;
  *index = unused_errors_.back();
  unused_errors_.pop_back();
  error_words_[*index] = {.what = std::move(what), .where = where};
  return true;
}

Pointer Runtime::error_word(ErrorText what, Location where) {
  Pointer address = 0;
  const auto take = [&] {
    const std::lock_guard lock(mutex_);
    size_t index = 0;
    if (!take_error_word(what, where, &index)) return false;
    expect(index);
    address = error_address(index);
    return true;
  };
  if (!take()) [[unlikely]] {
    synchronize();
    while (!take()) {
      const std::lock_guard lock(mutex_);
      add_error_words();
    }
  }
  return address;
}

Pointer Runtime::keep_error_word(ErrorText what, Location where) {
  const std::lock_guard lock(mutex_);
  size_t index = 0;
  while (!take_error_word(what, where, &index)) add_error_words();
  error_words_[index].kept = true;
  return error_address(index);
}

void Runtime::expect_errors(std::span<const Pointer> kept) {
  const std::lock_guard lock(mutex_);
  for (const Pointer word : kept) expect(error_index(word));
}

Runtime::Past Runtime::past() const {
  const std::lock_guard lock(mutex_);
  if (expected_.empty()) return {};
  return {true, launches_, several() ? order_.clock(current()) : Clock()};
}

void Runtime::finished(const Past& past) {
  if (!past.may_fail) return;
  order_.finished(past.clock);
  check_errors(past.launches);
}

void Runtime::release_error_word(Pointer kept) noexcept {
  const std::lock_guard lock(mutex_);
  const size_t index = error_index(kept);
  error_words_[index].kept = false;
  if (!error_words_[index].expected) unused_errors_.push_back(index);  // else once it was looked at
}

void Runtime::expect(size_t index) {
  ErrorWord& word = error_words_[index];
  word.number = ++launches_;
  if (several()) word.launch = order_.last(current());
  if (!word.expected) word.first = word.launch, word.first_number = word.number;
  word.thread = this_thread_number();
  if (!std::exchange(word.expected, true)) expected_.push_back(index);
}

void Runtime::check_errors(uint64_t last) {
  const uint64_t thread = this_thread_number();
  Owed told{};
  {
    const auto nobody_launches = launching();
    const std::lock_guard lock(mutex_);
    const auto mine =
        std::find_if(owed_.begin(), owed_.end(), [&](const Owed& o) { return o.thread == thread; });
    if (mine != owed_.end()) {
      told = std::move(*mine);
      owed_.erase(mine);
    }
    // A word that a later launch may still set is looked at, and told of, but not cleared: it is told of
    // again.
    const auto tell = [&](const ErrorWord& word) {
      if (word.thread != thread && owed_.size() < kMostOwed)
        owed_.push_back({word.thread, word.what, word.where});
      if (!told.what || (told.thread != thread && word.thread == thread))
        told = {word.thread, word.what, word.where};
    };
    for (const size_t index : expected_) {
      ErrorWord& word = error_words_[index];
      const auto done = [&](const Moment& m, uint64_t number) {
        return several() ? order_.is_finished(m) : number <= last;
      };
      if (!done(word.first, word.first_number)) continue;
      const std::atomic_ref<int64_t> set(word_at(index));
      if (set.load(std::memory_order_relaxed) != 0) tell(word);
      if (!done(word.launch, word.number)) continue;
      set.store(0, std::memory_order_relaxed);
      word.expected = false;
      if (!word.kept) unused_errors_.push_back(index);
    }
    std::erase_if(expected_, [&](size_t index) { return !error_words_[index].expected; });
  }
  if (told.what) fail(*told.what, told.where);
}

}  // namespace tandem::cuda
