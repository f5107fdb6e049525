// Command lines and progress of the samples: `--name value` options with --help, and a display on stderr that
// is a bar on a terminal and one plain line per epoch elsewhere. Header-only, the standard library alone; one
// thread.
#pragma once

#include <unistd.h>

#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace samples {

/// The options of a program. Declare each by asking for its value, then call done(), which prints the help or
/// reports mistakes:
///   Options options(argc, argv, "Trains a network on handwritten digits.");
///   const long epochs = options.integer("epochs", 30, "passes over the training set");
///   options.done();
class Options {
 public:
  Options(int argc, char** argv, std::string about) : program_(argv[0]), about_(std::move(about)) {
    program_.erase(0, program_.rfind('/') + 1);
    for (int i = 1; i < argc; ++i) words_.push_back({argv[i]});
  }

  long integer(const std::string& name, long otherwise, const std::string& help) {
    return parsed(name, "N", otherwise, std::to_string(otherwise), help, "a whole number");
  }
  double number(const std::string& name, double otherwise, const std::string& help) {
    char shown[32];
    std::snprintf(shown, sizeof shown, "%g", otherwise);
    return parsed(name, "X", otherwise, shown, help, "a number");
  }
  std::string text(const std::string& name, const std::string& otherwise, const std::string& help) {
    describe("--" + name + " TEXT", help, otherwise);
    std::string value;
    return take(name, value) ? value : otherwise;
  }
  /// True if `--name` is given; it takes no value.
  bool flag(const std::string& name, const std::string& help) {
    describe("--" + name, help, "");
    bool given = false;
    for (Word& word : words_)
      if (word.text == "--" + name) given = word.used = true;
    return given;
  }

  /// Prints the help and exits 0 if asked for it; names the first mistake and exits 2 if there is one.
  void done() {
    for (const Word& word : words_)
      if (!word.used && (word.text == "--help" || word.text == "-h")) {
        std::printf("%s: %s\n\n%s  --help\n", program_.c_str(), about_.c_str(), help_.c_str());
        std::exit(0);
      }
    for (const Word& word : words_)
      if (!word.used && mistake_.empty()) mistake_ = "unknown option '" + word.text + "'";
    if (!mistake_.empty()) stop(mistake_);
  }

  /// Ends the program with a message about an option's value.
  [[noreturn]] void stop(const std::string& mistake) const {
    std::fprintf(stderr, "%s: %s (see --help)\n", program_.c_str(), mistake.c_str());
    std::exit(2);
  }

 private:
  struct Word {
    std::string text;
    bool used = false;
  };

  template <class T>
  T parsed(const std::string& name, const char* unit, T otherwise, const std::string& shown,
           const std::string& help, const char* kind) {
    describe("--" + name + " " + unit, help, shown);
    std::string value;
    if (!take(name, value)) return otherwise;
    T result{};
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), result);
    if (error == std::errc() && end == value.data() + value.size()) return result;
    if (mistake_.empty()) mistake_ = "--" + name + " needs " + kind + ", not '" + value + "'";
    return otherwise;
  }

  /// Finds `--name value` or `--name=value`; the last one counts.
  bool take(const std::string& name, std::string& value) {
    const std::string option = "--" + name;
    bool given = false;
    for (size_t i = 0; i < words_.size(); ++i) {
      if (words_[i].used) continue;
      if (words_[i].text == option) {
        words_[i].used = given = true;
        if (i + 1 == words_.size()) {
          mistake_ = option + " needs a value";
          return false;
        }
        words_[++i].used = true;
        value = words_[i].text;
      } else if (words_[i].text.starts_with(option + "=")) {
        words_[i].used = given = true;
        value = words_[i].text.substr(option.size() + 1);
      }
    }
    return given;
  }

  void describe(std::string option, const std::string& help, const std::string& otherwise) {
    option.resize(option.size() < 18 ? 18 : option.size() + 1, ' ');
    help_ += "  " + option + help + (otherwise.empty() ? "" : " (" + otherwise + ")") + "\n";
  }

  std::string program_, about_, help_, mistake_;
  std::vector<Word> words_;
};

/// What main() of a sample returns: `run`'s status, or 1 after printing what it threw under the program's
/// name.
inline int run_program(const char* name, int (*run)(int, char**), int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "%s: %s\n", name, e.what());
    return 1;
  }
}

/// Progress of one training run on stderr.
class Progress {
 public:
  Progress(std::string name, long epochs, long steps_per_epoch)
      : name_(std::move(name)),
        epochs_(epochs),
        steps_(steps_per_epoch),
        terminal_(isatty(STDERR_FILENO) == 1) {}
  ~Progress() {
    if (terminal_ && drawn_) std::fputc('\n', stderr);
  }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Call after each step: one look at the clock, unless the bar is due, which is at most ten times a second.
  void step() {
    ++step_;
    if (!terminal_) return;
    const auto now = Clock::now();
    if (now >= due_) draw(now);
  }
  /// Call after each epoch with what to show, such as "loss 0.123".
  void epoch(const std::string& text) {
    ++epoch_;
    step_ = 0;
    text_ = text;
    if (!terminal_) {
      std::fprintf(stderr, "%s: epoch %ld/%ld, %s\n", name_.c_str(), epoch_, epochs_, text_.c_str());
      return;
    }
    const auto now = Clock::now();
    if (now >= due_ || epoch_ == epochs_) draw(now);
  }

 private:
  using Clock = std::chrono::steady_clock;

  void draw(Clock::time_point now) {
    constexpr long kWidth = 30;
    const long total = epochs_ * steps_;
    const long done = total > 0 ? kWidth * (epoch_ * steps_ + step_) / total : kWidth;
    std::string bar(static_cast<size_t>(done < kWidth ? done : kWidth), '#');
    bar.resize(kWidth, '.');
    std::fprintf(stderr, "\r\033[K%s [%s] epoch %ld/%ld  %s", name_.c_str(), bar.c_str(), epoch_, epochs_,
                 text_.c_str());
    std::fflush(stderr);
    drawn_ = true;
    due_ = now + std::chrono::milliseconds(100);
  }

  std::string name_, text_;
  long epochs_, steps_;
  bool terminal_, drawn_ = false;
  long epoch_ = 0, step_ = 0;
  Clock::time_point due_{};
};

}  // namespace samples
