// A small program for tests of executables: tensors in, ops on any Emitter, values out. It can run through
// the planner under any options, with every byte compared, and on the float64 reference. Inputs come from a
// seed; one thread.
#pragma once

#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <random>

#include "tandem/core/thread_pool.h"
#include "tandem/jit/executable.h"
#include "tests/catch.h"
#include "tests/elements.h"
#include "tests/ops/reference_emitter.h"

namespace tandem::test {

using jit::Executable;
using jit::ExecutableOptions;
using jit::ExecutableStats;
using ops::Value;

struct InputSpec {
  DType dtype = DType::float32;
  Dims sizes;
  double low = -1, high = 1;  // integers: low .. high - 1
  Dims strides = {};          // empty: contiguous
};

struct Program {
  std::vector<InputSpec> inputs;
  std::vector<double> numbers;  // float64 run-time numbers
  /// Appends ops; gets the inputs and the numbers, returns the outputs.
  std::function<std::vector<Value>(ops::Emitter&, const std::vector<Value>& in,
                                   const std::vector<Value>& numbers)>
      body;
  std::vector<std::pair<int, int>>
      writes;  // (input, position among the results of body); those come last, after the outputs

  size_t n_outputs(size_t results) const { return results - writes.size(); }
};

struct RunResult {
  std::vector<std::string> outputs, inputs;  // bytes; inputs as they are afterwards
  std::vector<ops::TensorType> types;        // of the outputs, then of the written values
  ExecutableStats stats;
  std::string plan;
  int failed = 0;
};

inline int64_t span_of(const Dims& sizes, const Dims& strides) {
  int64_t last = 0;
  for (int d = 0; d < sizes.rank(); ++d) last += (sizes[d] - 1) * strides[d];
  return numel(sizes) == 0 ? 0 : last + 1;
}

/// Memory of an input, filled from the seed; bytes between the elements stay at a known pattern.
inline std::string input_bytes(const InputSpec& s, uint64_t seed) {
  const Dims strides = s.strides.empty() ? contiguous_strides(s.sizes) : s.strides;
  std::string bytes(static_cast<size_t>(span_of(s.sizes, strides) * itemsize(s.dtype)), '\x5A');
  std::mt19937_64 random(seed);
  const int64_t n = static_cast<int64_t>(bytes.size()) / itemsize(s.dtype);
  for (int64_t i = 0; i < n; ++i) {
    const double u = static_cast<double>(random() >> 11) * 0x1p-53;
    double v = s.low + (s.high - s.low) * u;
    if (!is_floating(s.dtype)) v = std::floor(v);
    write_element(bytes.data(), s.dtype, i, v);
  }
  return bytes;
}

inline jit::Graph graph_of(const Program& p, std::vector<ops::TensorType>* types = nullptr) {
  jit::Graph g;
  jit::GraphEmitter e(g, false);
  std::vector<Value> in, numbers;
  for (const InputSpec& s : p.inputs) {
    ops::TensorType t;
    t.dtype = s.dtype;
    t.sizes = s.sizes;
    in.push_back({g.add_input(t, s.strides.empty() ? contiguous_strides(s.sizes) : s.strides)});
  }
  for (size_t i = 0; i < p.numbers.size(); ++i) numbers.push_back({g.add_number(DType::float64)});
  const std::vector<Value> results = p.body(e, in, numbers);
  const size_t n = p.n_outputs(results.size());
  for (size_t i = 0; i < n; ++i) g.outputs.push_back(results[i].id);
  for (size_t i = 0; i < p.writes.size(); ++i)
    g.writes.push_back({p.writes[i].first, results[static_cast<size_t>(p.writes[i].second)].id});
  if (types)
    for (const Value& v : results) types->push_back(g.type(v.id));
  return g;
}

inline RunResult run(const Program& p, const ExecutableOptions& options, uint64_t seed = 1) {
  RunResult r;
  const jit::Graph g = graph_of(p, &r.types);
  const auto x = Executable::make(g, options);
  std::vector<void*> in, out;
  for (size_t i = 0; i < p.inputs.size(); ++i) {
    r.inputs.push_back(input_bytes(p.inputs[i], seed + i));
    r.inputs.back().reserve(64);
  }
  for (std::string& s : r.inputs) in.push_back(s.data());
  struct alignas(64) Line {  // outputs begin where lines do
    std::array<char, 64> bytes;
  };
  std::vector<std::vector<Line>> memory;
  std::vector<size_t> sizes;
  for (const int32_t v : g.outputs) {
    sizes.push_back(static_cast<size_t>(numel(g.type(v).sizes) * itemsize(g.type(v).dtype)));
    memory.emplace_back(sizes.back() / sizeof(Line) + 1);
    std::memset(memory.back().data(), 0xFF, memory.back().size() * sizeof(Line));
    out.push_back(memory.back().data());
  }
  std::vector<int64_t> numbers;
  for (const double v : p.numbers) numbers.push_back(std::bit_cast<int64_t>(v));
  r.failed = x->run(in.data(), numbers.data(), out.data());
  for (size_t i = 0; i < out.size(); ++i) r.outputs.emplace_back(static_cast<const char*>(out[i]), sizes[i]);
  r.stats = x->stats();
  r.plan = x->plan_text();
  return r;
}

/// The outputs, then the written values, in doubles.
inline std::vector<std::vector<double>> reference(const Program& p, uint64_t seed = 1) {
  ReferenceEmitter e;
  std::vector<Value> in, numbers;
  for (size_t i = 0; i < p.inputs.size(); ++i) {
    const InputSpec& s = p.inputs[i];
    const std::string bytes = input_bytes(s, seed + i);
    const Dims strides = s.strides.empty() ? contiguous_strides(s.sizes) : s.strides;
    std::vector<double> values;
    for (int64_t k = 0; k < numel(s.sizes); ++k) {
      int64_t rest = k, at = 0;
      for (int d = s.sizes.rank() - 1; d >= 0; --d) {
        at += rest % s.sizes[d] * strides[d];
        rest /= s.sizes[d];
      }
      values.push_back(read_element(bytes.data(), s.dtype, at));
    }
    ops::TensorType t;
    t.dtype = s.dtype;
    t.sizes = s.sizes;
    in.push_back(e.add(t, values));
  }
  for (const double v : p.numbers) {
    ops::TensorType t;
    t.dtype = DType::float64;
    t.number = true;
    numbers.push_back(e.add(t, {v}));
  }
  std::vector<std::vector<double>> results;
  for (const Value v : p.body(e, in, numbers)) results.push_back(e.values(v));
  return results;
}

inline const ExecutableOptions kUnfused{.compile = false, .optimize = false, .disabled_passes = {}};
inline const ExecutableOptions kFused{.compile = false, .optimize = true, .disabled_passes = {}};
inline const ExecutableOptions kCompiled{.compile = true, .optimize = true, .disabled_passes = {}};

/// Fused and compiled give the bytes that one kernel per op gives, and the reference agrees to `tolerance`.
/// Returns the fused run.
inline RunResult check_program(const Program& p, double tolerance = 1e-5, bool compiled = true) {
  const RunResult plain = run(p, kUnfused);
  const RunResult fused = run(p, kFused);
  INFO(fused.plan);
  CHECK(plain.failed == 0);
  CHECK(fused.failed == 0);
  for (size_t i = 0; i < plain.outputs.size(); ++i) {
    CAPTURE(i);
    CHECK(plain.outputs[i] == fused.outputs[i]);
  }
  for (size_t i = 0; i < plain.inputs.size(); ++i) {
    CAPTURE(i);
    CHECK(plain.inputs[i] == fused.inputs[i]);
  }
  if (compiled) {
    const RunResult code = run(p, kCompiled);
    for (size_t i = 0; i < plain.outputs.size(); ++i) {
      CAPTURE(i);
      CHECK(plain.outputs[i] == code.outputs[i]);
    }
    CHECK(plain.inputs == code.inputs);
  }
  const std::vector<std::vector<double>> truth = reference(p);
  for (size_t i = 0; i < plain.outputs.size(); ++i) {
    CAPTURE(i);
    double worst = 0;
    for (size_t k = 0; k < truth[i].size(); ++k) {
      const double v = read_element(fused.outputs[i].data(), fused.types[i].dtype, static_cast<int64_t>(k));
      const bool same = v == truth[i][k] || (std::isnan(v) && std::isnan(truth[i][k]));
      worst = std::max(worst, same ? 0 : std::fabs(v - truth[i][k]) / std::max(1.0, std::fabs(truth[i][k])));
      if (std::isnan(v) != std::isnan(truth[i][k])) worst = 1e30;
    }
    CHECK(worst <= tolerance);
  }
  return fused;
}

/// The fused run with one thread, after it and one with three gave the same.
inline RunResult check_threads(const Program& p, double tolerance = 2e-3, bool compiled = true) {
  const int before = num_threads();
  set_num_threads(3);
  check_program(p, tolerance, compiled);
  set_num_threads(1);
  const RunResult r = check_program(p, tolerance, compiled);
  set_num_threads(before);
  return r;
}

/// Random programs, of seeds from 1: `options` give the bytes that one kernel per op on one thread gives,
/// with one thread and with three. Returns for how many `is_meant` holds of the run with one thread.
inline int check_random_programs(int programs, const std::function<Program(uint64_t seed)>& program_of,
                                 const std::function<ExecutableOptions(uint64_t seed, int threads)>& options,
                                 const std::function<bool(const RunResult&)>& is_meant) {
  const int before = num_threads();
  int meant = 0;
  for (uint64_t seed = 1; seed <= static_cast<uint64_t>(programs); ++seed) {
    CAPTURE(seed);
    const Program p = program_of(seed);
    set_num_threads(1);
    const RunResult plain = run(p, kUnfused);
    for (const int threads : {1, 3}) {
      CAPTURE(threads);
      set_num_threads(threads);
      const RunResult r = run(p, options(seed, threads));
      if (r.outputs != plain.outputs || r.inputs != plain.inputs) FAIL(r.plan);
      meant += threads == 1 && is_meant(r);
    }
  }
  set_num_threads(before);
  return meant;
}

}  // namespace tandem::test
