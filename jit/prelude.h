// The scalar functions of ops/scalar.def and the vectors they run on: one text, compiled into the chunk
// evaluator (once per instruction set, inside an unnamed namespace) and put in front of every printed kernel.
// The text has no includes: its parts below are pasted in where it is embedded. Pure functions, any thread.
//
// A vector has 16 lanes whatever its type: td_f32v, td_f64v, td_i64v, td_i32v, td_u8v, td_u16v (bits of a
// half) and td_mask (bool). It is built from the widest registers that the target has, so that no operation
// is torn into single lanes. Every function has a form for vectors and one for single elements; both give the
// same bits, on every instruction set. Multiply-adds are written as td_fma: nothing may be contracted behind
// our back (-ffp-contract=off).

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define TD_BYTES 64
#elif defined(__AVX2__) && defined(__FMA__)
#define TD_BYTES 32
#else
#define TD_BYTES 16
#endif
#define TD_INLINE __attribute__((always_inline))
#define TD_FN static inline __attribute__((always_inline, unused))
#ifdef __clang__
#define TD_ROLLED _Pragma("clang loop unroll(disable)")
#else
#define TD_ROLLED _Pragma("GCC unroll 1")
#endif

#include "tandem/jit/prelude_types.inc"

// KernelArgs of kernel.h.
struct td_args {
  void* const* buffers;
  const td_i64 *dims, *strides, *numbers;
  td_i64 begin, end;
  td_i64* error;
};

// The order matters.
// clang-format off
#include "tandem/jit/prelude_vectors.inc"
#include "tandem/jit/prelude_arithmetic.inc"
#include "tandem/jit/prelude_functions.inc"
#include "tandem/jit/prelude_conversions.inc"
#include "tandem/jit/prelude_memory.inc"
#include "tandem/jit/prelude_draws.inc"
#include "tandem/jit/prelude_random.inc"
// clang-format on
