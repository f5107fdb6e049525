// Models that Python judges: a test gives cases (a file, inputs, and the results that Tandem gives), `run`
// has tests/io/onnx_check.py check and, where there is ONNX Runtime, run all of them; `verdict` is empty for
// a case that is right. One judge belongs to one test.
#pragma once

#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "tandem/eager/save.h"
#include "tandem/jit/child_process.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"

namespace tandem::test {

/// Whether a Python with onnx was found when the build was configured; says so once if not.
inline bool have_onnx() {
  static const bool have = [] {
    const bool found = std::string(TANDEM_ONNX_PYTHON) != "";
    if (!found) std::puts("SKIPPED: no Python here has onnx (Debian: python3-onnx)");
    return found;
  }();
  return have;
}

class OnnxJudge {
 public:
  /// Where the file of a case shall be written.
  std::string path(const std::string& name) const { return folder_ / (name + ".onnx"); }
  /// Inputs in the model's order; `off`: by how much a result may differ, of 1 and of itself. `run` false:
  /// the file is checked only.
  void ask(const std::string& name, const std::vector<Tensor>& inputs, const std::vector<Tensor>& results,
           double off = 1e-4, bool run = true) {
    cases_ += (cases_.empty() ? "[\n" : ",\n");
    cases_ += "{\"name\": \"" + name + "\", \"off\": " + std::to_string(off) +
              ", \"inputs\": " + std::to_string(inputs.size()) + ", \"run\": " + (run ? "true" : "false") +
              "}";
    if (run) {
      for (size_t i = 0; i < inputs.size(); ++i)
        given_.push_back({name + "/in" + std::to_string(i), inputs[i].detach().contiguous()});
      for (size_t i = 0; i < results.size(); ++i)
        given_.push_back({name + "/out" + std::to_string(i), results[i].detach().contiguous()});
    }
    ++asked_;
  }
  void run() {
    save(folder_ / "in.safetensors", given_);
    std::ofstream(folder_ / "cases.json") << cases_ << "]\n";
    const std::string script = std::string(TANDEM_SOURCE_DIR) + "/tests/io/onnx_check.py";
    const jit::ChildResult r =
        jit::run_child({TANDEM_ONNX_PYTHON, script, folder_.path()}, folder_.path(), 300'000);
    INFO(r.failure << '\n' << r.output);
    REQUIRE(r.ok);
    std::ifstream file(folder_ / "verdicts.txt");
    for (std::string line; std::getline(file, line);) {
      const size_t tab = line.find('\t');
      const std::string name = line.substr(0, tab), verdict = line.substr(tab + 1);
      if (name == "not run")
        std::puts(("not run: " + verdict).c_str());
      else if (name == "ran")
        ran_ = std::stoi(verdict);
      else
        verdicts_[name] = verdict;
    }
    CHECK(static_cast<int>(verdicts_.size()) == asked_);
  }
  std::string verdict(const std::string& name) const {
    const auto at = verdicts_.find(name);
    return at == verdicts_.end() ? "no verdict" : at->second;
  }
  /// How many were run, not only checked; 0 without ONNX Runtime.
  int ran() const { return ran_; }
  const std::map<std::string, std::string>& verdicts() const { return verdicts_; }

 private:
  ScratchFolder folder_;
  std::string cases_;
  std::vector<NamedTensor> given_;
  std::map<std::string, std::string> verdicts_;
  int asked_ = 0, ran_ = 0;
};

}  // namespace tandem::test
