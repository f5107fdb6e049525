// What tests ask of calls that must fail. Any thread.
#pragma once

#include <string>
#include <utility>

#include "tandem/core/error.h"

namespace tandem::test {

/// The text of the Error that `f` throws; "no error" if it throws none.
template <class F>
std::string message(F&& f) {
  try {
    std::forward<F>(f)();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

}  // namespace tandem::test
