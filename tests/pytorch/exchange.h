// Cases that PyTorch answers, too: a test asks (a case is a name, what its kind needs as JSON, and tensors
// under
// "<case>/<what>"), `run` has tests/pytorch/reference.py answer all at once, `answer` gives its tensors back.
// One exchange belongs to one test.
#pragma once

#include <cmath>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "tandem/core/error.h"
#include "tandem/eager/save.h"
#include "tandem/jit/child_process.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"

namespace tandem::test {

/// Whether a Python with PyTorch was found when the build was configured; says so once if not.
inline bool have_pytorch() {
  static const bool have = [] {
    const bool found = std::string(TANDEM_PYTORCH_PYTHON) != "";
    if (!found) std::puts("SKIPPED: no Python here has PyTorch (Debian: python3-torch)");
    return found;
  }();
  return have;
}

/// The fields of a JSON object, one after another.
class Fields {
 public:
  Fields& raw(const std::string& key, const std::string& json) {
    text_ += (text_.empty() ? "" : ", ") + quoted(key) + ": " + json;
    return *this;
  }
  Fields& text(const std::string& key, const std::string& value) { return raw(key, quoted(value)); }
  Fields& number(const std::string& key, double value) { return raw(key, json(value)); }
  Fields& integer(const std::string& key, int64_t value) { return raw(key, std::to_string(value)); }
  Fields& flag(const std::string& key, bool value) { return raw(key, value ? "true" : "false"); }
  template <class List>
  Fields& list(const std::string& key, const List& values) {
    std::string items;
    for (const auto& v : values) items += (items.empty() ? "" : ", ") + std::to_string(v);
    return raw(key, "[" + items + "]");
  }
  std::string object() const { return "{" + text_ + "}"; }

  static std::string quoted(const std::string& text) { return '"' + text + '"'; }
  static std::string json(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
    char digits[40];
    std::snprintf(digits, sizeof digits, "%.17g", value);
    const std::string text = digits;
    return text.find_first_of(".en") == std::string::npos ? text + ".0" : text;
  }

 private:
  std::string text_;
};

class Exchange {
 public:
  /// `fields`: name and kind are added.
  void ask(const std::string& name, const std::string& kind, Fields fields) {
    fields.text("name", name).text("kind", kind);
    cases_ += (cases_.empty() ? "[\n" : ",\n") + fields.object();
    ++asked_;
  }
  void give(const std::string& name, const std::string& what, const Tensor& t) {
    given_.push_back({name + '/' + what, t.detach().contiguous()});
  }
  void run() {
    save(folder_ / "in.safetensors", given_);
    std::ofstream(folder_ / "cases.json") << cases_ << "]\n";
    const std::string script = std::string(TANDEM_SOURCE_DIR) + "/tests/pytorch/reference.py";
    const jit::ChildResult r =
        jit::run_child({TANDEM_PYTORCH_PYTHON, script, folder_.path()}, folder_.path(), 300'000);
    INFO(r.failure << '\n' << r.output);
    REQUIRE(r.ok);
    LoadedFile file = load(folder_ / "out.safetensors");
    for (NamedTensor& t : file.tensors) answers_[t.name] = t.tensor;
    for (const auto& [name, reason] : file.metadata) without_[name] = reason;
  }
  /// Undefined if PyTorch gave none.
  Tensor answer(const std::string& name, const std::string& what) const {
    const auto at = answers_.find(name + '/' + what);
    return at == answers_.end() ? Tensor() : at->second;
  }
  /// What PyTorch gave for a case, by name.
  std::vector<NamedTensor> answers(const std::string& name) const {
    std::vector<NamedTensor> all;
    for (const auto& [key, t] : answers_)
      if (key.rfind(name + '/', 0) == 0) all.push_back({key.substr(name.size() + 1), t});
    return all;
  }
  /// Why a case has no answer at all; "" if it has.
  std::string without(const std::string& name) const {
    const auto at = without_.find(name);
    return at == without_.end() ? "" : at->second;
  }
  int asked() const { return asked_; }

 private:
  ScratchFolder folder_;
  std::string cases_;
  std::vector<NamedTensor> given_;
  std::map<std::string, Tensor> answers_;
  std::map<std::string, std::string> without_;
  int asked_ = 0;
};

/// What results may differ by from PyTorch's, by norm.
inline double agreement(DType t) { return t == DType::float64 ? 1e-10 : 1e-5; }

/// Empty if `ours` agrees with PyTorch's answer: sizes, dtype, and the norm of the difference against that of
/// the answer, which counts as at least `least`. Elements that are not finite must be the same.
inline std::string disagreement(const Tensor& ours, const Tensor& theirs, double allowed, double least = 0) {
  if (!theirs.defined()) return "PyTorch gave no answer";
  if (!ours.defined()) return "no result";
  if (!(ours.sizes() == theirs.sizes()))
    return to_string(ours.sizes()) + ", PyTorch " + to_string(theirs.sizes());
  if (ours.dtype() != theirs.dtype())
    return std::string(name(ours.dtype())) + ", PyTorch " + name(theirs.dtype());
  const std::vector<double> a = ours.to(DType::float64).to_vector<double>();
  const std::vector<double> b = theirs.to(DType::float64).to_vector<double>();
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (std::isnan(a[i]) && std::isnan(b[i])) continue;
    if (!std::isfinite(a[i]) || !std::isfinite(b[i])) {
      if (a[i] != b[i])
        return "element " + std::to_string(i) + " is " + std::to_string(a[i]) + ", PyTorch's " +
               std::to_string(b[i]);
      continue;
    }
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  if (std::sqrt(difference) <= allowed * std::max(norm > 0 ? std::sqrt(norm) : 1, least)) return {};
  std::string text = "off by " + Fields::json(std::sqrt(difference / (norm > 0 ? norm : 1))) +
                     " of the norm; first elements:";
  for (size_t i = 0; i < std::min<size_t>(a.size(), 6); ++i)
    text += " " + std::to_string(a[i]) + '|' + std::to_string(b[i]);
  return text;
}

/// All of ours agree with what PyTorch gave for a case, and what it gave besides is zero.
inline void compare_results(const Exchange& exchange, const std::string& name,
                            const std::vector<NamedTensor>& ours, double allowed) {
  for (const NamedTensor& theirs : exchange.answers(name)) {
    INFO("PyTorch's " << theirs.name);
    bool known = false;
    for (const NamedTensor& t : ours) known = known || t.name == theirs.name;
    CHECK((known || theirs.tensor.abs().sum().item<double>() == 0));
  }
  for (const NamedTensor& t : ours) {
    INFO(t.name);
    CHECK(disagreement(t.tensor, exchange.answer(name, t.name), allowed) == "");
  }
}

}  // namespace tandem::test
