#include "tandem/eager/named_tensor.h"

#include <string_view>
#include <unordered_map>

namespace tandem::eager {

namespace {

/// Collects names for a message, the first few in full.
class NameList {
 public:
  void add(const std::string& text) {
    if (++count_ <= kShown) text_ += (count_ > 1 ? ", " : "") + text;
  }
  /// "; missing: a, b and 3 more", or nothing.
  std::string text(const char* title) const {
    if (count_ == 0) return {};
    const std::string more = count_ > kShown ? " and " + std::to_string(count_ - kShown) + " more" : "";
    return std::string("; ") + title + ": " + text_ + more;
  }

 private:
  static constexpr int kShown = 8;
  std::string text_;
  int count_ = 0;
};

std::string type_text(const Tensor& t) { return name(t.dtype()) + to_string(t.sizes()); }

}  // namespace

std::vector<int64_t> match_names(const std::vector<NamedTensor>& expected,
                                 const std::vector<NamedTensor>& given, bool strict, const std::string& who,
                                 Location where) {
  std::unordered_map<std::string_view, int64_t> index;
  NameList missing, unexpected, twice, wrong;
  for (size_t i = 0; i < given.size(); ++i)
    if (!index.emplace(given[i].name, static_cast<int64_t>(i)).second) twice.add(given[i].name);
  std::vector<int64_t> found;
  for (const NamedTensor& e : expected) {
    const auto at = index.find(e.name);
    found.push_back(at == index.end() ? -1 : at->second);
    if (at == index.end()) {
      if (strict) missing.add(e.name);
      continue;
    }
    const Tensor& g = given[static_cast<size_t>(at->second)].tensor;
    if (!g.defined()) {
      wrong.add(e.name + " is an undefined tensor");
    } else if (!(g.sizes() == e.tensor.sizes()) || g.dtype() != e.tensor.dtype()) {
      wrong.add(e.name + " is " + type_text(e.tensor) + ", given " + type_text(g));
    }
    index.erase(at);
  }
  if (strict)
    for (const NamedTensor& g : given)
      if (index.contains(g.name)) unexpected.add(g.name);
  const std::string problems = missing.text("missing") + unexpected.text("unexpected") +
                               twice.text("given twice") + wrong.text("wrong shape or type");
  if (!problems.empty()) fail(who + ": the state does not fit" + problems, where);
  return found;
}

}  // namespace tandem::eager
