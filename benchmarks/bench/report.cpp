#include "benchmarks/bench/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>

#include "benchmarks/bench/load.h"

namespace bench {

namespace {

std::string form(const char* text, auto... values) {
  char out[300];
  std::snprintf(out, sizeof out, text, values...);
  return out;
}
/// Microseconds, with the unit that reads best.
std::string time_text(double us) {
  if (us <= 0) return "-";
  if (us < 1) return form("%.1f ns", us * 1e3);
  if (us < 1e3) return form("%.4g us", us);
  if (us < 1e6) return form("%.4g ms", us * 1e-3);
  return form("%.4g s", us * 1e-6);
}
std::string amount(double n, const char* unit) {
  if (n <= 0) return "-";
  const char* scale[] = {"", "k", "M", "G", "T"};
  int s = 0;
  for (; n >= 1000 && s < 4; ++s) n /= 1000;
  return form("%.4g %s%s", n, scale[s], unit);
}
std::string label(const Figure& f) {
  return f.name + (f.threads == 1 ? ", 1 thread" : form(", %d threads", f.threads));
}

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text)
    if (c == '"' || c == '\\')
      out += '\\', out += c;
    else
      out += c == '\n' ? ' ' : c;
  return out + '"';
}
std::string number(double n) { return std::isfinite(n) ? form("%.6g", n) : "null"; }

/// Fields of an object or elements of a list, one after another.
struct List {
  std::string text;
  List& raw(const std::string& item) { return text += (text.empty() ? "" : ", ") + item, *this; }
  List& add(const std::string& key, const std::string& value) { return raw(quoted(key) + ": " + value); }
  std::string object() const { return "{" + text + "}"; }
  std::string list() const { return "[" + text + "]"; }
};

const char* side_name(Side side) {
  return side == Side::ours ? "ours" : side == Side::part ? "part" : "peer";
}

std::string json(const Figure& f) {
  List o;
  o.add("name", quoted(f.name)).add("side", quoted(side_name(f.side))).add("threads", number(f.threads));
  if (f.gate_error >= 0) o.add("gate_error", number(f.gate_error));
  o.add("passed", f.passed ? "true" : "false");
  if (!f.failure.empty()) o.add("failure", quoted(f.failure));
  if (f.us.empty()) return o.object();
  o.add("median_us", number(f.median_us)).add("p10_us", number(f.p10_us)).add("p90_us", number(f.p90_us));
  o.add("min_us", number(f.min_us)).add("blocks", number(static_cast<double>(f.us.size())));
  return o.add("calls", number(f.calls)).object();
}

std::string json(const Result& r, const Line& line) {
  const Workload& w = r.workload;
  List o, facts, figures, bars;
  o.add("workload", quoted(w.name)).add("section", quoted(w.section)).add("what", quoted(w.what));
  o.add("threads", number(line.threads)).add("flop", number(w.flop)).add("bytes", number(w.bytes));
  o.add("counted", quoted(w.counted));
  if (w.units > 0) o.add("units", number(w.units)).add("unit", quoted(w.unit));
  o.add("share_of_copy", number(line.share_of_copy)).add("share_of_gemm", number(line.share_of_gemm));
  if (line.others >= 0) o.add("processors_of_others", number(line.others));
  for (const auto& [key, value] : line.facts) facts.add(key, number(value));
  for (size_t i = 0; i < r.figures.size(); ++i) {
    if (r.figures[i].side != Side::peer && r.figures[i].threads != line.threads) continue;
    if (r.figures[i].threads > line.threads) continue;
    std::string figure = json(r.figures[i]);
    figure.insert(figure.size() - 1, ", \"times\": " + number(line.times[i]));
    figures.raw("\n      " + figure);
  }
  for (const Verdict& v : line.verdicts) {
    List bar;
    bar.add("bar", quoted(v.text)).add("measured", v.measured ? "true" : "false");
    bars.raw(bar.add("value", number(v.value)).add("met", v.met ? "true" : "false").object());
  }
  if (line.strongest != SIZE_MAX) {
    o.add("strongest_peer", quoted(label(r.figures[line.strongest])));
    o.add("ratio", number(line.times[line.strongest]));
  }
  o.add("facts", facts.object()).add("bars", bars.list());
  if (!w.open.empty()) o.add("open", quoted(w.open));
  return o.add("contestants", figures.list()).object();
}

