#include "tandem/jit/plan.h"

namespace tandem::jit {

namespace {
constexpr size_t at(int32_t i) { return static_cast<size_t>(i); }

std::string to_string(const Address& a) {
  switch (a.base) {
    case Base::none:
      return "-";
    case Base::arena:
      return "arena+" + std::to_string(a.offset);
    case Base::constant:
      return "constant+" + std::to_string(a.offset);
    case Base::input:
    case Base::output:
      break;
  }
  std::string text = (a.base == Base::input ? "in" : "out") + std::to_string(a.index);
  return a.offset == 0 ? text : text + "+" + std::to_string(a.offset);
}
}  // namespace

std::string to_string(const Plan& plan) {
  std::string text;
  for (size_t i = 0; i < plan.entries.size(); ++i) {
    const Entry& e = plan.entries[i];
    text += std::to_string(i) + ": ";
    const auto list = [&](const Address* first, size_t n) {
      for (size_t k = 0; k < n; ++k) text += (k ? ", " : "") + to_string(first[k]);
    };
    static constexpr const char* kNames[] = {"pointwise", "row", "column"};
    const auto kernel = [&](int32_t index) {
      return std::string(kNames[static_cast<int>(plan.kernels[at(index)].kind)]) + " kernel " +
             std::to_string(index) + " ";
    };
    const auto one_call = [&](const Kernel& k, const KernelCall& call) {
      const size_t rank = static_cast<size_t>(k.kept_rank + k.reduced_rank);
      text += "   (";
      for (size_t d = 0; d < rank; ++d)
        text += (d == 0                                  ? ""
                 : d == static_cast<size_t>(k.kept_rank) ? " | "
                                                         : ", ") +
                std::to_string(plan.words[at(call.dims) + d]);
      text += ") loads ";
      const auto buffers = [&](const auto& accesses) {
        for (size_t i = 0; i < accesses.size(); ++i)
          text += (i ? ", " : "") + to_string(plan.buffers[at(call.buffers + accesses[i].buffer)]);
      };
      buffers(k.loads);
      text += " stores ";
      buffers(k.stores);
      if (!k.across.empty()) text += " across rows ";
      buffers(k.across);
      text += "\n";
    };
    switch (e.kind) {
      case EntryKind::kernel:
        text += kernel(e.index) + e.name + "\n";
        for (int32_t c = e.first; c < e.first + e.count; ++c)
          one_call(plan.kernels[at(e.index)], plan.calls[at(c)]);
        break;
      case EntryKind::product: {
        const ProductCallPlan& c = plan.products[at(e.index)];
        const auto& s = c.shape.call;
        text += "product " + e.name + " (" + std::to_string(s.batch) + ", " + std::to_string(s.m) + ", " +
                std::to_string(s.n) + ", " + std::to_string(s.k) + ") by " + ops::name(c.shape.provider) +
                " ";
        list(&c.a, 1);
        text += ", ";
        list(&c.b, 1);
        text += ", ";
        list(&c.bias, 1);
        text += " -> ";
        list(&c.c, 1);
        text += "\n";
        for (int32_t t = e.first; t < e.first + e.count; ++t) {
          const Tail& tail = plan.tails[at(t)];
          text += "   then by rows " + kernel(tail.kernel) + plan.kernels[at(tail.kernel)].name + "\n";
          one_call(plan.kernels[at(tail.kernel)], plan.calls[at(tail.call)]);
        }
        break;
      }
      case EntryKind::native: {
        const NativeCallPlan& c = plan.natives[at(e.index)];
        text += "native " + e.name + " ";
        list(c.in.data(), c.in.size());
        text += " -> ";
        list(c.out.data(), c.out.size());
        text += "\n";
        break;
      }
    }
    for (const Join& join : plan.joins_of(e)) {
      text += std::string("   then ") + (e.chain ? "in the same block " : "over blocks of rows ") +
              kernel(join.kernel) + plan.kernels[at(join.kernel)].name + "\n";
      one_call(plan.kernels[at(join.kernel)], plan.calls[at(join.call)]);
    }
  }
  return text;
}

}  // namespace tandem::jit
