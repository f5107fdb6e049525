# How every Tandem target is compiled. All of it is private: a project that uses Tandem keeps its own flags.

if(PROJECT_IS_TOP_LEVEL)
  if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
    set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release or RelWithDebInfo" FORCE)
  endif()
  set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
  if(NOT CMAKE_CXX_COMPILER_LAUNCHER)
    find_program(TANDEM_CCACHE ccache)
    mark_as_advanced(TANDEM_CCACHE)
    if(TANDEM_CCACHE)
      set(CMAKE_CXX_COMPILER_LAUNCHER ${TANDEM_CCACHE})
    endif()
  endif()
  find_program(TANDEM_MOLD mold)
  mark_as_advanced(TANDEM_MOLD)
  if(TANDEM_MOLD)
    add_link_options(-fuse-ld=mold)
  endif()
endif()

set(CMAKE_CXX_EXTENSIONS OFF)
if(CMAKE_BUILD_TYPE STREQUAL "Debug")
  option(TANDEM_DEBUG_MEMORY "Fill fresh memory with NaN even without TANDEM_POISON=1" ON)
else()
  option(TANDEM_DEBUG_MEMORY "Fill fresh memory with NaN even without TANDEM_POISON=1" OFF)
endif()

if(TANDEM_SANITIZE)
  set(TANDEM_SANITIZE_FLAGS -fsanitize=${TANDEM_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
endif()

# Adds the flags of the project to `target`. Contraction is off everywhere: traced and eager results are equal bit for bit only if
# nobody fuses a product and a sum behind our back.
function(tandem_flags target)
  target_compile_features(${target} PRIVATE cxx_std_20)
  # Designated initializers leave the rest to its defaults on purpose.
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wno-missing-field-initializers -ffp-contract=off
    -fno-math-errno -fno-trapping-math ${TANDEM_SANITIZE_FLAGS})
  if(TANDEM_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # GCC's flow analyses misjudge the standard library's own code in some builds, and with sanitizers in most.
    target_compile_options(${target} PRIVATE -Wno-error=stringop-overflow -Wno-error=array-bounds -Wno-error=restrict)
    if(TANDEM_SANITIZE)
      target_compile_options(${target} PRIVATE -Wno-maybe-uninitialized)
    else()
      target_compile_options(${target} PRIVATE -Wno-error=maybe-uninitialized)
    endif()
  endif()
  if(TANDEM_SANITIZE)
    target_link_options(${target} PRIVATE ${TANDEM_SANITIZE_FLAGS})
  endif()
  if(TANDEM_TESTS)
    target_compile_definitions(${target} PRIVATE TANDEM_TEST_SWITCHES=1)
  endif()
  if(TANDEM_DEBUG_MEMORY)
    target_compile_definitions(${target} PRIVATE TANDEM_DEBUG_MEMORY=1)
  endif()
endfunction()

# Units for one instruction set, chosen at run time by cpuid. They must hold no inline function of the standard library that
# another unit may share: the linker keeps one copy, and it could be this one.
function(tandem_isa_flags)
  foreach(source ${ARGN})
    if(source MATCHES "_v3\\.cpp$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma;-mf16c")
    elseif(source MATCHES "_v4\\.cpp$")
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "-march=x86-64-v4;-mprefer-vector-width=512")
    elseif(source MATCHES "ops/table\\.cpp$" AND TANDEM_SANITIZE MATCHES "undefined")
      # Constant data: with this sanitizer g++ takes no function's address for a constant, and the table's checks are static.
      set_source_files_properties(${source} PROPERTIES COMPILE_OPTIONS "-fno-sanitize=undefined")
    endif()
    # With these checks GCC takes the address of a function for no constant, and the op table is checked when compiled.
    if(TANDEM_SANITIZE MATCHES "undefined" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND source MATCHES "ops/table\\.cpp$")
      set_source_files_properties(${source} PROPERTIES
        COMPILE_OPTIONS "-fno-sanitize=null,nonnull-attribute,returns-nonnull-attribute")
    endif()
  endforeach()
endfunction()
