// Both kernels' spaces are read as rows by columns: the kept and then the reduced dimensions of the host, the
// reduced and then the kept ones of the column kernel. Their dimensions are cut until they agree. Then the
// column kernel's walk is appended to the host's scalar graph: a value that the host stores there is its
// expression, other operands are loads. The blocks' results join in order: as the identity changes no such
// result, a column kernel over the blocks does that, which has them in one block.
#include "tandem/jit/across_walks.h"

#include <algorithm>

#include "tandem/core/error.h"
#include "tandem/jit/plan.h"

namespace tandem::jit {

using ops::S;
using ops::ScalarNode;
using ops::ScalarOp;

namespace {

constexpr size_t at(int64_t i) { return static_cast<size_t>(i); }
constexpr int64_t kBlockResults = 64 * 1024;  // bytes, of a host: they stay in the caches beside the rows
constexpr size_t kMostNodes = 512, kMostAccesses = 48;
constexpr int64_t kAlignment = 64;

int64_t product(const std::vector<int64_t>& dims) {
  int64_t n = 1;
  for (const int64_t d : dims) n *= d;
  return n;
}

/// An access with its strides along common dimensions.
struct Walked {
  Slot slot;
  std::vector<int64_t> strides;
};

/// A kernel's accesses, loads then stores, over dimensions in the order of rows by columns.
struct Space {
  std::vector<int64_t> dims;
  std::vector<Walked> accesses;
};

Space space_of(const LoweredKernel& k) {
  const bool column = k.kernel.kind == KernelKind::column;
  const size_t rank = k.dims.size(), first = column ? at(k.kernel.kept_rank) : 0;
  Space s;
  for (size_t d = 0; d < rank; ++d) s.dims.push_back(k.dims[(first + d) % rank]);
  for (size_t a = 0; a < k.slots.size(); ++a) {
    Walked w{k.slots[a], {}};
    for (size_t d = 0; d < rank; ++d) w.strides.push_back(k.strides[a * rank + (first + d) % rank]);
    s.accesses.push_back(std::move(w));
  }
  return s;
}

/// The products of the dimensions from each on.
void collect_cuts(const std::vector<int64_t>& dims, std::vector<int64_t>& cuts) {
  int64_t below = 1;
  for (size_t d = dims.size(); d-- > 0;) {
    cuts.push_back(below);
    below *= dims[d];
  }
}

/// Cuts the dimensions so that one begins at each of `cuts` (descending, each a multiple of the next).
void refine(Space& s, const std::vector<int64_t>& cuts, int64_t all) {
  std::vector<int64_t> dims;
  for (size_t c = 0; c < cuts.size(); ++c) dims.push_back((c == 0 ? all : cuts[c - 1]) / cuts[c]);
  for (Walked& w : s.accesses) {
    std::vector<int64_t> strides(cuts.size(), 0);
    int64_t below = 1;
    for (size_t d = s.dims.size(); d-- > 0; below *= s.dims[d])
      for (size_t c = 0; c < cuts.size(); ++c)
        if (cuts[c] >= below && cuts[c] < below * s.dims[d]) strides[c] = w.strides[d] * (cuts[c] / below);
    w.strides = std::move(strides);
  }
  s.dims = std::move(dims);
}

int64_t bytes_of(const std::vector<int64_t>& dims, const int64_t* strides, DType type) {
  int64_t n = itemsize(type);
  for (size_t d = 0; d < dims.size(); ++d)
    if (strides[d] != 0) n *= dims[d];
  return n;
}

void number_buffers(LoweredKernel& l) {
  Kernel& k = l.kernel;
  k.buffers = 0;
  for (size_t i = 0; i < std::min(k.loads.size(), l.slots.size()); ++i) k.loads[i].buffer = k.buffers++;
  for (Store& s : k.stores) s.buffer = k.buffers++;
  for (Across& c : k.across) c.buffer = k.buffers++;
}

/// The nodes on which `roots` depend; a reduction's result on nothing.
std::vector<char> needed(const Kernel& k, const std::vector<int32_t>& roots) {
  std::vector<char> seen(at(k.scalars.size()), 0);
  for (const int32_t r : roots) seen[at(r)] = 1;
  for (int32_t i = k.scalars.size() - 1; i >= 0; --i)
    if (seen[at(i)]) for_inputs(k, i, [&](int32_t in) { seen[at(in)] = 1; });
  return seen;
}

int64_t number(LoweredKernel& host, int32_t value) {
  const auto it = std::find(host.numbers.begin(), host.numbers.end(), value);
  if (it != host.numbers.end()) return it - host.numbers.begin();
  host.numbers.push_back(value);
  ++host.kernel.numbers;
  return static_cast<int64_t>(host.numbers.size()) - 1;
}

/// An operand of the column kernel as a node of the host's. What the host makes must be read where it makes
/// it.
bool operand(const Load& from, bool wanted, const ScalarNode& n, const Walked& access, LoweredKernel& host,
             std::vector<Walked>& loads, std::vector<Walked>& stores, S& made, bool& shared) {
  const bool of_column = from.row_level;
  Kernel& k = host.kernel;
  const auto same = [&](const Walked& w) {
    return w.slot.value == access.slot.value && w.slot.offset == access.slot.offset &&
           w.strides == access.strides;
  };
  for (size_t s = 0; s < stores.size(); ++s) {
    if (stores[s].slot.value != access.slot.value) continue;
    if (of_column || !wanted || !same(stores[s])) return false;
    shared = true;
    made = {&k.scalars, k.stores[s].value};
    return true;
  }
  if (!wanted) return true;
  const auto it = std::find_if(loads.begin(), loads.end(), same);
  const auto slot = it - loads.begin();
  if (it == loads.end()) {
    Load l{};
    l.dtype = n.type;
    l.large = from.large;
    k.loads.push_back(l);
    loads.push_back(access);
  } else {
    shared = shared || !of_column;
  }
  made = k.scalars.node(ScalarOp::load, n.type, {}, {}, {}, slot);
  return true;
}

/// Appends what the column kernel computes of each element. False if they cannot go together. `shared`:
/// whether it reads what the host reads or stores.
bool append_walk(const LoweredKernel& u, const Space& space, LoweredKernel& host, std::vector<Walked>& loads,
                 std::vector<Walked>& stores, bool& shared) {
  Kernel& k = host.kernel;
  std::vector<int32_t> roots;
  for (const Reduction& r : u.kernel.reductions) roots.push_back(r.input);
  for (const Store& s : u.kernel.stores)
    if (!s.row_level) roots.push_back(s.value);
  const std::vector<char> wanted = needed(u.kernel, roots);
  std::vector<S> made(wanted.size());
  for (int32_t i = 0; i < u.kernel.scalars.size(); ++i) {
    const ScalarNode& n = u.kernel.scalars[i];
    if (n.op == ScalarOp::load &&
        !operand(u.kernel.loads[at(n.bits)], wanted[at(i)] != 0, n, space.accesses[at(n.bits)], host, loads,
                 stores, made[at(i)], shared))
      return false;
    if (!wanted[at(i)] || n.op == ScalarOp::load) continue;
    int64_t bits = n.bits;
    if (n.op == ScalarOp::number) bits = number(host, u.numbers[at(n.bits)]);
    S in[3];
    for (int j = 0; j < ops::arity(n.op); ++j) in[j] = made[at(n.in[j])];
    made[at(i)] = k.scalars.node(n.op, n.type, in[0], in[1], in[2], bits);
  }
  for (const Reduction& r : u.kernel.reductions) k.across.push_back({r.op, made[at(r.input)].id, 0});
  for (size_t s = 0; s < u.kernel.stores.size(); ++s) {
    Store store = u.kernel.stores[s];
    if (store.row_level) continue;
    store.value = made[at(store.value)].id;
    k.stores.push_back(store);
    stores.push_back(space.accesses[u.kernel.loads.size() + s]);
  }
  return true;
}

/// The host as a row kernel over these accesses; false if a row is not of one dimension.
bool write_down(const std::vector<int64_t>& dims, int64_t columns, std::vector<Walked>& loads,
                std::vector<Walked>& stores, LoweredKernel& l) {
  std::vector<Walked*> all;
  for (std::vector<Walked>* list : {&loads, &stores})
    for (Walked& w : *list) all.push_back(&w);
  std::vector<size_t> ends;  // the last of the dimensions that are walked as one
  size_t kept = 0;
  int64_t left = product(dims);
  bool row = false;
  for (size_t d = 0; d < dims.size(); ++d) {
    bool joins = !ends.empty() && row == (left <= columns);
    for (const Walked* w : all) joins = joins && w->strides[ends.back()] == w->strides[d] * dims[d];
    row = left <= columns;
    left /= dims[d];
    if (joins)
      ends.back() = d;
    else
      ends.push_back(d), kept += !row;
  }
  if (ends.size() != kept + 1 || kept == 0) return false;
  Kernel& k = l.kernel;
  l.dims.clear();
  for (size_t e = 0; e < ends.size(); ++e) {
    int64_t size = 1;
    for (size_t d = e == 0 ? 0 : ends[e - 1] + 1; d <= ends[e]; ++d) size *= dims[d];
    l.dims.push_back(size);
  }
  k.kind = KernelKind::row;
  k.kept_rank = static_cast<int>(kept);
  k.reduced_rank = 1;
  l.range = product(dims) / columns;
  l.work = columns;
  l.strides.clear();
  l.slots.clear();
  l.load_bytes.clear();
  l.bytes = l.bytes_stored = 0;
  const auto access = [&](const Walked& w, auto& of, DType type) {
    std::vector<int64_t> strides;
    for (const size_t e : ends) strides.push_back(w.strides[e]);
    of.inner = strides.back() == 0   ? Inner::constant
               : strides.back() == 1 ? Inner::contiguous
                                     : Inner::strided;
    of.row_level = strides.back() == 0;
    l.strides.insert(l.strides.end(), strides.begin(), strides.end());
    l.slots.push_back(w.slot);
    return bytes_of(l.dims, strides.data(), type);
  };
  for (size_t i = 0; i < loads.size(); ++i) {
    l.load_bytes.push_back(access(loads[i], k.loads[i], k.loads[i].dtype));
    l.bytes += l.load_bytes.back();
  }
  for (size_t i = 0; i < stores.size(); ++i)
    l.bytes_stored += access(stores[i], k.stores[i], k.stores[i].dtype);
  l.bytes += l.bytes_stored;
  number_buffers(l);
  return true;
}

/// What is left of the column kernel: it reduces the blocks' results, which lie behind those of the host's
/// others.
void make_joining(const LoweredKernel& u, MergedWalks& m) {
  LoweredKernel& l = m.joining;
  Kernel& k = l.kernel;
  const int64_t blocks = (u.work + kColumnBlock - 1) / kColumnBlock;
  k.name = u.kernel.name;
  k.kind = KernelKind::column;
  k.kept_rank = k.reduced_rank = 1;
  k.in_order = true;
  k.numbers = u.kernel.numbers;
  l.numbers = u.numbers;
  l.dims = {u.range, blocks};
  l.range = u.range;
  l.work = blocks;
  const size_t rank = u.dims.size();
  std::vector<int32_t> roots;
  for (const Store& s : u.kernel.stores)
    if (s.row_level) roots.push_back(s.value);
  const std::vector<char> wanted = needed(u.kernel, roots);
  const auto access = [&](size_t slot, DType type) {
    l.slots.push_back(u.slots[slot]);
    l.strides.insert(l.strides.end(), {u.strides[slot * rank], 0});
    const int64_t bytes = bytes_of(l.dims, &l.strides[l.strides.size() - 2], type);
    l.bytes += bytes;
    return bytes;
  };
  std::vector<int64_t> load_at(u.kernel.loads.size(), -1);
  for (int32_t i = 0; i < u.kernel.scalars.size(); ++i) {
    const ScalarNode& n = u.kernel.scalars[i];
    if (!wanted[at(i)] || n.op != ScalarOp::load || load_at[at(n.bits)] >= 0) continue;
    load_at[at(n.bits)] = static_cast<int64_t>(k.loads.size());
    k.loads.push_back(u.kernel.loads[at(n.bits)]);
    l.load_bytes.push_back(access(at(n.bits), n.type));
  }
  const size_t operands = k.loads.size();
  std::vector<S> results;
  std::vector<int64_t> strides_of_results;
  Kernel& host = m.host.kernel;
  const size_t first = host.across.size() - u.kernel.reductions.size();
  for (size_t r = 0; r < u.kernel.reductions.size(); ++r) {
    const Reduction& red = u.kernel.reductions[r];
    Load load{};
    load.dtype = red.type;
    load.inner = Inner::contiguous;
    results.push_back(
        k.scalars.node(ScalarOp::load, red.type, {}, {}, {}, static_cast<int64_t>(k.loads.size())));
    k.loads.push_back(load);
    strides_of_results.insert(strides_of_results.end(), {1, u.range});
    k.reductions.push_back({red.op, results.back().id, red.type});
    const int64_t bytes = blocks * u.range * itemsize(red.type);
    TANDEM_INTERNAL(host.scalars[host.across[first + r].input].type == red.type,
                    "a reduction in another type than its operand");
    m.host.partials.push_back(m.host.scratch);
    l.partials.push_back(m.host.scratch);
    m.host.scratch += (bytes + kAlignment - 1) / kAlignment * kAlignment;
    m.host.bytes += bytes;
    m.host.bytes_stored += bytes;
    l.bytes += bytes;
  }
  l.strides.insert(l.strides.end(), strides_of_results.begin(), strides_of_results.end());
  std::vector<S> made(wanted.size());
  for (int32_t i = 0; i < u.kernel.scalars.size(); ++i) {
    const ScalarNode& n = u.kernel.scalars[i];
    if (!wanted[at(i)]) continue;
    S in[3];
    for (int j = 0; j < ops::arity(n.op); ++j) in[j] = made[at(n.in[j])];
    made[at(i)] = k.scalars.node(n.op, n.type, in[0], in[1], in[2],
                                 n.op == ScalarOp::load ? load_at[at(n.bits)] : n.bits);
  }
  for (size_t s = 0; s < u.kernel.stores.size(); ++s) {
    if (!u.kernel.stores[s].row_level) continue;
    Store store = u.kernel.stores[s];
    store.value = made[at(store.value)].id;
    k.stores.push_back(store);
    l.bytes_stored += access(u.kernel.loads.size() + s, store.dtype);
  }
  k.buffers = 0;
  for (size_t i = 0; i < operands; ++i) k.loads[i].buffer = k.buffers++;
  for (Store& s : k.stores) s.buffer = k.buffers++;
  for (size_t i = operands; i < k.loads.size(); ++i) k.loads[i].buffer = k.buffers++;
}

/// `shared`: whether the column kernel reads what the host reads or stores.
bool merge(const LoweredKernel& h, const LoweredKernel& u, MergedWalks& m, bool& shared) {
  const int64_t rows = u.work, columns = u.range, all = h.range * h.work;
  if (all != rows * columns || (h.kernel.kind == KernelKind::row && h.work != columns)) return false;
  Space mine = space_of(h), more = space_of(u);
  std::vector<int64_t> cuts = {columns};
  collect_cuts(mine.dims, cuts);
  collect_cuts(more.dims, cuts);
  std::sort(cuts.rbegin(), cuts.rend());
  cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
  for (size_t c = 0; c < cuts.size(); ++c)
    if ((c == 0 ? all : cuts[c - 1]) % cuts[c] != 0) return false;
  refine(mine, cuts, all);
  refine(more, cuts, all);

  m.host = h;
  Kernel& k = m.host.kernel;
  std::vector<Walked> loads(mine.accesses.begin(), mine.accesses.begin() + std::ptrdiff_t(k.loads.size()));
  std::vector<Walked> stores(mine.accesses.begin() + std::ptrdiff_t(k.loads.size()), mine.accesses.end());
  if (!append_walk(u, more, m.host, loads, stores, shared)) return false;
  if (loads.size() + stores.size() > kMostAccesses || at(k.scalars.size()) > kMostNodes) return false;
  int64_t results = 0;
  for (const Across& c : k.across) results += columns * itemsize(k.scalars[c.input].type);
  if (results > kBlockResults || !write_down(mine.dims, columns, loads, stores, m.host)) return false;
  if (k.buffers > kMaxKernelBuffers || k.numbers > kMaxKernelNumbers) return false;
  make_joining(u, m);
  return true;
}

}  // namespace

bool merge_walks(const LoweredKernel& h, const LoweredKernel& u, MergedWalks& m) {
  bool shared = false;
  return merge(h, u, m, shared) && shared;
}

bool walk_by_rows(const LoweredKernel& u, MergedWalks& m) {
  LoweredKernel nothing;
  nothing.kernel.name = u.kernel.name;
  nothing.kernel.kept_rank = 1;
  nothing.range = u.range * u.work;
  nothing.work = 1;
  nothing.dims = {nothing.range};
  bool shared = false;
  return merge(nothing, u, m, shared);
}

void drop_store(LoweredKernel& l, size_t store) {
  const size_t slot = l.kernel.loads.size() + store, rank = l.dims.size();
  const int64_t bytes = bytes_of(l.dims, &l.strides[slot * rank], l.kernel.stores[store].dtype);
  l.bytes -= bytes;
  l.bytes_stored -= bytes;
  const auto nth = [](auto& list, size_t i) { return list.begin() + static_cast<std::ptrdiff_t>(i); };
  l.kernel.stores.erase(nth(l.kernel.stores, store));
  l.slots.erase(nth(l.slots, slot));
  l.strides.erase(nth(l.strides, slot * rank), nth(l.strides, (slot + 1) * rank));
  number_buffers(l);
}

}  // namespace tandem::jit
