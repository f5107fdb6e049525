// Makes one signature of a frozen function from a record: used by one call of FrozenCore::add, which holds
// the record and the core's lock.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tandem/tracer/frozen_core.h"

namespace tandem::tracer {

class Freezer {
 public:
  Freezer(FrozenCore& core, const Record& r, bool* again) : core_(core), r_(r), again_(again) {}
  std::unique_ptr<FrozenSignature> run();

 private:
  [[noreturn]] void refuse(const std::string& why, Location where) const {
    fail(core_.name + ": freeze: " + why, where.known() ? where : core_.made_at);
  }
  /// The same, where calls that are observed from now on may do better.
  [[noreturn]] void refuse_now(const std::string& why, Location where) const {
    if (again_) *again_ = true;
    refuse(why, where);
  }
  const Observation::Call& seen() const { return r_.observed->last; }
  const Branch& path() const { return *r_.branches[0]; }
  static const ops::OpDef& def(const Entry& e) { return ops::def(static_cast<ops::OpId>(e.op)); }
  static std::string type_text(const HandleInfo& h) { return name(h.dtype) + to_string(h.sizes); }
  Location first_use(uint32_t handle) const;
  void check_events();
  void check(const Entry& e, Location where);
  double dampening(const Entry& e) const;
  void check_observed();
  Place place(uint32_t h);
  uint32_t slot(uint32_t h);
  uint32_t made(uint32_t h);
  void count_steps();
  static constexpr uint32_t kNoWord = ~uint32_t{0};
  static uint32_t attribute(const Entry& e, std::string_view name);
  void move_versions();
  void write_grads();
  void use_grads(std::vector<uint32_t>& leaves);
  /// The call's ops use gradient `h` of the leaf: it must be this one.
  void found_gradient(GradWrite& w, uint32_t h);
  /// A tensor that is in no op, as a captured one; nothing if it has died.
  std::optional<Place> stranger(uint32_t index);
  /// The body set or dropped the gradient of leaf `h` before event `i`.
  bool touched(uint32_t h, int32_t i) const;
  void check_outputs();
  const Entry& entry_of(uint32_t word, Location& where) const;
  static bool word_changed(const Entry& e, uint32_t word) {
    return (e.changed >> ((word - e.words) & 31)) & 1;
  }
  /// The attribute at a word, or "number i"; null `attr` for number operands.
  static std::string word_name(const Entry& e, uint32_t word, const ops::Attr** attr);
  [[noreturn]] void refuse_change(const Entry& e, uint32_t word, Location where) const;
  static void words_of(const eager::NumberSource& s, std::vector<uint32_t>& out);
  NumberRule number(uint32_t word);
  void note_constant(const Entry& e, uint32_t word, const std::string& what, const ops::Attr* attr,
                     Location where);

  FrozenCore& core_;
  const Record& r_;
  bool* again_;
  std::unique_ptr<FrozenSignature> out_ = std::make_unique<FrozenSignature>();
  const Plan* plan_ = nullptr;
  std::vector<uint32_t> open_tape_, handed_out_;  // handles; cells
  std::unordered_map<uint32_t, uint32_t> made_;
  std::unordered_map<uint32_t, std::pair<uint32_t, Location>> versions_;  // by cell made in the call
  std::unordered_map<uint32_t, NumberRule> corrections_;                  // by word
};

}  // namespace tandem::tracer
