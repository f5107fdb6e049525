// Running the samples as programs, and reading what they leave. Free functions.
#pragma once

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tandem/core/io/file.h"
#include "tandem/jit/child_process.h"
#include "tests/catch.h"
#include "tests/core/scratch_folder.h"

namespace tandem::test {

/// The output of a program, which must end with `status`.
inline std::string run(const std::vector<std::string>& arguments, int status = 0) {
  const ScratchFolder folder;
  const jit::ChildResult r = jit::run_child(arguments, folder.path(), 100'000);
  INFO(r.failure << '\n' << r.output);
  REQUIRE((status == 0 ? r.ok : r.failure == "exit status " + std::to_string(status)));
  return r.output;
}

/// Starts a program and kills it once its metrics.jsonl has so many lines, if it has not ended by then.
inline void kill_after(const std::vector<std::string>& arguments, const std::string& metrics, int lines) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::vector<char*> words;
    for (const std::string& a : arguments) words.push_back(const_cast<char*>(a.c_str()));
    words.push_back(nullptr);
    if (freopen("/dev/null", "w", stdout) == nullptr || freopen("/dev/null", "w", stderr) == nullptr)
      _exit(126);
    execv(words[0], words.data());
    _exit(127);
  }
  for (int i = 0; i < 100'000; ++i, usleep(500)) {
    if (waitpid(child, nullptr, WNOHANG) == child) return;
    if (!std::filesystem::exists(metrics)) continue;
    const std::string text = core::read_file(metrics);
    if (std::count(text.begin(), text.end(), '\n') >= lines) break;
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
}

/// By step.
using Numbers = std::map<int64_t, double>;
/// The numbers of one name in a metrics.jsonl. Each step has it once at most.
inline Numbers numbers(const std::string& path, const std::string& name) {
  Numbers all;
  std::istringstream lines(core::read_file(path));
  for (std::string line; std::getline(lines, line);) {
    const nlohmann::json parsed = nlohmann::json::parse(line);
    if (!parsed.contains(name)) continue;
    const bool first = all.emplace(parsed["step"].get<int64_t>(), parsed[name].get<double>()).second;
    REQUIRE(first);
  }
  return all;
}

/// TensorBoard's files of a folder, in its order.
inline std::vector<std::string> event_files(const std::string& folder) {
  std::vector<std::string> all;
  for (const auto& file : std::filesystem::directory_iterator(folder))
    if (file.path().filename().string().starts_with("events.out.tfevents."))
      all.push_back(file.path().string());
  std::sort(all.begin(), all.end());
  return all;
}

}  // namespace tandem::test
