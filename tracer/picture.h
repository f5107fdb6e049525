// A plan as a picture, before it is placed on a page: boxes (plan entries, arguments) with chips in them
// (calls of the captured program, or the parts of them that run together) and the values that go from chip to
// chip. Values; any thread.
#pragma once

#include <string>
#include <vector>

#include "tandem/jit/describe.h"
#include "tandem/tracer/record.h"

namespace tandem::tracer {

struct Chip {
  std::string label, type;                 // the call; dtype and shape of what it makes
  std::vector<std::string> reads, writes;  // memory from outside that is not drawn as a line
  Origin::Phase phase = Origin::Phase::forward;
  Location where;
  std::vector<int32_t> nodes;  // of the graph; none for a copy
  int32_t box = -1;
};

struct Box {
  int32_t entry = -1;  // of the plan; -1: an argument
  std::string title, note;
  Origin::Phase phase = Origin::Phase::forward;
  std::vector<int32_t> chips;
};

/// A value that one chip makes and others read. `from` is a chip, or (argument) a box.
struct Line {
  int32_t value = -1;
  bool argument = false;
  int32_t from = -1;
  std::vector<int32_t> to;  // chips, ascending
};

struct Picture {
  jit::Description plan;
  std::vector<Box> boxes;  // arguments, then entries in order
  std::vector<Chip> chips;
  std::vector<Line> lines;
  std::vector<std::string> node_text;   // per node of the graph
  std::vector<std::string> entry_text;  // per entry of the plan
};

Picture picture_of(const Plan& plan);

std::string bytes_text(int64_t n);
/// "float32 (64, 256)"
std::string type_text(const ops::TensorType& type);

}  // namespace tandem::tracer
