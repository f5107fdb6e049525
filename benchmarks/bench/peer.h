// Other frameworks, each a child process that takes commands over a pipe, so that its blocks stand between
// ours.
//
// A peer prints "ready <name> <version>" and then answers line by line (benchmarks/README.md):
//   variants <workload>        -> the ways in which it can run it: "eager compile"; an empty line if none
//   make <workload> <variant>  -> "<handle> <answer>": parts of numbers, parted by "|"; or "error <text>"
//   time <handle> <calls>      -> microseconds per call
//   clock wall|processor       -> "ok": which time counts, the process's own or the wall's
//   clear                      -> "ok", and everything made is gone
// Owned and used by the main thread.
#pragma once

#include <sys/types.h>

#include <memory>
#include <string>
#include <vector>

#include "benchmarks/bench/workload.h"

namespace bench {

class Peer {
 public:
  /// Starts `command` by the shell; an Error if it does not say that it is ready.
  Peer(const std::string& command, int threads);
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;

  /// What it can do for a workload, each with its answer made. What fails is told on stderr and left out.
  std::vector<Contestant> contestants(const std::string& workload);
  void clear();
  void take_processor_time();
  const std::string& name() const { return name_; }
  const std::string& version() const { return version_; }
  int threads() const { return threads_; }

 private:
  /// One line for one line; an empty one, and the end of the process, if none comes in time.
  std::string ask(const std::string& line, int seconds);
  std::string read_line(int seconds);
  void end();

  pid_t process_ = -1;
  int to_ = -1, from_ = -1;
  int threads_;
  std::string name_, version_, rest_;
};

struct PeerOptions {
  bool libtorch = false;
  bool processor_time = false;
  std::string python;  // whose PyTorch is asked; empty: none
  tandem::Device device;
  std::vector<int> threads = {1, 2};
};
/// Starts those that are there; what is missing is told on stderr.
std::vector<std::unique_ptr<Peer>> start_peers(const PeerOptions& options);
/// The command of the Python peer that was started, without its arguments; empty if there is none.
std::string python_peer();

/// The path of the running program.
std::string this_program();
/// The number that a command's output begins with; an Error if there is none.
double command_number(const std::string& command);

}  // namespace bench
