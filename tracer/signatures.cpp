#include "tandem/tracer/signatures.h"

#include <algorithm>
#include <utility>

#include "tandem/core/log.h"
#include "tandem/jit/compiler.h"
#include "tandem/tracer/mechanisms.h"
#include "tandem/tracer/registry.h"
#include "tandem/tracer/slots.h"

namespace tandem::tracer {

// Compared field by field without building an ArgumentType: this runs on every call.
bool argument_matches(const ArgumentType& a, std::span<const Tensor> arguments, size_t i) {
  const TensorImpl* t = arguments[i].impl();
  if (!(a.sizes == t->sizes) && on(Mechanism::argument_sizes)) return false;
  if ((a.dtype != t->dtype || !(a.device == t->device) || !(a.strides == t->strides) ||
       a.requires_grad != t->has(core::kRequiresGrad) || a.leaf != (t->grad_fn == nullptr)) &&
      on(Mechanism::argument_types))
    return false;
  for (int k = 0; k < static_cast<int>(i) && on(Mechanism::argument_aliasing); ++k) {
    const auto n = static_cast<size_t>(k);
    const TensorImpl* other = arguments[n].impl();
    if ((other == t) != (a.same_as == k) && !(other == t && a.same_as >= 0 && a.same_as < k)) return false;
    if ((other->storage == t->storage) != (a.shares == k) &&
        !(other->storage == t->storage && a.shares >= 0 && a.shares < k))
      return false;
  }
  return true;
}

namespace {

/// Whether the CPU's kernels are likely to be wanted.
bool on_cpu(std::span<const Tensor> arguments) {
  const auto cpu = [](const Device& d) { return d.type == DeviceType::cpu; };
  return arguments.empty() ? cpu(default_device())
                           : std::any_of(arguments.begin(), arguments.end(),
                                         [&](const Tensor& t) { return cpu(t.impl()->device); });
}

// The types of arguments as a number; which of them share memory is left to the comparison.
uint64_t hash_of(std::span<const Tensor> arguments) {
  uint64_t h = arguments.size();
  const auto mix = [&h](uint64_t v) { h = (h ^ v) * 0x9E3779B97F4A7C15u, h ^= h >> 29; };
  for (const Tensor& a : arguments) {
    const TensorImpl* t = a.impl();
    mix(static_cast<uint64_t>(t->dtype) << 8 | static_cast<uint64_t>(t->sizes.rank()));
    if (!on(Mechanism::argument_sizes)) continue;
    for (const int64_t size : t->sizes) mix(static_cast<uint64_t>(size));
  }
  return on(Mechanism::argument_types) ? h : 0;
}

}  // namespace

bool Trace::aliases_slot(const Record& r, std::span<const Tensor> arguments) const {
  for (const Tensor& a : arguments)
    if (const TensorImpl* t = a.impl();
        t->storage->slot && on(Mechanism::captured_aliasing) && r.slot_cells.contains(t->storage.get()))
      return true;
  return false;
}

bool Trace::fits(const Recorded& e, std::span<const Tensor> arguments, uint64_t modes_now) const {
  const Record& r = e.record;
  if (r.key.size() != arguments.size() || (r.modes_at_entry != modes_now && on(Mechanism::entry_modes)))
    return false;
  for (size_t i = 0; i < arguments.size(); ++i)
    if (!argument_matches(r.key[i], arguments, i)) return false;
  return true;
}

Recorded* Trace::take_latest(std::span<const Tensor> arguments) {
  if (!latest || !fits(*latest, arguments, modes_word(modes())) || is_running(latest->record) ||
      latest->record.aliased || latest->record.told || aliases_slot(latest->record, arguments)) [[unlikely]]
    return nullptr;
  latest->last_call = counters.calls;
  start_running(latest->record);
  return latest;
}

[[gnu::noinline]] Recorded* Trace::look_up(std::span<const Tensor> arguments, const ArgumentNames& names) {
  Found found;
  {
    const std::lock_guard lock(registry_mutex);
    found = find(arguments);
  }
  try {
    tell(found, arguments, names);
  } catch (...) {
    if (found.entry) stop_running(found.entry->record);
    throw;
  }
  return found.entry;
}

Recorded* Trace::matching(std::span<const Tensor> arguments, uint64_t modes_now, uint64_t* hash,
                          bool* known) const {
  if (latest && fits(*latest, arguments, modes_now)) {
    if (!is_running(latest->record)) [[likely]]
      return latest;
    *known = true;
  }
  *hash = hash_of(arguments);
  const auto [begin, end] = by_hash.equal_range(*hash);
  for (auto it = begin; it != end; ++it) {
    if (!fits(*it->second, arguments, modes_now)) continue;
    *known = true;
    if (!is_running(it->second->record)) return it->second;
  }
  return nullptr;
}

void Trace::tell(const Found& found, std::span<const Tensor> arguments, const ArgumentNames& names) {
  if (found.aliased) {
    const std::string what = "an argument shares memory with a tensor that the function captured";
    if (options.require_full_capture)
      fail(options.name + ": require_full_capture: " + what + ", so that the call would run eagerly",
           made_at);
    if (!warned_alias_.exchange(true))
      core::log(core::LogArea::trace, core::LogLevel::warn,
                options.name + ": " + what + "; such calls run eagerly");
  }
  if (!found.refused && found.known.empty()) return;
  Signature now;
  now.modes = modes_word(modes());
  for (size_t i = 0; i < arguments.size(); ++i) now.key.push_back(argument_type(arguments, i));
  std::string text = "the first call";
  size_t fewest = SIZE_MAX;
  for (const Signature& known : found.known) {
    const auto [n, what] = compare_signatures(known, now, names, fewest);
    if (n < fewest) fewest = n, text = what;
  }
  if (found.refused)
    fail(options.name + ": max_traces = " + std::to_string(options.max_traces) +
             " allows no new signature of arguments: " + text,
         made_at);
  text = "a new signature of arguments (" + std::to_string(found.signatures) + " are known): " + text;
  counters.misses.add(text);
  if (core::log_enabled(core::LogArea::trace, core::LogLevel::debug))
    core::log(core::LogArea::trace, core::LogLevel::debug, options.name + ": " + text);
}

std::unique_ptr<Recorded> Trace::take_out(Recorded& e) {
  bytes -= e.bytes;
  if (&e == latest) latest = nullptr;
  const auto [begin, end] = by_hash.equal_range(e.hash);
  by_hash.erase(std::find_if(begin, end, [&](const auto& known) { return known.second == &e; }));
  const auto at = std::find_if(entries.begin(), entries.end(), [&](const auto& o) { return o.get() == &e; });
  std::unique_ptr<Recorded> out = std::move(*at);
  entries.erase(at);
  return out;
}

void Trace::finished(Recorded& called, bool settled) {
  called.settled |= settled;
  const bool grown = called.grown != called.growth() && on(Mechanism::byte_bound);
  if (!grown && !called.record.told && !called.record.keeps_anew) [[likely]]
    return stop_running(called.record);
  std::vector<std::unique_ptr<Recorded>> old;  // dropped without the lock, as these are
  Forgotten dropped;
  bool first = false;
  {
    const std::lock_guard lock(registry_mutex);
    const auto forget = [&](Recorded& e) {
      old.push_back(take_out(e));
      first |= forgotten++ == 0;
    };
    dropped = forget_foreign(called.record);
    if (std::exchange(called.record.keeps_anew, false)) {
      for (const auto& e : entries)
        if (e.get() != &called && !is_running(e->record)) let_go_of_kept(e->record, dropped.kept);
    }
    if (grown) {
      called.settled = settled;
      called.grown = called.growth();
      bytes -= called.bytes;
      called.bytes = record_bytes(called.record);
      bytes += called.bytes;
      while (bytes > options.max_bytes && entries.size() > 1) {
        Recorded* oldest = nullptr;
        for (const auto& e : entries)
          if (e.get() != &called && !is_running(e->record) && (!oldest || e->last_call < oldest->last_call))
            oldest = e.get();
        if (!oldest) break;
        forget(*oldest);
      }
      // One signature with many branches begins anew; a single path stays, however long it is.
      if (bytes > options.max_bytes && entries.size() == 1 && called.record.branches.size() > 1)
        forget(called);
    }
    stop_running(called.record);
  }
  if (first)
    core::log(core::LogArea::trace, core::LogLevel::info,
              options.name + ": signatures that were not used for long are forgotten (max_bytes)");
}

Trace::Found Trace::find(std::span<const Tensor> arguments) {
  const uint64_t modes_word_now = modes_word(modes());
  Found found;
  uint64_t hash = 0;
  bool known = false;
  Recorded* e = matching(arguments, modes_word_now, &hash, &known);
  const bool twin = known && !e;
  const auto take = [&](Recorded* entry) {
    latest = found.entry = entry;
    entry->last_call = counters.calls;
    start_running(entry->record);
  };
  if (e && aliases_slot(e->record, arguments)) {
    found.aliased = true;
    ++counters.eager_calls;
    return found;
  }
  if (e && !e->record.aliased) [[likely]] {
    take(e);
    if (!e->record.foreign.empty()) [[unlikely]]
      found.dropped = forget_foreign(e->record);
    return found;
  }
  if (e) {
    // What was recorded takes an argument and a captured tensor for one memory, and now they are two.
    hash = e->hash;
    found.wrong = take_out(*e);
  } else if (!known) {
    found.refused = counters.traces >= options.max_traces;
    // The latest are the likeliest to be near; a trace may know thousands.
    for (size_t i = entries.size() - std::min(entries.size(), kExplained); i < entries.size(); ++i)
      found.known.push_back({entries[i]->record.key, entries[i]->record.modes_at_entry});
    found.signatures = entries.size();
    if (found.refused) return found;
  }
  auto entry = std::make_unique<Recorded>(counters);
  entry->hash = hash;
  Record& r = entry->record;
  r.twin = twin;
  r.modes_at_entry = modes_word_now;
  r.compile = options.compile;
  if (r.compile && on_cpu(arguments)) jit::HostCompiler::expect();
  r.options = &options;
  for (size_t i = 0; i < arguments.size(); ++i) {
    r.key.push_back(argument_type(arguments, i));
    const ArgumentType& a = r.key.back();
    if (a.same_as >= 0) {
      r.arguments.push_back(r.arguments[static_cast<size_t>(a.same_as)]);
      continue;
    }
    uint32_t cell = 0;
    if (a.shares >= 0) {
      cell = r.infos[r.arguments[static_cast<size_t>(a.shares)]].cell;
      ++r.cells[cell].members;
    } else {
      cell = static_cast<uint32_t>(r.cells.size());
      r.cells.push_back({.root = static_cast<uint32_t>(r.handles.size()), .members = 1, .external = true});
    }
    r.arguments.push_back(static_cast<uint32_t>(r.handles.size()));
    r.handles.push_back(arguments[i].impl());
    r.slot_memory.push_back(nullptr);
    r.infos.push_back(info_of(arguments[i].impl(), HandleInfo::Kind::argument, cell));
  }
  entries.push_back(std::move(entry));
  by_hash.emplace(hash, entries.back().get());
  take(entries.back().get());
  return found;
}

}  // namespace tandem::tracer