/// Whether a row of two threads has times of a machine that others used, too.
bool is_disturbed(const Line& line) { return line.others > kIdle; }

/// Peers of any row, without threads, in the order of their first row.
std::vector<std::string> peers_of(const std::vector<Result>& results) {
  std::vector<std::string> names;
  for (const Result& r : results)
    for (const Figure& f : r.figures)
      if (f.side == Side::peer && std::find(names.begin(), names.end(), f.name) == names.end())
        names.push_back(f.name);
  return names;
}
/// A peer's time with its better number of threads, of those that the row has, and over ours.
std::string peer_text(const Result& r, const Line& line, const std::string& peer) {
  size_t best = SIZE_MAX;
  const char* without = "-";
  for (size_t i = 0; i < r.figures.size(); ++i) {
    const Figure& f = r.figures[i];
    if (f.side != Side::peer || f.name != peer || f.threads > line.threads) continue;
    if (!f.failure.empty())
      without = "failed";
    else if (!f.passed)
      without = "wrong results";
    else if (line.times[i] > 0 && (best == SIZE_MAX || line.times[i] < line.times[best]))
      best = i;
  }
  if (best == SIZE_MAX) return without;
  return time_text(r.figures[best].median_us) + form(" (%.2f)", line.times[best]);
}

}  // namespace

void describe_machine(Run& run) {
  const std::time_t now = std::time(nullptr);
  char date[16];
  std::strftime(date, sizeof date, "%Y-%m-%d", std::localtime(&now));
  run.date = date;
  // Virtual machines do not say more than the maker in the name: family and model tell processors apart.
  const auto of_cpu = [](const std::string& key) {
    std::ifstream cpu("/proc/cpuinfo");
    for (std::string line; std::getline(cpu, line);)
      if (const size_t colon = line.find(':');
          colon != line.npos && line.substr(0, line.find_last_not_of("\t :", colon) + 1) == key)
        return line.substr(std::min(colon + 2, line.size()));
    return std::string("unknown");
  };
  run.machine =
      of_cpu("model name") + " (family " + of_cpu("cpu family") + ", model " + of_cpu("model") + ")";
  run.machine += form(", %u processors", std::thread::hardware_concurrency());
  double loads[1] = {};
  if (getloadavg(loads, 1) == 1) run.load = loads[0];
}

void print(const Result& r) {
  const Workload& w = r.workload;
  std::printf("\n%s (%s): %s\n", w.name.c_str(), w.section.c_str(), w.what.c_str());
  std::printf("  counted: %s, %s: %s\n", amount(w.flop, "FLOP").c_str(), amount(w.bytes, "B").c_str(),
              w.counted.c_str());
  if (!r.failure.empty()) std::printf("  FAILED: %s\n", r.failure.c_str());
  for (const Line& line : r.lines) {
    for (size_t i = 0; i < r.figures.size(); ++i) {
      const Figure& f = r.figures[i];
      if (f.threads != line.threads) continue;
      if (!f.failure.empty())
        std::printf("  %-32s no time: %s\n", label(f).c_str(), f.failure.c_str());
      else if (!f.passed)
        std::printf("  %-32s no time: its results are %.2g off the reference (at most %.2g)\n",
                    label(f).c_str(), f.gate_error, w.tolerance);
      else
        std::printf("  %-32s %12s  [%s .. %s]  %6.2f x\n", label(f).c_str(), time_text(f.median_us).c_str(),
                    time_text(f.p10_us).c_str(), time_text(f.p90_us).c_str(), line.times[i]);
    }
    if (const double us = r.figures[line.ours].median_us; w.units > 0 && us > 0)
      std::printf("    %s a second: %.6g\n", w.unit.c_str(), w.units * 1e6 / us);
    if (is_disturbed(line)) std::printf("    others had %.2f processors: not an idle machine\n", line.others);
    for (const auto& [key, value] : line.facts) std::printf("    %s: %.6g\n", key.c_str(), value);
    for (const Verdict& v : line.verdicts)
      std::printf("    bar %s: %s%s\n",
                  v.met        ? "met"
                  : v.measured ? "NOT MET"
                               : "not measured",
                  v.text.c_str(), v.measured ? form(" (%.4g)", v.value).c_str() : "");
    bool missed = false;
    for (const Verdict& v : line.verdicts) missed |= v.measured && !v.met;
    if (missed && !w.open.empty()) std::printf("    why, and what next: %s\n", w.open.c_str());
  }
  std::fflush(stdout);
}

