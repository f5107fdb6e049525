# Third-party libraries. Header-only ones are seen while Tandem itself compiles and never by its users: they stand in
# tandem_private_headers, whose include folders each library takes privately. A user of an installed Tandem needs zlib,
# threads and, where it was built with it, oneDNN.

set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

if(TANDEM_VENDOR)
  list(PREPEND CMAKE_PREFIX_PATH ${TANDEM_VENDOR})
  if(EXISTS ${TANDEM_VENDOR}/lib/libz.a)
    set(ZLIB_LIBRARY ${TANDEM_VENDOR}/lib/libz.a CACHE FILEPATH "")
    set(ZLIB_INCLUDE_DIR ${TANDEM_VENDOR}/include CACHE PATH "")
  endif()
endif()
find_package(ZLIB QUIET)
if(NOT ZLIB_FOUND)
  message(FATAL_ERROR "zlib is missing: run scripts/setup (Debian and Ubuntu: zlib1g-dev).")
endif()

find_path(TANDEM_JSON_INCLUDE_DIR nlohmann/json.hpp)
if(NOT TANDEM_JSON_INCLUDE_DIR)
  message(FATAL_ERROR "nlohmann/json.hpp is missing: run scripts/setup (Debian and Ubuntu: nlohmann-json3-dev).")
endif()
find_path(TANDEM_EIGEN_INCLUDE_DIR Eigen/Core PATH_SUFFIXES eigen3)
find_path(TANDEM_SPDLOG_INCLUDE_DIR spdlog/spdlog.h)
find_path(TANDEM_FMT_INCLUDE_DIR fmt/format.h)
mark_as_advanced(TANDEM_JSON_INCLUDE_DIR TANDEM_EIGEN_INCLUDE_DIR TANDEM_SPDLOG_INCLUDE_DIR TANDEM_FMT_INCLUDE_DIR)

set(TANDEM_PRIVATE_INCLUDES ${TANDEM_JSON_INCLUDE_DIR})
set(TANDEM_PRIVATE_DEFINITIONS)
if(TANDEM_EIGEN_INCLUDE_DIR)
  list(APPEND TANDEM_PRIVATE_INCLUDES ${TANDEM_EIGEN_INCLUDE_DIR})
  # Our pool is the only one; Eigen works single-threaded on blocks from inside it.
  list(APPEND TANDEM_PRIVATE_DEFINITIONS TANDEM_HAVE_EIGEN=1 EIGEN_DONT_PARALLELIZE=)
endif()
if(TANDEM_SPDLOG_INCLUDE_DIR AND TANDEM_FMT_INCLUDE_DIR)
  # Header-only on purpose: no compiled spdlog or fmt becomes a dependency of our users.
  list(APPEND TANDEM_PRIVATE_INCLUDES ${TANDEM_SPDLOG_INCLUDE_DIR} ${TANDEM_FMT_INCLUDE_DIR})
  list(APPEND TANDEM_PRIVATE_DEFINITIONS TANDEM_HAVE_SPDLOG=1 SPDLOG_FMT_EXTERNAL FMT_HEADER_ONLY=1)
endif()
include(cmake/find_dnnl.cmake)
if(TARGET tandem::dnnl)
  list(APPEND TANDEM_PRIVATE_DEFINITIONS TANDEM_HAVE_DNNL=1)
endif()
list(REMOVE_DUPLICATES TANDEM_PRIVATE_INCLUDES)
# An explicit -isystem /usr/include breaks the standard library's #include_next.
list(REMOVE_ITEM TANDEM_PRIVATE_INCLUDES ${CMAKE_CXX_IMPLICIT_INCLUDE_DIRECTORIES})

# Gives `target` (a library, test or benchmark of ours) the private headers.
function(tandem_private_headers target)
  target_include_directories(${target} SYSTEM PRIVATE ${TANDEM_PRIVATE_INCLUDES})
  target_compile_definitions(${target} PRIVATE ${TANDEM_PRIVATE_DEFINITIONS})
endfunction()

if(PROJECT_IS_TOP_LEVEL)
  foreach(name EIGEN SPDLOG DNNL)
    if("TANDEM_HAVE_${name}=1" IN_LIST TANDEM_PRIVATE_DEFINITIONS)
      string(APPEND tandem_found " ${name}")
    else()
      string(APPEND tandem_absent " ${name}")
    endif()
  endforeach()
  message(STATUS "Tandem ${PROJECT_VERSION}: optional libraries found:${tandem_found}; absent:${tandem_absent}")
endif()
