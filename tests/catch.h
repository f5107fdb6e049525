// The one way to Catch2: version 2 (Debian 12) and version 3 (Ubuntu 24.04) look alike through this header.
// Tests use what both have: TEST_CASE, SECTION, CHECK, REQUIRE, their _THROWS_AS and _THROWS_WITH forms,
// Approx, Contains, GENERATE, CAPTURE.
#pragma once

#if __has_include(<catch2/catch_all.hpp>)
#include <catch2/catch_all.hpp>
using Catch::Approx;
/// Version 2's name for the matcher "has this substring".
inline auto Contains(const std::string& part) { return Catch::Matchers::ContainsSubstring(part); }
#else
#include <catch2/catch.hpp>
using Catch::Matchers::Contains;
#endif
