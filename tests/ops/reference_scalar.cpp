// Scalar functions in double arithmetic, as scalar.def says.
#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "tandem/core/error.h"
#include "tandem/core/generator.h"
#include "tests/ops/reference_emitter.h"

namespace tandem::test {

using ops::ScalarOp;

double to_type(double v, DType t) {
  if (t == DType::bool_) return v != 0;
  if (is_floating(t)) return v;
  if (std::isnan(v)) return 0;
  v = std::trunc(v);
  if (t == DType::int64) return std::clamp(v, -0x1p63, 0x1p63);
  const double low = t == DType::uint8 ? 0 : -0x1p31, high = t == DType::uint8 ? 255 : 0x1p31 - 1;
  return std::clamp(v, low, high);
}

namespace {

size_t place(int64_t i) { return static_cast<size_t>(i); }

uint32_t lane(double seed, double offset, int64_t index) {
  const auto counter = static_cast<uint64_t>(offset) + static_cast<uint64_t>(index / 4);
  return core::philox(static_cast<uint64_t>(seed), counter)[place(index % 4)];
}

double apply(const ops::ScalarNode& n, DType operand_type, const double* x) {
  const bool floating = is_floating(operand_type);
  switch (n.op) {
    case ScalarOp::load:
    case ScalarOp::number:
    case ScalarOp::constant:
    case ScalarOp::index:
    case ScalarOp::reduced:
    case ScalarOp::count_:
      break;
    case ScalarOp::add:
      return x[0] + x[1];
    case ScalarOp::sub:
      return x[0] - x[1];
    case ScalarOp::mul:
      return x[0] * x[1];
    case ScalarOp::div:
      return x[0] / x[1];
    case ScalarOp::idiv:
      return x[1] == 0 ? 0 : std::floor(x[0] / x[1]);
    case ScalarOp::mod: {
      if (!floating && x[1] == 0) return 0;
      const double rest = std::fmod(x[0], x[1]);
      return rest != 0 && (rest < 0) != (x[1] < 0) ? rest + x[1] : rest;
    }
    case ScalarOp::fma:
      return std::fma(x[0], x[1], x[2]);
    case ScalarOp::neg:
      return -x[0];
    case ScalarOp::abs:
      return std::fabs(x[0]);
    case ScalarOp::min:
      return std::isnan(x[0]) || x[0] < x[1] ? x[0] : x[1];
    case ScalarOp::max:
      return std::isnan(x[0]) || x[0] > x[1] ? x[0] : x[1];
    case ScalarOp::sqrt:
      return std::sqrt(x[0]);
    case ScalarOp::exp:
      return std::exp(x[0]);
    case ScalarOp::expm1:
      return std::expm1(x[0]);
    case ScalarOp::log:
      return std::log(x[0]);
    case ScalarOp::log1p:
      return std::log1p(x[0]);
    case ScalarOp::log2:
      return std::log2(x[0]);
    case ScalarOp::sin:
      return std::sin(x[0]);
    case ScalarOp::cos:
      return std::cos(x[0]);
    case ScalarOp::tanh:
      return std::tanh(x[0]);
    case ScalarOp::erf:
      return std::erf(x[0]);
    case ScalarOp::erfc:
      return std::erfc(x[0]);
    case ScalarOp::atan2:
      return std::atan2(x[0], x[1]);
    case ScalarOp::copysign:
      return std::copysign(x[0], x[1]);
    case ScalarOp::bit_and:
      return static_cast<double>(static_cast<int64_t>(x[0]) & static_cast<int64_t>(x[1]));
    case ScalarOp::bit_or:
      return static_cast<double>(static_cast<int64_t>(x[0]) | static_cast<int64_t>(x[1]));
    case ScalarOp::bit_xor:
      return static_cast<double>(static_cast<int64_t>(x[0]) ^ static_cast<int64_t>(x[1]));
    case ScalarOp::shl:
    case ScalarOp::shr: {
      const auto v = static_cast<int64_t>(x[0]), count = static_cast<int64_t>(x[1]);
      const bool inside = count >= 0 && count < 8 * itemsize(operand_type);
      if (n.op == ScalarOp::shr) return static_cast<double>(inside ? v >> count : v < 0 ? -1 : 0);
      const auto moved = static_cast<int64_t>(inside ? static_cast<uint64_t>(v) << count : 0);
      return static_cast<double>(operand_type == DType::uint8   ? static_cast<uint8_t>(moved)
                                 : operand_type == DType::int32 ? static_cast<int32_t>(moved)
                                                                : moved);
    }
    case ScalarOp::pow:
      return std::pow(x[0], x[1]);
    case ScalarOp::floor:
      return std::floor(x[0]);
    case ScalarOp::ceil:
      return std::ceil(x[0]);
    case ScalarOp::round:
      return std::nearbyint(x[0]);
    case ScalarOp::trunc:
      return std::trunc(x[0]);
    case ScalarOp::eq:
      return x[0] == x[1];
    case ScalarOp::ne:
      return x[0] != x[1];
    case ScalarOp::lt:
      return x[0] < x[1];
    case ScalarOp::le:
      return x[0] <= x[1];
    case ScalarOp::gt:
      return x[0] > x[1];
    case ScalarOp::ge:
      return x[0] >= x[1];
    case ScalarOp::logical_and:
      return x[0] != 0 && x[1] != 0;
    case ScalarOp::logical_or:
      return x[0] != 0 || x[1] != 0;
    case ScalarOp::logical_xor:
      return (x[0] != 0) != (x[1] != 0);
    case ScalarOp::logical_not:
      return x[0] == 0;
    case ScalarOp::select:
      return x[0] != 0 ? x[1] : x[2];
    case ScalarOp::cast:
      return to_type(x[0], n.type);
    case ScalarOp::uniform:
      return (lane(x[1], x[2], static_cast<int64_t>(x[0])) >> 8) * 0x1p-24;
    case ScalarOp::uniform16: {
      const auto i = static_cast<int64_t>(x[0]);
      const auto counter = static_cast<uint64_t>(x[2]) + static_cast<uint64_t>(i / 8);
      const uint32_t word = core::philox(static_cast<uint64_t>(x[1]), counter)[place(i % 8 / 2)];
      return (i % 2 ? word >> 16 : word & 0xFFFFu) * 0x1p-16;
    }
    case ScalarOp::normal: {
      const auto i = static_cast<int64_t>(x[0]);
      // The radius is very sensitive near u = 1, so u is the float32 that the definition asks for.
      const auto word = static_cast<float>(lane(x[1], x[2], i & ~int64_t{1}));
      const double u = static_cast<float>(static_cast<double>(word) * 0x1p-32 + 0x1p-33);
      const double angle = 2 * std::numbers::pi * 0x1p-32 * lane(x[1], x[2], i | 1);
      return std::sqrt(-2 * std::log(u)) * (i % 2 ? std::sin(angle) : std::cos(angle));
    }
  }
  internal_error(std::string("no value of a scalar ") + ops::name(n.op));
}

}  // namespace

double interpret(const ops::ScalarGraph& graph, int32_t node, const ScalarLeaves& leaves) {
  std::vector<double> values(static_cast<size_t>(node) + 1);  // operands come before their users
  for (int32_t id = 0; id <= node; ++id) {
    const ops::ScalarNode& n = graph[id];
    double& v = values[static_cast<size_t>(id)];
    switch (n.op) {
      case ScalarOp::load:
        v = leaves.loads[place(n.bits)];
        continue;
      case ScalarOp::number:
        v = leaves.numbers[place(n.bits)];
        continue;
      case ScalarOp::index:
        v = static_cast<double>(leaves.index);
        continue;
      case ScalarOp::constant:
        v = is_floating(n.type) ? std::bit_cast<double>(n.bits) : static_cast<double>(n.bits);
        continue;
      default:
        break;
    }
    double x[3] = {};
    for (int i = 0; i < ops::arity(n.op); ++i) x[i] = values[static_cast<size_t>(n.in[i])];
    v = apply(n, graph[n.in[0]].type, x);
  }
  return values[static_cast<size_t>(node)];
}

}  // namespace tandem::test