void print_table(const Run& run) {
  std::printf("\n%s, load %.1f%s%s\n", run.machine.c_str(), run.load,
              run.processor_time ? ", processor time" : "",
              run.quick ? "; QUICK: these times mean nothing" : "");
  for (const Ceilings& c : run.ceilings) {
    std::printf("ceilings, threads: %d: copy %.1f GB/s", c.threads, c.copy_gb_s);
    if (c.memcpy_gb_s > 0) std::printf(" (memcpy %.1f)", c.memcpy_gb_s);
    std::printf(", products %.1f GFLOP/s", c.gemm_gflop_s);
    if (c.bf16_gflop_s > 0) std::printf(", TF32 %.1f, bfloat16 %.1f", c.tf32_gflop_s, c.bf16_gflop_s);
    std::printf("\n");
  }
  const std::vector<std::string> peers = peers_of(run.results);
  std::string head = "| workload | threads | FLOP | bytes | ours |", under = "|---|---|---|---|---|";
  for (const std::string& peer : peers) head += " " + peer + " |", under += "---|";
  std::printf(
      "\n%s strongest peer | its time / ours | of copy | of products | bars met |\n%s---|---|---|---|---|\n",
      head.c_str(), under.c_str());
  bool disturbed = false;
  for (const Result& r : run.results)
    for (const Line& line : r.lines) {
      int met = 0, measured = 0;
      for (const Verdict& v : line.verdicts) met += v.met, measured += v.measured;
      const Figure& ours = r.figures[line.ours];
      const bool peer = line.strongest != SIZE_MAX;
      disturbed |= is_disturbed(line);
      std::string times = ours.passed ? time_text(ours.median_us) : "wrong results";
      if (is_disturbed(line)) times += " *";
      for (const std::string& name : peers) times += " | " + peer_text(r, line, name);
      std::printf("| %s | %d | %s | %s | %s | %s | %s | %s | %s | %d of %d |\n", r.workload.name.c_str(),
                  line.threads, amount(r.workload.flop, "").c_str(), amount(r.workload.bytes, "B").c_str(),
                  times.c_str(), peer ? label(r.figures[line.strongest]).c_str() : "-",
                  peer ? form("%.2f", line.times[line.strongest]).c_str() : "-",
                  r.workload.bytes > 0 ? form("%.2f", line.share_of_copy).c_str() : "-",
                  r.workload.flop > 0 ? form("%.2f", line.share_of_gemm).c_str() : "-", met, measured);
    }
  if (disturbed)
    std::printf(
        "* others had more than %.1f processors between its turns: two threads want an idle machine\n",
        kIdle);
}

std::string json(const Run& run) {
  List o, peers, ceilings, rows, host, failures;
  o.add("date", quoted(run.date)).add("machine", quoted(run.machine)).add("device", quoted(run.device));
  o.add("processor_time", run.processor_time ? "true" : "false")
      .add("load", number(run.load))
      .add("quick", run.quick ? "true" : "false");
  for (const std::string& p : run.peers) peers.raw(quoted(p));
  for (const Ceilings& c : run.ceilings) {
    List one;
    one.add("threads", number(c.threads)).add("copy_gb_s", number(c.copy_gb_s));
    if (c.memcpy_gb_s > 0) one.add("memcpy_gb_s", number(c.memcpy_gb_s));
    one.add("gemm_gflop_s", number(c.gemm_gflop_s));
    if (c.bf16_gflop_s > 0)
      one.add("tf32_gflop_s", number(c.tf32_gflop_s)).add("bf16_gflop_s", number(c.bf16_gflop_s));
    ceilings.raw(one.object());
  }
  for (const Result& r : run.results) {
    if (!r.failure.empty()) failures.add(r.workload.name, quoted(r.failure));
    for (const Line& line : r.lines) rows.raw("\n    " + json(r, line));
  }
  for (const Row& r : run.host) {
    List one;
    one.add("workload", quoted(r.workload)).add("name", quoted(r.name)).add("median_us", number(r.median_us));
    host.raw("\n    " + one.add("min_us", number(r.min_us)).add("ratio", number(r.ratio)).object());
  }
  o.add("peers", peers.list()).add("ceilings", ceilings.list()).add("failures", failures.object());
  return o.add("rows", rows.list()).add("host", host.list()).object() + "\n";
}

}  // namespace bench
