// The prelude of printed CUDA kernels: the same scalar functions as prelude.h's, from the same text, over
// vectors of one lane, and how threads join the results of reductions. Compiled by NVRTC or, with the CUDA
// keywords defined in front of it, by the host compiler. No includes: parts are pasted in where it is
// embedded. Pure functions of a kernel's threads.
//
// Float64 functions (exp, log, ...) are CUDA's own; all else gives the bits of the CPU. Nothing may be
// contracted (--fmad=false); multiply-adds are written as td_fma.
#define TD_INLINE __attribute__((always_inline))
#define TD_ROLLED _Pragma("unroll 1")
#define TD_UNROLLED _Pragma("unroll")
#define TD_FN static __device__ __forceinline__

#include "tandem/jit/prelude_types.inc"

// What NVRTC knows by other names.
#define __builtin_fmaf fmaf
#define __builtin_fma fma
#define __builtin_sqrtf sqrtf
#define __builtin_sqrt sqrt
#define __builtin_fmodf fmodf
#define __builtin_fmod fmod
#define __builtin_exp exp
#define __builtin_expm1 expm1
#define __builtin_log log
#define __builtin_log1p log1p
#define __builtin_log2 log2
#define __builtin_sin sin
#define __builtin_cos cos
#define __builtin_tanh tanh
#define __builtin_erf erf
#define __builtin_erfc erfc
#define __builtin_atan2 atan2
#define __builtin_pow pow
#define __builtin_inff() __builtin_bit_cast(float, 0x7f800000)
#define __builtin_inf() __builtin_bit_cast(double, 0x7ff0000000000000l)
#define __builtin_nanf(text) __builtin_bit_cast(float, 0x7fc00000)
#define __builtin_nan(text) __builtin_bit_cast(double, 0x7ff8000000000000l)

// The order matters.
// clang-format off
#include "tandem/jit/prelude_lane.inc"
#include "tandem/jit/prelude_arithmetic.inc"
#include "tandem/jit/prelude_functions.inc"
#include "tandem/jit/prelude_conversions.inc"
#include "tandem/jit/prelude_draws.inc"
#include "tandem/jit/prelude_threads.inc"
// clang-format on
