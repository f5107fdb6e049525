// Events go into one list under a lock, which costs about as much as reading the clock; rows are summed as
// they come, so that the table is whole even when the file's bound is reached.
#include "tandem/core/profile.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <map>
#include <mutex>
#include <ostream>
#include <tuple>

#include "tandem/core/error.h"
#include "tandem/core/io/file.h"
#include "tandem/core/log.h"

namespace tandem {

namespace core {

constinit std::atomic<int64_t> untimed_elements{kUntimedElements};

namespace {

constexpr size_t kMostEvents = size_t{1} << 20;  // in the file

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

struct Event {
  int32_t row;
  int32_t thread;
  int64_t start, duration, bytes;
};

struct Session {
  std::mutex mutex;
  bool running = false;
  uint32_t number = 0;
  int64_t start = 0;
  int32_t threads = 0;
  std::map<std::tuple<std::string, std::string, std::string, int>, int32_t, std::less<>> ids;
  std::vector<ProfileRow> rows;
  std::vector<Event> events;
  int64_t count = 0;
};
Session& session() {
  static Session* s = new Session;  // outlives threads
  return *s;
}

struct ThreadState {
  uint32_t session = 0;  // for which `id` holds
  int32_t id = 0;
  int whole = 0;  // spans alive that are timed as a whole
};
ThreadState& thread_state() {
  thread_local ThreadState s;
  return s;
}

void append_json(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char hex[8];
      std::snprintf(hex, sizeof hex, "\\u%04x", static_cast<unsigned>(c));
      out += hex;
    } else {
      out += c;
    }
  }
  out += '"';
}

void append_us(std::string& out, int64_t ns) {
  char text[48];
  std::snprintf(text, sizeof text, "%lld.%03d", static_cast<long long>(ns / 1000),
                static_cast<int>(ns % 1000));
  out += text;
}

/// The trace event format: complete events ("X") in microseconds.
std::string chrome_trace(const Session& s) {
  std::string out = "{\"displayTimeUnit\": \"ns\", \"traceEvents\": [\n";
  out += R"({"name": "process_name", "ph": "M", "pid": 1, "tid": 0, "ts": 0, "args": {"name": "tandem"}})";
  for (const Event& e : s.events) {
    const ProfileRow& row = s.rows[static_cast<size_t>(e.row)];
    out += ",\n{\"name\": ";
    append_json(out, row.name);
    out += ", \"cat\": ";
    append_json(out, row.kind);
    out += ", \"ph\": \"X\", \"ts\": ";
    append_us(out, e.start - s.start);
    out += ", \"dur\": ";
    append_us(out, e.duration);
    out += ", \"pid\": 1, \"tid\": " + std::to_string(e.thread) + ", \"args\": {\"where\": ";
    append_json(out, to_string(row.where));
    if (e.bytes) out += ", \"bytes\": " + std::to_string(e.bytes);
    out += "}}";
  }
  return out + "\n]}\n";
}

}  // namespace

void ProfileSpan::start(const char* kind, std::string_view name, Location where, int64_t bytes, bool whole) {
  ThreadState& t = thread_state();
  if (t.whole) return;
  kind_ = kind;
  name_ = name;
  where_ = where;
  bytes_ = bytes;
  whole_ = whole;
  t.whole += whole;
  {
    Session& s = session();
    const std::lock_guard lock(s.mutex);
    session_ = s.number;
  }
  start_ = now_ns();
}

void ProfileSpan::stop() noexcept {
  const int64_t end = now_ns();
  ThreadState& t = thread_state();
  t.whole -= whole_;
  Session& s = session();
  const std::lock_guard lock(s.mutex);
  if (!s.running || s.number != session_) return;  // it began in another profile, or outlived it
  try {
    if (t.session != s.number) {
      t.session = s.number;
      t.id = ++s.threads;
    }
    const auto [it, fresh] = s.ids.try_emplace({kind_, std::string(name_), where_.file, where_.line},
                                               static_cast<int32_t>(s.rows.size()));
    if (fresh) s.rows.push_back({.name = std::string(name_), .kind = kind_, .where = where_});
    ProfileRow& row = s.rows[static_cast<size_t>(it->second)];
    ++row.calls;
    ++s.count;
    row.total_us += static_cast<double>(end - start_) / 1000;
    row.bytes += bytes_;
    if (s.events.size() < kMostEvents) s.events.push_back({it->second, t.id, start_, end - start_, bytes_});
  } catch (...) {  // no memory for an event: the program goes on
  }
}

}  // namespace core

