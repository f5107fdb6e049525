// The folder of a training run, --out: `metrics.jsonl` and event files for TensorBoard with its numbers,
// `checkpoint.safetensors` with all that it goes on from, `options.txt` with the options that must stay. With
// --resume a run goes on from its last checkpoint as if it had never ended: what it logged after that is
// dropped. Without --out all of it does nothing. One thread.
#pragma once

#include <tandem/tandem.h>

#include <charconv>
#include <cstdio>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "samples/cli.h"
#include "tandem/core/io/file.h"

namespace samples {

class RunFolder {
 public:
  /// Declares --out and --resume; call it before options.done().
  explicit RunFolder(Options& options)
      : folder_(options.text("out", "", "folder for logs (metrics.jsonl, TensorBoard) and checkpoints")),
        resume_(options.flag("resume", "go on from the last checkpoint in --out, if there is one")) {
    if (resume_ && folder_.empty()) options.stop("--resume needs --out");
  }

  bool active() const { return !folder_.empty(); }
  std::string operator/(const std::string& name) const { return folder_ + '/' + name; }

  /// A number as `fixed` below has it: with all its digits.
  static std::string digits(double value) {
    char text[32];
    return {text, std::to_chars(text, text + sizeof text, value).ptr};
  }

  /// Begins the run and returns how many steps it has behind it. `fixed` are options without which the
  /// checkpoint means nothing, or which it would override. Errors: logs or a checkpoint are there, but
  /// --resume was not given; other options.
  long start(const tandem::Metadata& fixed, const tandem::Checkpoint& parts) {
    if (!active()) return 0;
    const std::string checkpoint = *this / "checkpoint.safetensors", metrics = *this / "metrics.jsonl";
    const bool found = std::filesystem::exists(checkpoint);
    if ((found || std::filesystem::exists(metrics)) && !resume_)
      tandem::fail("\"" + folder_ + "\" holds a run already: --resume goes on with it");
    tandem::core::make_folders(folder_);
    remove_leftovers();
    check_options(fixed, found);
    long done = 0;
    if (found) {
      const tandem::Metadata metadata = tandem::load_checkpoint(checkpoint, parts);
      done = std::stol(tandem::find_metadata(metadata, "step", "0"));
      std::printf("%s: goes on after step %ld\n", folder_.c_str(), done);
    } else if (resume_) {
      std::printf("%s: there is no checkpoint yet; the run begins\n", folder_.c_str());
    }
    metrics_.emplace(metrics, tandem::MetricsOptions{.last_step = done});
    events_.emplace(folder_, tandem::tensorboard::WriterOptions{.purge_step = done + 1});
    return done;
  }

  using Numbers = std::initializer_list<std::pair<std::string, double>>;
  void log(long step, Numbers numbers) {
    if (!active()) return;
    metrics_->write(step, numbers);
    for (const auto& [name, value] : numbers) events_->add_scalar(name, value, step);
  }
  void text(const std::string& tag, const std::string& text, long step) {
    if (active()) events_->add_text(tag, text, step);
  }
  /// Replaces the checkpoint in one step by the state after `step`.
  void save(long step, tandem::Checkpoint parts) {
    if (!active()) return;
    events_->flush();
    parts.metadata = {{"step", std::to_string(step)}};
    tandem::save_checkpoint(*this / "checkpoint.safetensors", parts);
  }

 private:
  /// What processes that were killed while they saved left behind: files as large as checkpoints.
  void remove_leftovers() const {
    std::vector<std::filesystem::path> left;
    for (const auto& file : std::filesystem::directory_iterator(folder_))
      if (file.path().filename().string().find(".safetensors.tmp-") != std::string::npos)
        left.push_back(file.path());
    for (const std::filesystem::path& path : left) std::filesystem::remove(path);
  }

  /// options.txt has lines `name=value`; written when a run begins, compared when it goes on.
  void check_options(const tandem::Metadata& fixed, bool found) const {
    const std::string path = *this / "options.txt";
    std::string text;
    for (const auto& [name, value] : fixed) text += name + '=' + value + '\n';
    if (!found) return tandem::core::write_file_atomic(path, text);
    const std::string before = tandem::core::read_file(path);
    for (const auto& [name, value] : fixed)
      if (('\n' + before).find('\n' + name + '=' + value + '\n') == std::string::npos)
        tandem::fail("the run in \"" + folder_ + "\" has another --" + name + " than \"" + value + "\" (" +
                     path + ")");
  }

  std::string folder_;
  bool resume_;
  std::optional<tandem::MetricsFile> metrics_;
  std::optional<tandem::tensorboard::Writer> events_;
};

}  // namespace samples
