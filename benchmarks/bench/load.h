// How busy others keep the machine, from the kernel's counts of processor time (/proc/stat). Main thread,
// while this program and its peers have nothing to do: then all that is not idle is others'.
#pragma once

namespace bench {

inline constexpr double kIdle = 0.1;  // processors that others have, at most, of an idle machine

class OthersLoad {
 public:
  /// Waits so long, and adds what others took in that time.
  void sample(int milliseconds);
  /// Processors that others had, in the mean of all samples; -1: not known.
  double processors() const { return all_ > 0 ? busy_ / all_ : -1; }

 private:
  double busy_ = 0, all_ = 0;  // ticks of all processors; ticks of one
};

}  // namespace bench