namespace {

void write(const std::string& path, const std::string& text, Location where) try {
  if (!path.empty()) core::write_file_atomic(path, text);
} catch (const Error& e) {
  fail_again(e, "profile", where);
}

void sum_up(ProfileTable& table) {
  for (const ProfileRow& r : table.rows)
    if (r.kind != "call") table.total_us += r.total_us;
  for (ProfileRow& r : table.rows)
    if (r.kind != "call" && table.total_us > 0) r.share = r.total_us / table.total_us;
  std::stable_sort(table.rows.begin(), table.rows.end(), [](const ProfileRow& a, const ProfileRow& b) {
    if ((a.kind == "call") != (b.kind == "call")) return a.kind == "call";
    return a.total_us > b.total_us;
  });
}

}  // namespace

Profile::Profile(std::string path, Location where) : path_(std::move(path)), where_(where) {
  core::Session& s = core::session();
  {
    const std::lock_guard lock(s.mutex);
    if (s.running) fail("profile: another profile is running; end it first", where_);
    s.running = true;
  }
  try {
    write(path_, "{\"traceEvents\": []}\n", where_);
  } catch (...) {
    const std::lock_guard lock(s.mutex);
    s.running = false;
    throw;
  }
  {
    const std::lock_guard lock(s.mutex);
    ++s.number;
    s.threads = 0;
    s.count = 0;
    s.ids.clear();
    s.rows.clear();
    s.events.clear();
    s.start = core::now_ns();
  }
  running_ = true;
  core::untimed_elements.store(-1, std::memory_order_relaxed);
}

ProfileTable Profile::finish() {
  if (!running_) return table_;
  running_ = false;
  core::untimed_elements.store(core::kUntimedElements, std::memory_order_relaxed);
  core::Session& s = core::session();
  std::string text;
  {
    const std::lock_guard lock(s.mutex);
    s.running = false;
    table_.wall_us = static_cast<double>(core::now_ns() - s.start) / 1000;
    table_.rows = s.rows;
    table_.events = s.count;
    table_.unwritten = s.count - static_cast<int64_t>(s.events.size());
    if (!path_.empty()) text = core::chrome_trace(s);
    s.events = {};
  }
  sum_up(table_);
  write(path_, text, where_);
  return table_;
}

Profile::~Profile() {
  if (!running_) return;
  try {
    const std::string text = to_string(finish());
    std::fputs(text.c_str(), stderr);
  } catch (const std::exception& e) {
    core::log(core::LogArea::core, core::LogLevel::error, std::string("profile: ") + e.what());
  }
}

std::string to_string(const ProfileTable& table) {
  char line[256];
  std::snprintf(line, sizeof line, "profile: %.3f ms timed in %.3f ms, %lld events\n", table.total_us / 1000,
                table.wall_us / 1000, static_cast<long long>(table.events));
  std::string out = line;
  std::snprintf(line, sizeof line, "%7s %12s %9s %11s  %-9s %-32s %s\n", "share", "total ms", "calls",
                "mean us", "kind", "name", "line");
  out += line;
  constexpr size_t kMostRows = 40, kWidth = 32;
  for (size_t i = 0; i < std::min(table.rows.size(), kMostRows); ++i) {
    const ProfileRow& r = table.rows[i];
    char share[16] = "";
    if (r.kind != "call") std::snprintf(share, sizeof share, "%.1f%%", 100 * r.share);
    const std::string name = r.name.size() <= kWidth ? r.name : r.name.substr(0, kWidth - 3) + "...";
    std::snprintf(line, sizeof line, "%7s %12.3f %9lld %11.3f  %-9s %-32s ", share, r.total_us / 1000,
                  static_cast<long long>(r.calls), r.total_us / static_cast<double>(r.calls), r.kind.c_str(),
                  name.c_str());
    out += line + to_string(r.where) + "\n";
  }
  if (table.rows.size() > kMostRows)
    out += "        and " + std::to_string(table.rows.size() - kMostRows) + " more\n";
  if (table.unwritten) out += "the file lacks the last " + std::to_string(table.unwritten) + " events\n";
  return out;
}

std::ostream& operator<<(std::ostream& out, const ProfileTable& table) { return out << to_string(table); }

}  // namespace tandem
