#include "tandem/jit/programs.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <numeric>
#include <thread>

#include "tandem/jit/sha256.h"

namespace tandem::jit {

namespace {

// What a program costs beside its kernels: a process, the text before the kernels, the linker. Measured with
// g++ 12 (85 ms; 7 ms for 1,000 characters) and about the same for NVRTC (24 ms; 8 ms a kernel).
constexpr size_t kStartCost = 10'000;
constexpr size_t kMostCost = 160'000;

size_t processors() { return std::max(1u, std::thread::hardware_concurrency()); }

/// The parts of `wanted` for which nothing was loaded from the disk.
std::vector<size_t> not_on_disk(std::span<const WantedPart> wanted, const ProgramMaker& maker) {
  std::vector<size_t> missing(wanted.size());
  std::iota(missing.begin(), missing.end(), size_t{0});
  for (size_t next = 0; next < missing.size();) {
    const WantedPart& first = wanted[missing[next]];
    const std::optional<DiskCache::Stored> stored =
        maker.disk.find(first.name, maker.key, std::string(first.text));
    std::vector<size_t> found, others;
    if (stored)
      for (size_t i = next; i < missing.size(); ++i)
        (stored->source.find(wanted[missing[i]].text) == std::string::npos ? others : found)
            .push_back(missing[i]);
    if (!stored || !maker.load(*stored, found)) {
      ++next;
      continue;
    }
    missing.resize(next);
    missing.insert(missing.end(), others.begin(), others.end());
  }
  return missing;
}

void make_program(std::span<const WantedPart> wanted, std::span<const size_t> parts,
                  const ProgramMaker& maker) {
  std::string source;
  std::vector<std::string> names;
  for (const size_t i : parts) {
    source += wanted[i].text;
    names.push_back(wanted[i].name);
  }
  const std::optional<DiskCache::Stored> made = maker.compile(parts, std::move(source));
  if (made) {
    if (maker.load(*made, parts)) maker.disk.store(names, maker.key, made->source, made->object);
  } else if (parts.size() > 1) {  // one kernel must not cost the others their code
    for (const size_t& i : parts) make_program(wanted, {&i, 1}, maker);
  }
}

}  // namespace

ProgramStart::ProgramStart(std::string text_) : text(std::move(text_)), digest(hex(sha256(text))) {}

std::vector<std::vector<size_t>> share_out(std::span<const size_t> costs, size_t processors) {
  if (costs.empty()) return {};
  const size_t total = std::accumulate(costs.begin(), costs.end(), size_t{0});
  size_t count = std::min(processors, std::max<size_t>(1, total / kStartCost));
  const size_t fewest = (total + kMostCost - 1) / kMostCost;
  if (fewest > count) count = (fewest + processors - 1) / processors * processors;  // in whole rounds
  count = std::min(count, costs.size());

  // The dearest first, each to the program that has the least so far.
  std::vector<size_t> order(costs.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return costs[a] > costs[b]; });
  std::vector<std::vector<size_t>> programs(count);
  std::vector<size_t> sums(count);
  for (const size_t i : order) {
    const auto least = static_cast<size_t>(std::min_element(sums.begin(), sums.end()) - sums.begin());
    programs[least].push_back(i);
    sums[least] += costs[i];
  }
  for (std::vector<size_t>& p : programs) std::sort(p.begin(), p.end());
  return programs;
}

std::vector<std::vector<size_t>> share_out(std::span<const size_t> costs) {
  return share_out(costs, processors());
}

void side_by_side(size_t jobs, const std::function<void(size_t)>& work) {
  std::vector<std::exception_ptr> errors(jobs);
  std::atomic<size_t> next{0};
  const auto run = [&] {
    for (size_t i = next++; i < jobs; i = next++) try {
        work(i);
      } catch (...) {
        errors[i] = std::current_exception();
      }
  };
  {
    std::vector<std::jthread> threads;
    for (size_t i = 1; i < std::min(jobs, processors()); ++i) threads.emplace_back(run);
    run();
  }
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

int64_t load_programs(std::span<const WantedPart> wanted, const ProgramMaker& maker) {
  const std::vector<size_t> missing = not_on_disk(wanted, maker);
  std::vector<size_t> costs;
  for (const size_t i : missing) costs.push_back(wanted[i].cost);
  std::vector<std::vector<size_t>> programs = share_out(costs);
  for (std::vector<size_t>& program : programs)
    for (size_t& i : program) i = missing[i];
  side_by_side(programs.size(), [&](size_t i) { make_program(wanted, programs[i], maker); });
  return static_cast<int64_t>(wanted.size() - missing.size());
}

}  // namespace tandem::jit
