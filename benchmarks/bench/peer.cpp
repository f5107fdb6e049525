#include "benchmarks/bench/peer.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "tandem/core/error.h"
#include "tandem/jit/child_process.h"

namespace bench {

namespace {

namespace td = tandem;

constexpr int kMakeSeconds = 1200, kTimeSeconds = 300;  // compilations take their time

[[noreturn]] void fail(const std::string& what) { td::fail("bench: " + what, td::Location::here()); }

Answer parse_answer(std::istringstream& in) {
  Answer answer(1);
  std::string word;
  while (in >> word)
    if (word == "|")
      answer.emplace_back();
    else
      answer.back().push_back(std::strtod(word.c_str(), nullptr));
  return answer;
}

std::string python;  // the command of the peer that was started; first calls start it again

}  // namespace

std::string this_program() {
  char path[PATH_MAX];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path);
  if (n <= 0) fail("the path of this program is not to be had");
  return {path, static_cast<size_t>(n)};
}

double command_number(const std::string& command) {
  std::FILE* pipe = popen(command.c_str(), "r");
  double number = 0;
  const bool found = pipe && std::fscanf(pipe, "%lf", &number) == 1;
  if (pipe) pclose(pipe);
  if (!found) fail("this printed no number: " + command);
  return number;
}

Peer::Peer(const std::string& command, int threads) : threads_(threads) {
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC)) fail("no pipe for a peer");
  process_ = fork();
  if (process_ == 0) {
    dup2(in[0], 0);
    dup2(out[1], 1);
    const std::string text = "exec env " + command;
    execl("/bin/sh", "sh", "-c", text.c_str(), static_cast<char*>(nullptr));
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  to_ = in[1], from_ = out[0];
  const std::string line = process_ > 0 ? read_line(60) : "";
  if (line.rfind("ready ", 0) != 0) {
    end();
    fail("a peer did not start: " + command);
  }
  std::istringstream words(line.substr(6));
  words >> name_;
  std::getline(words >> std::ws, version_);
}

Peer::~Peer() { end(); }

void Peer::end() {
  if (to_ >= 0) close(to_);
  if (from_ >= 0) close(from_);
  to_ = from_ = -1;
  if (process_ > 0) {
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
  }
  process_ = -1;
}

std::string Peer::read_line(int seconds) {
  using Clock = std::chrono::steady_clock;
  const auto until = Clock::now() + std::chrono::seconds(seconds);
  for (;;) {
    const size_t at = rest_.find('\n');
    if (at != std::string::npos) {
      const std::string line = rest_.substr(0, at);
      rest_.erase(0, at + 1);
      return line;
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now()).count();
    pollfd waiting{from_, POLLIN, 0};
    char bytes[4096];
    ssize_t n = 0;
    if (left <= 0 || poll(&waiting, 1, static_cast<int>(left)) <= 0 ||
        (n = read(from_, bytes, sizeof bytes)) <= 0)
      return "error it ended, or said nothing for " + std::to_string(seconds) + " s";
    rest_.append(bytes, static_cast<size_t>(n));
  }
}

std::string Peer::ask(const std::string& line, int seconds) {
  if (process_ <= 0) return "error it has ended";
  const std::string text = line + "\n";
  if (!td::jit::write_all(to_, text.data(), text.size())) {
    end();
    return "error it has ended";
  }
  const std::string answer = read_line(seconds);
  if (answer.rfind("error it ended", 0) == 0) end();
  return answer;
}

void Peer::take_processor_time() { ask("clock processor", kTimeSeconds); }

void Peer::clear() { ask("clear", kTimeSeconds); }

std::vector<Contestant> Peer::contestants(const std::string& workload) {
  std::vector<Contestant> all;
  const std::string list = ask("variants " + workload, kTimeSeconds);
  if (list.rfind("error", 0) == 0) {
    std::fprintf(stderr, "bench: %s: %s\n", name_.c_str(), list.c_str());
    return all;
  }
  std::istringstream variants(list);
  for (std::string variant; variants >> variant;) {
    const std::string made = ask("make " + workload + " " + variant, kMakeSeconds);
    std::istringstream in(made);
    int handle = -1;
    if (made.rfind("error", 0) == 0 || !(in >> handle)) {
      std::fprintf(stderr, "bench: %s %s, %d threads: %s: %s\n", name_.c_str(), variant.c_str(), threads_,
                   workload.c_str(), made.c_str());
      continue;
    }
    Contestant c;
    c.name = name_ + " " + variant;
    c.side = Side::peer;
    c.threads = threads_;
    c.answer = [answer = parse_answer(in)] { return answer; };
    c.time_us = [this, handle, what = workload + ": " + c.name](int calls) {
      const std::string us =
          ask("time " + std::to_string(handle) + " " + std::to_string(calls), kTimeSeconds);
      char* rest = nullptr;
      const double number = std::strtod(us.c_str(), &rest);
      if (rest == us.c_str()) fail(what + ": " + us);
      return number;
    };
    all.push_back(std::move(c));
  }
  return all;
}

std::vector<std::unique_ptr<Peer>> start_peers(const PeerOptions& options) {
  std::vector<std::unique_ptr<Peer>> peers;
  const auto start = [&](const std::string& command, int threads) {
    try {
      peers.push_back(std::make_unique<Peer>(command, threads));
      std::fprintf(stderr, "bench: peer: %s %s, %d threads\n", peers.back()->name().c_str(),
                   peers.back()->version().c_str(), threads);
      if (options.processor_time) peers.back()->take_processor_time();
      return true;
    } catch (const td::Error& e) {
      std::fprintf(stderr, "%s\n", e.what());
      return false;
    }
  };
  const std::string program = this_program();
  const std::string libtorch = program.substr(0, program.rfind('/') + 1) + "libtorch";
  for (const int threads : options.threads) {
    const std::string number = std::to_string(threads);
    if (options.libtorch && access(libtorch.c_str(), X_OK) == 0) {
      // Of its own choice this build takes AVX2; the faster of the two counts.
      const std::string blas = "OPENBLAS_NUM_THREADS=" + number + " ";
      start(blas + "ATEN_CPU_CAPABILITY=avx2 " + libtorch + " AVX2 " + number, threads);
      if (__builtin_cpu_supports("avx512f"))
        start(blas + "ATEN_CPU_CAPABILITY=avx512 " + libtorch + " AVX-512 " + number, threads);
    } else if (options.libtorch) {
      std::fprintf(stderr, "bench: LibTorch is left out: there is no %s\n", libtorch.c_str());
    }
    if (!options.python.empty()) {
      const std::string command = options.python + " " TANDEM_SOURCE_DIR "/benchmarks/peers/pytorch.py";
      if (start(command + " " + number + " --device " + td::to_string(options.device), threads))
        python = command;
    }
  }
  return peers;
}

std::string python_peer() { return python; }

}  // namespace bench
