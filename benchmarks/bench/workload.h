// What a benchmark is: one row of the table, with its place in the measuring protocol, what it has to do by
// hand count, what its results are compared with before any time is printed, and the bars that it is held to.
// Values; the functions in them run on the main thread, one at a time.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tandem/core/device.h"

namespace bench {

/// What one contestant computed: losses and gradients, or samples of each result. Parts are compared one by
/// one, each by its largest difference over the reference's largest element; parts that only one side has are
/// not.
using Answer = std::vector<std::vector<double>>;

enum class Side { ours, part, peer };  // part: what a step cannot do without (its products), not gated

/// One who takes turns. All of them stay alive while the workload is measured.
struct Contestant {
  std::string name;  // without the number of threads: "traced", "LibTorch AVX-512"
  Side side = Side::ours;
  int threads = 1;
  /// Microseconds per call, over so many calls.
  std::function<double(int calls)> time_us;
  /// What the gate compares with the reference, made before any timing; null: nothing.
  std::function<Answer()> answer;
  /// Runs once, without warm-up and repetitions (first calls).
  bool once = false;
};

struct Setting {
  tandem::Device device;
  int threads = 1;
};

/// What a workload becomes for a setting.
struct Prepared {
  std::vector<Contestant> contestants;  // the first is the one that ratios are against
  /// Counts and bytes, that are not times; asked for after the timing. Null: none.
  std::function<std::map<std::string, double>()> facts;
};

/// A promise about a row: printed as met or not, never asserted.
struct Bar {
  enum class Of {
    times_faster,   // least over all contestants whose name begins with `against`: their time over ours
    at_most_times,  // our time over that of `against`
    share_of_copy,  // least share of the measured copy bandwidth that the counted bytes come to
    at_most_us,     // our time
    fact_at_most,   // the fact `against`, at most
  };
  Of of;
  double limit;
  std::string against;
  int threads = 0;  // 0: for each number of threads
};

struct Workload {
  std::string name, section;   // of the protocol: "5.j"
  std::string what;            // one line
  double flop = 0, bytes = 0;  // of one call, counted by hand: what cannot be avoided
  std::string counted;         // how
  std::vector<int> threads = {1, 2};
  double units = 0;         // of a call, if its rate is to be printed
  std::string unit;         // "images"
  bool heavy = false;       // run only where asked for by name or by --heavy
  double tolerance = 1e-3;  // of the gate, relative to the reference
  /// The same for the parts behind the losses, all of which a step must give; 0: no step.
  double gradient_tolerance = 0;
  /// Of the largest of these parts: what a lesser one is compared in units of, being its rounding alone.
  double gradient_floor = 0;
  std::vector<Bar> bars;
  /// Why a bar is missed, and the next idea; printed when it is.
  std::string open;
  /// What answers are compared with: float64 in eager mode, where that takes less than a second or two.
  std::function<Answer()> reference;
  std::function<Prepared(const Setting&)> prepare;
  /// Bytes beyond parameters, moments and batches that the eager step needs at its highest, asked for in a
  /// process of its own; null: not asked.
  std::function<double(tandem::Device)> eager_private_bytes;
};

/// In the order of the table, those for a kind of device.
std::vector<Workload> workloads(tandem::DeviceType type);
// Its parts, a file each.
std::vector<Workload> training_workloads();
std::vector<Workload> inference_workloads();
std::vector<Workload> row_workloads();
std::vector<Workload> dispatch_workloads();
std::vector<Workload> first_call_workloads();
std::vector<Workload> guard_workloads();
std::vector<Workload> literature_workloads();
// In sizes that fill a card.
std::vector<Workload> card_workloads();
std::vector<Workload> card_row_workloads();

/// Builds the training step of this name from nothing and runs its first call; microseconds (first_call.cpp).
double first_call_us(const std::string& workload, tandem::Device device);

}  // namespace bench
