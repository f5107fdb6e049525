// Pointwise kernels: an element a thread, or, where everything moves along the innermost dimension in
// unison, up to 16 bytes of each operand at a time: if the addresses of the call allow it, which is tested at
// its top. With few operands several such packs are read before the first is used, so that each thread has
// four loads under way.
//
// Where an operand is contiguous along another dimension than the innermost (a transpose), blocks take tiles
// of both dimensions, and warps parts of 8 by 4 elements: so each 32 bytes that memory gives or takes at a
// time are used whole, by one warp or by two of a block at once.
#include <algorithm>

#include "tandem/jit/print_c_plan.h"
#include "tandem/jit/print_cuda_printer.h"

namespace tandem::jit {

using ops::ScalarOp;

namespace {

constexpr int kMostElements = 16;

size_t at(int64_t i) { return static_cast<size_t>(i); }
template <class I>
std::string num(I v) {
  return std::to_string(v);
}

}  // namespace

int cuda_elements(const Kernel& k) {
  if (k.kind != KernelKind::pointwise || k.kept_rank == 0) return 1;
  int64_t widest = 1;
  for (const Store& s : k.stores) {
    if (s.inner != Inner::contiguous) return 1;
    widest = std::max<int64_t>(widest, itemsize(s.dtype));
  }
  for (const Load& l : k.loads) {
    if (l.index != kNoIndex) continue;
    if (l.inner == Inner::strided) return 1;
    if (l.inner == Inner::contiguous) widest = std::max<int64_t>(widest, itemsize(l.dtype));
  }
  const bool random = std::any_of(k.scalars.nodes().begin(), k.scalars.nodes().end(),
                                  [](const ops::ScalarNode& n) { return is_random(n.op); });
  return static_cast<int>(std::min<int64_t>(16 / widest, random ? 4 : kMostElements));
}

int cuda_packs(const Kernel& k) {
  constexpr int kLoads = 4, kFewNodes = 24;
  if (cuda_elements(k) == 1) return 1;
  int loads = 0;
  for (const Load& l : k.loads) loads += l.index == kNoIndex && l.inner == Inner::contiguous;
  bool random = false, costly = false;
  for (const ops::ScalarNode& n : k.scalars.nodes()) {
    random = random || is_random(n.op);
    costly = costly || is_costly(n.op);
  }
  if (loads == 0 || random) return 1;
  const int packs = (kLoads + loads - 1) / loads;
  return costly || k.scalars.size() > kFewNodes ? std::min(packs, 2) : packs;
}

bool cuda_tiles(const Kernel& k) {
  if (k.kind != KernelKind::pointwise || k.kept_rank < 2) return false;
  return std::any_of(k.stores.begin(), k.stores.end(),
                     [](const Store& s) { return s.inner == Inner::strided; }) ||
         std::any_of(k.loads.begin(), k.loads.end(),
                     [](const Load& l) { return l.index == kNoIndex && l.inner == Inner::strided; });
}

bool CudaPrinter::is_packed(size_t slot) const {
  return !is_load(slot) || (!by_offset(slot) && load_of(slot).inner == Inner::contiguous);
}

void CudaPrinter::pointwise() {
  const CudaWalk& walk = plan_.walks[0];
  const int elements = cuda_elements(k_);
  for (size_t s = 0; s < slots(); ++s)
    if (slot_used(s)) line(slot_type(s) + " const " + slot_name(s) + " = b" + slot_name(s) + ";");
  line("const td_i64 thread = (td_i64)block * blockDim.x + threadIdx.x;");
  line("const td_i64 step = (td_i64)blocks * blockDim.x;");
  line("td_i64 first = 0;");
  const bool tiles = cuda_tiles(k_);
  if (elements > 1 || tiles) pointwise_element(walk);
  if (elements > 1) pointwise_packs(walk, elements);
  if (tiles) pointwise_tiles(walk);
  line("TD_ROLLED");
  line("for (td_i64 at = first + thread; at < count; at += step) {");
  coordinates();
  offsets(walk);
  if (elements > 1 || tiles) {
    std::string text;
    for (size_t s = 0; s < slots(); ++s)
      if (slot_used(s)) text += ", " + (by_offset(s) ? "q" + num(s) : element(s, false));
    line("one(at" + text + ");");
  } else {
    for (const int32_t i : walk.nodes) node(i);
    for (const int32_t s : walk.stores) store(s);
  }
  line("}");
}

// What is done with an element, whose operands and results are parameters.
void CudaPrinter::pointwise_element(const CudaWalk& walk) {
  std::string parameters;
  for (size_t s = 0; s < slots(); ++s) {
    if (!slot_used(s)) continue;
    const std::string type = slot_type(s), element = type.substr(0, type.size() - 1);
    parameters += ", ";
    if (by_offset(s)) {
      parameters += "const td_i64 q" + num(s);
    } else {
      parameters += element + (is_load(s) ? " l" : "& l") + num(s);
    }
  }
  line("const auto one = [&](const td_i64 at" + parameters + ") TD_INLINE {");
  passed_ = true;
  for (const int32_t i : walk.nodes) node(i);
  for (const int32_t s : walk.stores) store(s);
  passed_ = false;
  line("};");
}

void CudaPrinter::pointwise_packs(const CudaWalk& walk, int elements) {
  const std::string n = num(elements);
  const int inner = k_.kept_rank - 1;
  std::string condition;
  if (inner > 0) condition = "d" + num(inner) + " % " + n + " == 0";
  for (size_t s = 0; s < slots(); ++s) {
    if (!slot_used(s) || !is_packed(s)) continue;
    condition += (condition.empty() ? "" : " && ") + ("td_aligned<" + n + ">(" + slot_name(s) + ")");
    for (int d = 0; d < inner; ++d) condition += " && s" + num(s) + "_" + num(d) + " % " + n + " == 0";
  }
  line("if (" + condition + ") {");
  line("first = count / " + n + " * " + n + ";");
  const std::string u = num(cuda_packs(k_));
  line("const td_i64 packs = count / " + n + ";");
  line("TD_ROLLED");
  line("for (td_i64 pack = thread; pack < packs; pack += " + u + " * step) {");
  for (size_t s = 0; s < slots(); ++s) {
    if (!slot_used(s) || by_offset(s)) continue;
    const std::string type = element_type(s);
    line((is_packed(s) ? "td_pack<" + type + ", " + n + ">" : type) + " w" + num(s) + "[" + u + "];");
  }
  const auto each = [&] {
    line("TD_UNROLLED");
    line("for (int k = 0; k < " + u + "; ++k) {");
    line("if (pack + k * step >= packs) continue;");
    line("const td_i64 at = (pack + k * step) * " + n + ";");
    coordinates();
    offsets(walk);
  };
  each();
  for (size_t s = 0; s < slots(); ++s)
    if (slot_used(s) && is_load(s) && !by_offset(s))
      line("w" + num(s) + "[k] = " +
           (is_packed(s) ? "td_read<" + n + ">(" + slot_name(s) + " + q" + num(s) + ")" : element(s, false)) +
           ";");
  line("}");
  each();
  std::string text;
  for (size_t s = 0; s < slots(); ++s) {
    if (!slot_used(s)) continue;
    if (!by_offset(s)) {
      text += ", w" + num(s) + "[k]" + (is_packed(s) ? ".v[u]" : "");
      continue;
    }
    const bool still = load_of(s).inner == Inner::constant;
    text +=
        ", q" + num(s) +
        (still ? ""
               : " + u * " + (load_of(s).inner == Inner::strided ? "s" + num(s) + "_" + num(inner) : "1"));
  }
  line("TD_UNROLLED");
  line("for (int u = 0; u < " + n + "; ++u) one(at + u" + text + ");");
  for (const int32_t s : walk.stores) {
    const size_t slot = k_.loads.size() + at(s);
    line("td_write<" + n + ">(" + slot_name(slot) + " + q" + num(slot) + ", w" + num(slot) + "[k]);");
  }
  line("}");
  line("}");
  line("}");
}

void CudaPrinter::pointwise_tiles(const CudaWalk& walk) {
  constexpr int kTile = 32, kFewest = 8;  // sizes worth a tile
  const int inner = k_.kept_rank - 1, u = kCudaTileElements;
  const std::string tile = num(kTile), fewest = num(kFewest);
  static_assert(kCudaThreads * kCudaTileElements == kTile * kTile);
  line("int across = -1;  // the dimension along which an operand is contiguous");
  for (size_t s = 0; s < slots(); ++s) {
    if (!slot_used(s) || by_offset(s)) continue;
    if ((is_load(s) ? load_of(s).inner : store_of(s).inner) != Inner::strided) continue;
    for (int d = 0; d < inner; ++d)
      line("if (across < 0 && s" + num(s) + "_" + num(d) + " == 1 && d" + num(d) + " >= " + fewest +
           ") across = " + num(d) + ";");
  }
  line("if (across >= 0 && d" + num(inner) + " >= " + fewest + ") {");
  line("first = count;  // nothing is left");
  std::string tiles;
  for (int d = 0; d <= inner; ++d) {
    const std::string size = "d" + num(d), parts = "(" + size + " + " + num(kTile - 1) + ") / " + tile;
    line("const td_i64 h" + num(d) + " = " +
         (d == inner ? parts : "across == " + num(d) + " ? " + parts + " : " + size) + ";");
    tiles += (d ? " * h" : "h") + num(d);
  }
  line("const int right = threadIdx.x / 32 % 4 * 8 + threadIdx.x % 8;");
  line("const int down = threadIdx.x / 128 * 4 + threadIdx.x / 8 % 4;");
  line("TD_ROLLED");
  line("for (td_i64 tile = block; tile < " + tiles + "; tile += blocks) {");
  line("td_i64 rest = tile;");
  for (int d = inner; d > 0; --d) line("const td_i64 i" + num(d) + " = td_split(rest, h" + num(d) + ");");
  line("const td_i64 i0 = rest;");
  const auto place = [&] {
    std::string inside, index;
    for (int d = 0; d <= inner; ++d) {
      const std::string n = num(d), i = "i" + n;
      line("const td_i64 c" + n + " = " +
           (d == inner ? i + " * " + tile + " + right"
                       : "across == " + n + " ? " + i + " * " + tile + " + down + " +
                             num(kTile / kCudaTileElements) + " * u : " + i) +
           ";");
      inside += (d ? " || c" : "c") + n + " >= d" + n;
      index = d ? "(" + index + ") * d" + n + " + c" + n : "c0";
    }
    line("if (" + inside + ") continue;");
    line("const td_i64 at = " + index + ";");
    offsets(walk);
  };
  std::string arguments;
  for (size_t s = 0; s < slots(); ++s) {
    if (!slot_used(s)) continue;
    arguments += by_offset(s) ? ", q" + num(s) : ", w" + num(s) + "[u]";
    if (!by_offset(s)) line(element_type(s) + " w" + num(s) + "[" + num(u) + "];");
  }
  line("TD_UNROLLED");
  line("for (int u = 0; u < " + num(u) + "; ++u) {");
  place();
  for (size_t s = 0; s < slots(); ++s)
    if (slot_used(s) && is_load(s) && !by_offset(s)) line("w" + num(s) + "[u] = " + element(s, false) + ";");
  line("}");
  line("TD_UNROLLED");
  line("for (int u = 0; u < " + num(u) + "; ++u) {");
  place();
  line("one(at" + arguments + ");");
  for (const int32_t s : walk.stores) {
    const size_t slot = k_.loads.size() + at(s);
    line(element(slot, false) + " = w" + num(slot) + "[u];");
  }
  line("}");
  line("}");
  line("}");
}

}  // namespace tandem::jit
