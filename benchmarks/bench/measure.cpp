#include "benchmarks/bench/measure.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <thread>

#include "benchmarks/bench/harness.h"
#include "benchmarks/bench/load.h"
#include "benchmarks/bench/pattern.h"
#include "benchmarks/bench/products.h"
#include "tandem/core/non_temporal.h"
#include "tandem/core/thread_pool.h"
#include "tandem/tandem.h"

namespace bench {

namespace {

double largest(const std::vector<double>& part) {
  double most = 1e-30;
  for (const double v : part) most = std::max(most, std::abs(v));
  return most;
}

/// Each part by its largest difference over the reference's largest element, gradients' as many times the
/// tolerance as they are theirs; NaN counts as infinite.
double error_of(const Answer& answer, const Answer& reference, const Workload& w) {
  if (answer.empty() || answer[0].empty()) return INFINITY;
  const bool is_step = w.gradient_tolerance > 0;
  if (is_step && answer.size() != reference.size()) return INFINITY;
  double worst = 0, least_scale = 0;
  for (size_t p = 1; is_step && p < reference.size(); ++p)
    least_scale = std::max(least_scale, w.gradient_floor * largest(reference[p]));
  for (size_t p = 0; p < std::min(answer.size(), reference.size()); ++p) {
    if (answer[p].size() != reference[p].size()) return INFINITY;
    double difference = 0;
    for (size_t i = 0; i < answer[p].size(); ++i) {
      const double d = std::abs(answer[p][i] - reference[p][i]);
      if (!(d <= 1e300)) return INFINITY;
      difference = std::max(difference, d);
    }
    const double scale = std::max(largest(reference[p]), p > 0 ? least_scale : 0);
    const double unit = is_step && p > 0 ? w.gradient_tolerance / w.tolerance : 1;
    worst = std::max(worst, difference / scale / unit);
  }
  return worst;
}

void set_threads(const Contestant& c) {
  if (c.side != Side::peer) tandem::set_num_threads(c.threads);
}

/// Calls of a block: so many that all rounds together take long enough. The warm-up is in it.
int calibrate(const Contestant& c, const Options& options, int rounds) {
  set_threads(c);
  const int warm = options.quick ? 2 : 50;
  const double limit_us = options.quick ? 2e4 : 4e5;
  double spent = 0, least = 1e300;
  for (int done = 0; done < warm && (done < 2 || spent < limit_us); ++done) {
    const double us = c.time_us(1);
    spent += us, least = std::min(least, us);
  }
  if (least < 1e3) {  // the clock and the pipe weigh too much in a single call
    const int some = static_cast<int>(std::clamp(2e3 / least, 1.0, 1e4));
    least = std::min(least, c.time_us(some));
  }
  // 200 calls in all, but no less than a quarter of the time and no more than all of it.
  const double most = options.seconds * 1e6 / rounds;
  const double wanted = std::clamp(200 * least / rounds, most / 4, most);
  return static_cast<int>(std::clamp(wanted / least, 1.0, 1e6));
}

void summarise(Figure& f) {
  if (f.us.empty()) return;
  f.median_us = median(f.us);
  f.p10_us = quantile(f.us, 0.1), f.p90_us = quantile(f.us, 0.9);
  f.min_us = *std::min_element(f.us.begin(), f.us.end());
}

bool begins(const std::string& text, const std::string& with) { return text.rfind(with, 0) == 0; }

Verdict verdict(const Bar& bar, const Result& result, const Line& line) {
  Verdict v;
  char text[200];
  const auto say = [&](const char* form, auto... values) {
    std::snprintf(text, sizeof text, form, values...);
    v.text = text;
  };
  const Figure& ours = result.figures[line.ours];
  switch (bar.of) {
    case Bar::Of::times_faster:
      say("at least %.4g x as fast as %s", bar.limit, bar.against.c_str());
      for (size_t i = 0; i < result.figures.size(); ++i)
        if (result.figures[i].side == Side::peer && begins(result.figures[i].name, bar.against) &&
            result.figures[i].threads <= line.threads && line.times[i] > 0) {
          v.value = v.measured ? std::min(v.value, line.times[i]) : line.times[i];
          v.measured = true;
        }
      // Who has no time might have been the strongest.
      for (const Figure& f : result.figures)
        if (f.side == Side::peer && begins(f.name, bar.against) && f.threads <= line.threads &&
            (!f.passed || !f.failure.empty()))
          v.text += ", without " + f.name;
      v.met = v.value >= bar.limit;
      break;
    case Bar::Of::at_most_times:
      say("at most %.4g x the time of %s", bar.limit, bar.against.c_str());
      for (size_t i = 0; i < result.figures.size(); ++i)
        if (begins(result.figures[i].name, bar.against) && result.figures[i].threads == line.threads &&
            line.times[i] > 0)
          v.value = 1 / line.times[i], v.measured = true;
      if (const auto pair = line.pairs.find(bar.against); pair != line.pairs.end()) v.value = pair->second;
      v.met = v.value <= bar.limit;
      break;
    case Bar::Of::share_of_copy:
      say("at least %.0f %% of the copy bandwidth", 100 * bar.limit);
      v.value = 100 * line.share_of_copy, v.measured = line.share_of_copy > 0;
      v.met = line.share_of_copy >= bar.limit;
      break;
    case Bar::Of::at_most_us:
      say("at most %.4g us", bar.limit);
      v.value = ours.median_us, v.measured = ours.median_us > 0;
      v.met = v.value <= bar.limit;
      break;
    case Bar::Of::fact_at_most: {
      say("%s: at most %.4g", bar.against.c_str(), bar.limit);
      const auto at = line.facts.find(bar.against);
      if (at != line.facts.end()) v.value = at->second, v.measured = true;
      v.met = v.value <= bar.limit;
      break;
    }
  }
  v.met = v.met && v.measured;
  return v;
}

/// Keeps of each row the least time of several runs, so that what other programs take is not in it.
void take_least(tandem::ProfileTable& least, const tandem::ProfileTable& run) {
  if (least.rows.empty()) least = run;
  least.total_us = 0;
  for (tandem::ProfileRow& row : least.rows) {
    for (const tandem::ProfileRow& other : run.rows)
      if (row.name == other.name && row.kind == other.kind && row.where.line == other.where.line)
        row.total_us = std::min(row.total_us, other.total_us);
    if (row.kind != "call") least.total_us += row.total_us;
  }
  for (tandem::ProfileRow& row : least.rows)
    row.share = row.kind == "call" ? 0 : row.total_us / least.total_us;
  least.wall_us = std::min(least.wall_us, run.wall_us);
  std::stable_sort(least.rows.begin(), least.rows.end(), [](const auto& a, const auto& b) {
    return (a.kind == "call") != (b.kind == "call") ? a.kind == "call" : a.total_us > b.total_us;
  });
}

/// A peer that fails has no times, and the others go on.
template <class F>
void unless_a_peer_fails(Figure& f, F&& run) {
  try {
    run();
  } catch (const tandem::Error& e) {
    if (f.side != Side::peer) throw;
    f.passed = false;
    f.failure = e.what();
    f.us.clear();
  }
}

/// One's time over another's where a hundredth matters: the machine drifts by more within a turn of the
/// others, so these are as short as the clock allows.
double time_over(const Contestant& one, const Contestant& other, double us, const Options& options) {
  set_threads(one);
  const int calls = static_cast<int>(std::clamp(5e3 / us, 1.0, 1e6));
  const double wanted = options.quick ? 3 : 4e6 * options.seconds / (2 * calls * us);
  const int pairs = static_cast<int>(std::clamp(wanted, options.quick ? 3.0 : 15.0, 1000.0));
  std::vector<double> ratios;
  for (int i = 0; i < pairs; ++i) {
    const bool swapped = i % 2 != 0;
    const double first = (swapped ? other : one).time_us(calls),
                 second = (swapped ? one : other).time_us(calls);
    ratios.push_back(swapped ? second / first : first / second);
  }
  return median(ratios);
}

void measure_into(Result& result, const Options& options, const std::vector<std::unique_ptr<Peer>>& peers) {
  const Workload& w = result.workload;
  tandem::set_num_threads(*std::max_element(w.threads.begin(), w.threads.end()));
  const Answer reference = w.reference ? w.reference() : Answer{};
  std::vector<Contestant> contestants;
  std::vector<Prepared> prepared;
  std::vector<size_t> firsts;
  for (const int threads : w.threads) {
    tandem::set_num_threads(threads);
    prepared.push_back(w.prepare({options.device, threads}));
    firsts.push_back(contestants.size());
    for (const Contestant& c : prepared.back().contestants) contestants.push_back(c);
  }
  for (const auto& peer : peers)
    if (std::find(w.threads.begin(), w.threads.end(), peer->threads()) != w.threads.end())
      for (Contestant& c : peer->contestants(w.name)) contestants.push_back(std::move(c));

  const int rounds = options.quick ? 3 : 9;
  for (const Contestant& c : contestants) {
    Figure f;
    f.name = c.name, f.side = c.side, f.threads = c.threads, f.calls = 1;
    if (c.answer && w.reference) {
      set_threads(c);
      f.gate_error = error_of(c.answer(), reference, w);
      f.passed = f.gate_error <= w.tolerance;
    }
    if (f.passed && !c.once) unless_a_peer_fails(f, [&] { f.calls = calibrate(c, options, rounds); });
    result.figures.push_back(f);
  }
  std::vector<double> spent_us(contestants.size(), 0);
  const bool shares = *std::max_element(w.threads.begin(), w.threads.end()) > 1;
  OthersLoad others;
  for (int round = 0; round < rounds; ++round) {
    if (shares) others.sample(options.quick ? 20 : 100);
    for (size_t at = 0; at < contestants.size(); ++at) {
      const size_t i = (at + static_cast<size_t>(round)) % contestants.size();
      const Contestant& c = contestants[i];
      Figure& f = result.figures[i];
      const bool late = round >= 3 && spent_us[i] > 2e6 * options.seconds;
      if (!f.passed || (c.once && round > 0) || late) continue;
      set_threads(c);
      unless_a_peer_fails(f, [&] {
        if (!c.once)
          spent_us[i] += c.time_us(1);  // memory that others gave back, and caches, are its own again
        f.us.push_back(c.time_us(f.calls));
        spent_us[i] += f.us.back() * f.calls;
      });
      // Its threads may spin for a while on the processor that the next one needs: OpenBLAS's for 25 ms.
      const bool spins = c.side == Side::peer && c.threads > 1;
      if (!options.quick) std::this_thread::sleep_for(std::chrono::milliseconds(spins ? 40 : 1));
    }
  }
  for (Figure& f : result.figures) summarise(f);
  for (size_t t = 0; t < w.threads.size(); ++t) {
    Line line;
    line.threads = w.threads[t];
    line.ours = firsts[t];
    if (line.threads > 1) line.others = others.processors();
    for (const Bar& bar : w.bars)
      for (size_t i = line.ours + 1; bar.of == Bar::Of::at_most_times && i < contestants.size(); ++i) {
        const Contestant &one = contestants[line.ours], &other = contestants[i];
        const bool both = result.figures[line.ours].passed && result.figures[i].passed;
        if (other.name == bar.against && other.side == Side::ours && other.threads == line.threads && both)
          line.pairs[bar.against] = time_over(one, other, result.figures[i].median_us, options);
      }
    if (prepared[t].facts) line.facts = prepared[t].facts();
    const Figure& ours = result.figures[line.ours];
    for (size_t i = 0; i < result.figures.size(); ++i) {
      const Figure& f = result.figures[i];
      std::vector<double> times;
      for (size_t b = 0; b < std::min(ours.us.size(), f.us.size()); ++b)
        times.push_back(f.us[b] / ours.us[b]);
      line.times.push_back(times.empty() ? 0 : median(times));
      if (f.side != Side::peer || f.threads > line.threads || times.empty()) continue;
      if (line.strongest == SIZE_MAX || line.times[i] < line.times[line.strongest]) line.strongest = i;
    }
    if (w.eager_private_bytes && !options.quick) {
      // Plans do not count what convolutions work in, which Winograd's way has most of: here it has none.
      const double bytes = command_number("TANDEM_WINOGRAD=0 " + this_program() + " --device " +
                                          tandem::to_string(options.device) + " --private-bytes " + w.name);
      line.facts["eager's bytes with gradients"] = bytes;
      const double plan = line.facts["plan's bytes with gradients"],
                   gradients = line.facts["gradients' bytes"];
      if (bytes > 0) line.facts["bytes with gradients over eager's"] = plan / bytes;
      if (bytes > gradients)
        line.facts["private bytes over eager's"] = (plan - gradients) / (bytes - gradients);
    }
    result.lines.push_back(std::move(line));
  }
}

/// A card's, by our own copies and the library's products.
void measure_card(Ceilings& ceilings, tandem::Device device) {
  constexpr int64_t kCount = int64_t{128} << 20, kSide = 8192;
  const tandem::Tensor from = tandem::ones({kCount}).to(device), to = tandem::zeros({kCount}).to(device);
  const tandem::NoGrad no_grad;
  const auto fastest_us = [&](int calls, auto f) {
    double least = 1e300;
    for (int i = 0; i < 5; ++i) least = std::min(least, time_us_on(device, calls, f));
    return least;
  };
  const auto keep = [](double& most, double now) { most = std::max(most, now); };
  keep(ceilings.copy_gb_s, 8e-3 * kCount / fastest_us(10, [&] { to.copy_(from); }));
  const std::vector<float> v = values(kSide * kSide, kInputs, 1);
  const tandem::Tensor a = tandem::tensor(std::span<const float>(v), {kSide, kSide}).to(device);
  const double flop = 2.0 * kSide * kSide * kSide;
  const auto product = [&](const tandem::Tensor& t) {
    return flop * 1e-3 / fastest_us(5, [&] { tandem::mm(t, t); });
  };
  keep(ceilings.gemm_gflop_s, product(a));
  keep(ceilings.bf16_gflop_s, product(a.to(tandem::bfloat16)));
  const tandem::AllowTf32 allowed(true);
  keep(ceilings.tf32_gflop_s, product(a));
}

}  // namespace

double Ceilings::products(const std::string& workload) const {
  if (workload.find("_bf16") != std::string::npos && bf16_gflop_s > 0) return bf16_gflop_s;
  if (workload.find("_tf32") != std::string::npos && tf32_gflop_s > 0) return tf32_gflop_s;
  return gemm_gflop_s;
}

void measure_ceilings(Ceilings& ceilings, tandem::Device device) {
  tandem::set_num_threads(ceilings.threads);
  if (device != tandem::cpu) return measure_card(ceilings, device);
  constexpr int64_t kBytes = int64_t{16} << 20;
  static std::vector<char> from(kBytes, 1), to(kBytes);
  const auto copy = [&] {
    tandem::core::parallel(kBytes, int64_t{1} << 20, [&](int64_t begin, int64_t end) {
      std::memcpy(to.data() + begin, from.data() + begin, static_cast<size_t>(end - begin));
    });
  };
  const auto past = [&] {
    tandem::core::parallel(kBytes, int64_t{1} << 20, [&](int64_t begin, int64_t end) {
      tandem::core::copy_non_temporal(to.data() + begin, from.data() + begin, end - begin);
      tandem::core::order_non_temporal();
    });
  };
  const std::function<void()> gemm = alone({{1024, 1024, 1024}});
  for (int i = 0; i < 15; ++i) {
    ceilings.memcpy_gb_s = std::max(ceilings.memcpy_gb_s, 2.0 * kBytes * 1e-3 / time_us(4, copy));
    ceilings.copy_gb_s =
        std::max({ceilings.copy_gb_s, ceilings.memcpy_gb_s, 2.0 * kBytes * 1e-3 / time_us(4, past)});
    ceilings.gemm_gflop_s = std::max(ceilings.gemm_gflop_s, 2.0 * (1 << 30) * 1e-3 / time_us(1, gemm));
  }
}

Result measure(const Workload& workload, const Options& options,
               const std::vector<std::unique_ptr<Peer>>& peers) {
  Result result;
  result.workload = workload;
  try {
    measure_into(result, options, peers);
  } catch (const tandem::Error& e) {
    result.failure = e.what();
  }
  for (const auto& peer : peers) peer->clear();
  return result;
}

void profile(const Workload& w, const Options& options) {
  for (const int threads : w.threads) {
    tandem::set_num_threads(threads);
    const Prepared prepared = w.prepare({options.device, threads});
    const Contestant& c = prepared.contestants.front();
    if (c.answer) c.answer();
    c.time_us(10);
    const int tries = options.quick ? 1 : 25;
    const int calls = static_cast<int>(std::clamp(2e4 / c.time_us(2), 1.0, 1e4));
    tandem::ProfileTable least;
    for (int i = 0; i < tries; ++i) {
      tandem::Profile profile("");
      c.time_us(calls);
      take_least(least, profile.finish());
    }
    std::printf("%s, threads: %d, %d calls; of each entry the least of %d runs\n%s\n", w.name.c_str(),
                threads, calls, tries, to_string(least).c_str());
  }
}

void judge(Result& result, const std::vector<Ceilings>& ceilings) {
  for (Line& line : result.lines) {
    const double us = result.figures[line.ours].median_us;
    for (const Ceilings& c : ceilings)
      if (c.threads == line.threads && us > 0 && c.copy_gb_s > 0) {
        line.share_of_copy = result.workload.bytes * 1e-3 / us / c.copy_gb_s;
        line.share_of_gemm = result.workload.flop * 1e-3 / us / c.products(result.workload.name);
      }
    line.verdicts.clear();
    for (const Bar& bar : result.workload.bars)
      if (bar.threads == 0 || bar.threads == line.threads)
        line.verdicts.push_back(verdict(bar, result, line));
  }
}

}  // namespace bench
