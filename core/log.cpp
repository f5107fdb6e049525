#include "tandem/core/log.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <memory>
#include <string>

#include "tandem/core/env.h"
#include "tandem/core/error.h"

#ifdef TANDEM_HAVE_SPDLOG
#include <spdlog/logger.h>
#include <spdlog/sinks/stdout_sinks.h>
#endif

namespace tandem::core {

namespace {

constexpr int kAreas = 4;
constexpr int kLevels = 4;
constexpr const char* kAreaNames[kAreas] = {"core", "jit", "trace", "data"};
constexpr const char* kLevelNames[kLevels + 1] = {"debug", "info", "warn", "error", "off"};

using Levels = std::array<int, kAreas>;
using Sink = void (*)(LogArea, LogLevel, const std::string&);

struct State {
  std::array<std::atomic<int>, kAreas> least;  // lowest level that is written; kLevels for none
  std::atomic<Sink> sink{nullptr};
#ifdef TANDEM_HAVE_SPDLOG
  std::array<std::unique_ptr<spdlog::logger>, kAreas> loggers;
#endif
  State();
  void apply(const Levels& levels) {
    for (int area = 0; area < kAreas; ++area) least[area].store(levels[area], std::memory_order_relaxed);
  }
};

int find(const char* const* names, int count, const std::string& name) {
  for (int i = 0; i < count; ++i)
    if (name == names[i]) return i;
  return -1;
}

/// "jit:debug,trace:info"; a level without an area is that of all areas, and is overruled by those with one.
Levels parse(const std::string& specification) {
  Levels levels;
  levels.fill(static_cast<int>(LogLevel::warn));
  for (const bool with_area : {false, true}) {
    for (size_t at = 0; at < specification.size();) {
      const size_t end = std::min(specification.find(',', at), specification.size());
      const std::string part = specification.substr(at, end - at);
      at = end + 1;
      const size_t colon = part.find(':');
      const bool has_area = colon != std::string::npos;
      const int level = find(kLevelNames, kLevels + 1, has_area ? part.substr(colon + 1) : part);
      const int area = has_area ? find(kAreaNames, kAreas, part.substr(0, colon)) : 0;
      if (level < 0 || area < 0)
        fail("log: \"" + part +
             "\" is not known; expected area:level of core, jit, trace, data and debug, info, " +
             "warn, error, off");
      if (has_area != with_area) continue;
      if (has_area)
        levels[area] = level;
      else
        levels.fill(level);
    }
  }
  return levels;
}

State::State() {
  apply(parse(""));
#ifdef TANDEM_HAVE_SPDLOG
  // Loggers of our own that no registry knows: a program's use of spdlog and ours do not meet.
  auto sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  for (int area = 0; area < kAreas; ++area) {
    loggers[area] = std::make_unique<spdlog::logger>(std::string("tandem/") + kAreaNames[area], sink);
    loggers[area]->set_level(spdlog::level::trace);
    loggers[area]->set_pattern("[%H:%M:%S.%e] [%n] [%l] %v");
  }
#endif
  const std::string& specification = environment().log;
  try {
    apply(parse(specification));
  } catch (const Error& e) {
    std::fprintf(stderr, "tandem: TANDEM_LOG=%s is ignored; %s\n", specification.c_str(), e.what());
  }
}

State& state() {
  static State& kState = *new State;  // outlives static destructors
  return kState;
}

#ifdef TANDEM_HAVE_SPDLOG
void write(LogArea area, LogLevel level, const std::string& message) {
  constexpr spdlog::level::level_enum kTheirs[kLevels] = {spdlog::level::debug, spdlog::level::info,
                                                          spdlog::level::warn, spdlog::level::err};
  spdlog::logger& logger = *state().loggers[static_cast<int>(area)];
  logger.log(kTheirs[static_cast<int>(level)], spdlog::string_view_t(message.data(), message.size()));
  logger.flush();
}
#else
void write(LogArea area, LogLevel level, const std::string& message) {
  std::fprintf(stderr, "[tandem/%s] [%s] %s\n", kAreaNames[static_cast<int>(area)],
               kLevelNames[static_cast<int>(level)], message.c_str());
}
#endif

}  // namespace

bool log_enabled(LogArea area, LogLevel level) {
  return static_cast<int>(level) >= state().least[static_cast<int>(area)].load(std::memory_order_relaxed);
}

void log(LogArea area, LogLevel level, const std::string& message) {
  if (!log_enabled(area, level)) return;
  if (const Sink sink = state().sink.load(std::memory_order_acquire)) return sink(area, level, message);
  write(area, level, message);
}

void set_log_sink(void (*sink)(LogArea, LogLevel, const std::string& message)) {
  state().sink.store(sink, std::memory_order_release);
}

void set_log(const std::string& specification, Location where) try {
  state().apply(parse(specification));
} catch (const Error& e) {
  throw Error(e.what(), where);
}

}  // namespace tandem::core
