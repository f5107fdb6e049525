// The scalar functions of ops/scalar.def and the vectors they run on: one text, compiled into the chunk evaluator (once
// per instruction set, inside an unnamed namespace) and put in front of every printed kernel. It includes nothing.
// Pure functions, any thread.
//
// A vector has 16 lanes whatever its type: td_f32v, td_f64v, td_i64v, td_i32v, td_u8v, td_u16v (bits of a half) and td_mask
// (bool). It is built from the widest registers that the target has, so that no operation is torn into single lanes.
// Every function has a form for vectors and one for single elements; both give the same bits, on every instruction set.
// Multiply-adds are written as td_fma: nothing may be contracted behind our back (-ffp-contract=off).

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

typedef float td_f32;
typedef double td_f64;
typedef long td_i64;
typedef int td_i32;
typedef unsigned char td_u8;
typedef unsigned short td_u16;
typedef unsigned td_u32;
typedef unsigned long td_u64;

// KernelArgs of kernel.h.
struct td_args {
  void* const* buffers;
  const td_i64 *dims, *strides, *numbers;
  td_i64 begin, end;
  td_i64* error;
};

// --- Vectors: one register, or two halves ---

template <class T, int N, bool whole = (N * (int)sizeof(T) <= TD_BYTES)>
struct td_vec {
  typedef T V __attribute__((vector_size(N * sizeof(T))));
  V v;
};
template <class T, int N>
struct td_vec<T, N, false> {
  td_vec<T, N / 2> lo, hi;
};
template <class T, int N>
constexpr bool td_whole = N * (int)sizeof(T) <= TD_BYTES;

template <int bytes> struct td_int_of;
template <> struct td_int_of<1> { typedef signed char S; typedef td_u8 U; };
template <> struct td_int_of<2> { typedef short S; typedef td_u16 U; };
template <> struct td_int_of<4> { typedef td_i32 S; typedef td_u32 U; };
template <> struct td_int_of<8> { typedef td_i64 S; typedef td_u64 U; };
template <class T> using td_int = typename td_int_of<(int)sizeof(T)>::S;    // lanes of a comparison
template <class T> using td_uint = typename td_int_of<(int)sizeof(T)>::U;
template <class T> constexpr bool td_floating = (T)0.5 != (T)0;

typedef td_vec<td_f32, 16> td_f32v;
typedef td_vec<td_f64, 16> td_f64v;
typedef td_vec<td_i64, 16> td_i64v;
typedef td_vec<td_i32, 16> td_i32v;
typedef td_vec<td_u8, 16> td_u8v;
typedef td_vec<td_u16, 16> td_u16v;
struct td_mask { td_i32v m; };  // lanes 0 or -1

#define TD_T2 template <class T, int N>
#define TD_V td_vec<T, N>
#define TD_OPERATOR(op)                                        \
  TD_T2 TD_FN TD_V operator op(TD_V a, TD_V b) {               \
    if constexpr (td_whole<T, N>) return {a.v op b.v};         \
    else return {a.lo op b.lo, a.hi op b.hi};                  \
  }
TD_OPERATOR(+) TD_OPERATOR(-) TD_OPERATOR(*) TD_OPERATOR(/) TD_OPERATOR(&) TD_OPERATOR(|) TD_OPERATOR(^)
#undef TD_OPERATOR
#define TD_OPERATOR(op)                                        \
  TD_T2 TD_FN TD_V operator op(TD_V a, int k) {                \
    if constexpr (td_whole<T, N>) return {a.v op k};           \
    else return {a.lo op k, a.hi op k};                        \
  }
TD_OPERATOR(<<) TD_OPERATOR(>>)
#undef TD_OPERATOR
TD_T2 TD_FN TD_V operator-(TD_V a) {
  if constexpr (td_whole<T, N>) return {-a.v};
  else return {-a.lo, -a.hi};
}
// Comparisons give lanes 0 or -1 of the operands' width; td_blend chooses by such lanes.
#define TD_COMPARE(name, op)                                             \
  TD_T2 TD_FN td_vec<td_int<T>, N> name(TD_V a, TD_V b) {                \
    if constexpr (td_whole<T, N>) return {a.v op b.v};                   \
    else return {name(a.lo, b.lo), name(a.hi, b.hi)};                    \
  }
TD_COMPARE(td_eq_, ==) TD_COMPARE(td_ne_, !=) TD_COMPARE(td_lt_, <) TD_COMPARE(td_le_, <=) TD_COMPARE(td_gt_, >)
TD_COMPARE(td_ge_, >=)
#undef TD_COMPARE
TD_T2 TD_FN TD_V td_blend(td_vec<td_int<T>, N> m, TD_V a, TD_V b) {
  if constexpr (td_whole<T, N>) return {m.v ? a.v : b.v};
  else return {td_blend(m.lo, a.lo, b.lo), td_blend(m.hi, a.hi, b.hi)};
}
// The same bits as lanes of another type of the same width.
template <class To, class T, int N> TD_FN td_vec<To, N> td_bits(TD_V a) {
  if constexpr (td_whole<T, N>) return {(typename td_vec<To, N>::V)a.v};
  else return {td_bits<To>(a.lo), td_bits<To>(a.hi)};
}
template <class T, int N = 16> TD_FN TD_V td_splat(T x) {
  if constexpr (td_whole<T, N>) return {x - typename TD_V::V{}};
  else return {td_splat<T, N / 2>(x), td_splat<T, N / 2>(x)};
}
TD_T2 TD_FN td_vec<T, N / 2> td_low(TD_V a) {
  if constexpr (!td_whole<T, N>) return a.lo;
  else if constexpr (N == 16) return {__builtin_shufflevector(a.v, a.v, 0, 1, 2, 3, 4, 5, 6, 7)};
  else if constexpr (N == 8) return {__builtin_shufflevector(a.v, a.v, 0, 1, 2, 3)};
  else return {__builtin_shufflevector(a.v, a.v, 0, 1)};
}
TD_T2 TD_FN td_vec<T, N / 2> td_high(TD_V a) {
  if constexpr (!td_whole<T, N>) return a.hi;
  else if constexpr (N == 16) return {__builtin_shufflevector(a.v, a.v, 8, 9, 10, 11, 12, 13, 14, 15)};
  else if constexpr (N == 8) return {__builtin_shufflevector(a.v, a.v, 4, 5, 6, 7)};
  else return {__builtin_shufflevector(a.v, a.v, 2, 3)};
}
TD_T2 TD_FN td_vec<T, 2 * N> td_concat(TD_V a, TD_V b) {
  if constexpr (!td_whole<T, 2 * N>) return {a, b};
  else if constexpr (N == 8) return {__builtin_shufflevector(a.v, b.v, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)};
  else if constexpr (N == 4) return {__builtin_shufflevector(a.v, b.v, 0, 1, 2, 3, 4, 5, 6, 7)};
  else return {__builtin_shufflevector(a.v, b.v, 0, 1, 2, 3)};
}
// The C conversion of each lane; floating to integer must be in range.
template <class To, class T, int N> TD_FN td_vec<To, N> td_convert(TD_V a) {
  if constexpr (td_whole<T, N> && td_whole<To, N>) return {__builtin_convertvector(a.v, typename td_vec<To, N>::V)};
  else return td_concat(td_convert<To>(td_low(a)), td_convert<To>(td_high(a)));
}
TD_T2 TD_FN T td_lane0(TD_V a) {
  if constexpr (td_whole<T, N>) return a.v[0];
  else return td_lane0(a.lo);
}
TD_FN bool td_lane0(td_mask a) { return td_lane0(a.m) != 0; }
// From and to memory without alignment, register by register: copies of whole structures go through the stack.
template <class T, int N = 16> TD_FN TD_V td_get(const void* p) {
  if constexpr (td_whole<T, N>) {
    TD_V r;
    __builtin_memcpy(&r.v, p, sizeof r.v);
    return r;
  } else {
    return {td_get<T, N / 2>(p), td_get<T, N / 2>((const char*)p + sizeof(TD_V) / 2)};
  }
}
TD_T2 TD_FN void td_put(void* p, TD_V a) {
  if constexpr (td_whole<T, N>) __builtin_memcpy(p, &a.v, sizeof a.v);
  else td_put(p, a.lo), td_put((char*)p + sizeof(TD_V) / 2, a.hi);
}
// f of each lane, one after another: for what only the C library computes.
template <class F, class T> TD_FN td_vec<T, 16> td_each(F f, td_vec<T, 16> a) {
  T x[16];
  td_put(x, a);
  TD_ROLLED for (int i = 0; i < 16; ++i) x[i] = f(x[i]);
  return td_get<T>(x);
}
template <class F, class T> TD_FN td_vec<T, 16> td_each(F f, td_vec<T, 16> a, td_vec<T, 16> b) {
  T x[16], y[16];
  td_put(x, a);
  td_put(y, b);
  TD_ROLLED for (int i = 0; i < 16; ++i) x[i] = f(x[i], y[i]);
  return td_get<T>(x);
}
TD_T2 TD_FN bool td_any(td_vec<T, N> m) {
  if constexpr (N > 2) return td_any(td_low(m) | td_high(m));
  else return (m.v[0] | m.v[1]) != 0;
}
template <class T> TD_FN td_vec<T, 16> td_lane_numbers() {
  constexpr T k[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return td_get<T>(k);
}
TD_FN td_i64 td_least(td_i64 a, td_i64 b) { return a < b ? a : b; }

// --- Multiply-add, square root, division: what needs a builtin of the target ---

TD_T2 TD_FN TD_V td_fma(TD_V a, TD_V b, TD_V c) {
#if TD_BYTES == 64
  if constexpr (!td_whole<T, N>) return {td_fma(a.lo, b.lo, c.lo), td_fma(a.hi, b.hi, c.hi)};
  else if constexpr (sizeof(T) == 4) return {__builtin_ia32_vfmaddps512_mask(a.v, b.v, c.v, -1, 4)};
  else return {__builtin_ia32_vfmaddpd512_mask(a.v, b.v, c.v, -1, 4)};
#elif TD_BYTES == 32
  if constexpr (!td_whole<T, N>) return {td_fma(a.lo, b.lo, c.lo), td_fma(a.hi, b.hi, c.hi)};
  else if constexpr (sizeof(T) == 4) return {__builtin_ia32_vfmaddps256(a.v, b.v, c.v)};
  else return {__builtin_ia32_vfmaddpd256(a.v, b.v, c.v)};
#else
  T x[N], y[N], z[N];
  td_put(x, a);
  td_put(y, b);
  td_put(z, c);
  TD_ROLLED for (int i = 0; i < N; ++i)
    if constexpr (sizeof(T) == 4) x[i] = __builtin_fmaf(x[i], y[i], z[i]);
    else x[i] = __builtin_fma(x[i], y[i], z[i]);
  return td_get<T, N>(x);
#endif
}
TD_FN td_f32 td_fma(td_f32 a, td_f32 b, td_f32 c) { return __builtin_fmaf(a, b, c); }
TD_FN td_f64 td_fma(td_f64 a, td_f64 b, td_f64 c) { return __builtin_fma(a, b, c); }

TD_T2 TD_FN TD_V td_sqrt(TD_V a) {
  if constexpr (!td_whole<T, N>) return {td_sqrt(a.lo), td_sqrt(a.hi)};
#if TD_BYTES == 64 && defined(__clang__)
  else if constexpr (sizeof(T) == 4) return {__builtin_ia32_sqrtps512(a.v, 4)};
  else return {__builtin_ia32_sqrtpd512(a.v, 4)};
#elif TD_BYTES == 64
  else if constexpr (sizeof(T) == 4) return {__builtin_ia32_sqrtps512_mask(a.v, a.v, -1, 4)};
  else return {__builtin_ia32_sqrtpd512_mask(a.v, a.v, -1, 4)};
#elif TD_BYTES == 32
  else if constexpr (sizeof(T) == 4) return {__builtin_ia32_sqrtps256(a.v)};
  else return {__builtin_ia32_sqrtpd256(a.v)};
#else
  else if constexpr (sizeof(T) == 4) return {__builtin_ia32_sqrtps(a.v)};
  else return {__builtin_ia32_sqrtpd(a.v)};
#endif
}
TD_FN td_f32 td_sqrt(td_f32 a) { return __builtin_sqrtf(a); }
TD_FN td_f64 td_sqrt(td_f64 a) { return __builtin_sqrt(a); }

// --- Arithmetic. Integers wrap; floating max and min give NaN if either operand is. ---

template <class T> constexpr bool td_scalar = false;
template <> constexpr bool td_scalar<td_f32> = true;
template <> constexpr bool td_scalar<td_f64> = true;
template <> constexpr bool td_scalar<td_i64> = true;
template <> constexpr bool td_scalar<td_i32> = true;
template <> constexpr bool td_scalar<td_u8> = true;
template <> constexpr bool td_scalar<td_u16> = true;
template <> constexpr bool td_scalar<bool> = true;
template <class T> TD_FN td_vec<T, 16> td_vector(T x) { return td_splat(x); }
TD_FN td_mask td_vector(bool x) { return {td_splat<td_i32>(x ? -1 : 0)}; }

#define TD_WRAPPING(name, op)                                                                         \
  TD_T2 TD_FN TD_V name(TD_V a, TD_V b) {                                                             \
    if constexpr (td_floating<T>) return a op b;                                                      \
    else return td_bits<T>(td_bits<td_uint<T>>(a) op td_bits<td_uint<T>>(b));                         \
  }
TD_WRAPPING(td_add, +) TD_WRAPPING(td_sub, -) TD_WRAPPING(td_mul, *)
#undef TD_WRAPPING
TD_T2 TD_FN TD_V td_div(TD_V a, TD_V b) { return a / b; }
TD_T2 TD_FN TD_V td_neg(TD_V a) {
  if constexpr (td_floating<T>) return -a;
  else return td_bits<T>(-td_bits<td_uint<T>>(a));
}
TD_T2 TD_FN TD_V td_abs(TD_V a) {
  constexpr td_uint<T> sign = (td_uint<T>)1 << (8 * sizeof(T) - 1);
  if constexpr (td_floating<T>) return td_bits<T>(td_bits<td_uint<T>>(a) & td_splat<td_uint<T>, N>(sign - 1));
  else return td_blend(td_lt_(a, TD_V{}), td_neg(a), a);
}
TD_T2 TD_FN TD_V td_copysign(TD_V a, TD_V sign_of) {
  constexpr td_uint<T> sign = (td_uint<T>)1 << (8 * sizeof(T) - 1);
  const auto s = td_bits<td_uint<T>>(sign_of) & td_splat<td_uint<T>, N>(sign);
  return td_bits<T>(s | td_bits<td_uint<T>>(td_abs(a)));
}
TD_T2 TD_FN TD_V td_max(TD_V a, TD_V b) {
  const TD_V m = td_blend(td_gt_(a, b), a, b);
  if constexpr (td_floating<T>) return td_blend(td_ne_(a, a), a, m);
  else return m;
}
TD_T2 TD_FN TD_V td_min(TD_V a, TD_V b) {
  const TD_V m = td_blend(td_lt_(a, b), a, b);
  if constexpr (td_floating<T>) return td_blend(td_ne_(a, a), a, m);
  else return m;
}
template <class T> TD_FN T td_idiv_(T a, T b) {  // towards minus infinity; by zero: 0
  if (b == 0) return 0;
  if ((T)-1 < 0 && b == (T)-1) return (T)(0 - (td_uint<T>)a);
  const T q = (T)(a / b);
  return (T)(q - (a % b != 0 && (a < 0) != (b < 0)));
}
template <class T> TD_FN T td_mod_(T a, T b) {  // the sign of the divisor
  if constexpr (td_floating<T>) {
    T r;
    if constexpr (sizeof(T) == 4) r = __builtin_fmodf(a, b);
    else r = __builtin_fmod(a, b);
    return r != 0 && (b < 0) != (r < 0) ? r + b : r;
  } else {
    if (b == 0 || ((T)-1 < 0 && b == (T)-1)) return 0;
    const T r = (T)(a % b);
    return r != 0 && (b < 0) != (r < 0) ? (T)(r + b) : r;
  }
}
template <class T> TD_FN td_vec<T, 16> td_idiv(td_vec<T, 16> a, td_vec<T, 16> b) {
  return td_each([](T x, T y) TD_INLINE { return td_idiv_(x, y); }, a, b);
}
template <class T> TD_FN td_vec<T, 16> td_mod(td_vec<T, 16> a, td_vec<T, 16> b) {
  return td_each([](T x, T y) TD_INLINE { return td_mod_(x, y); }, a, b);
}
// Rounding: adding and taking away 2^(mantissa bits) leaves an integer; larger numbers are integers already.
TD_T2 TD_FN TD_V td_round(TD_V a) {
  const TD_V big = td_splat<T, N>(sizeof(T) == 4 ? (T)8388608.0f : (T)4503599627370496.0), x = td_abs(a);
  return td_blend(td_lt_(x, big), td_copysign((x + big) - big, a), a);
}
TD_T2 TD_FN TD_V td_floor(TD_V a) {
  const TD_V r = td_round(a), one = td_splat<T, N>(1);
  return td_copysign(td_blend(td_gt_(r, a), r - one, r), a);
}
TD_T2 TD_FN TD_V td_ceil(TD_V a) {
  const TD_V r = td_round(a), one = td_splat<T, N>(1);
  return td_copysign(td_blend(td_lt_(r, a), r + one, r), a);
}
TD_T2 TD_FN TD_V td_trunc(TD_V a) { return td_copysign(td_floor(td_abs(a)), a); }

#define TD_COMPARE(name)                                                                                        \
  template <class T> TD_FN td_mask td_##name(td_vec<T, 16> a, td_vec<T, 16> b) { return {td_convert<td_i32>(td_##name##_(a, b))}; }
TD_COMPARE(eq) TD_COMPARE(ne) TD_COMPARE(lt) TD_COMPARE(le) TD_COMPARE(gt) TD_COMPARE(ge)
#undef TD_COMPARE
template <class T> TD_FN td_vec<T, 16> td_select(td_mask m, td_vec<T, 16> a, td_vec<T, 16> b) {
  return td_blend(td_convert<td_int<T>>(m.m), a, b);
}
// bool: sums are "or", products "and"
TD_FN td_mask operator&(td_mask a, td_mask b) { return {a.m & b.m}; }
TD_FN td_mask operator|(td_mask a, td_mask b) { return {a.m | b.m}; }
TD_FN td_mask operator^(td_mask a, td_mask b) { return {a.m ^ b.m}; }
TD_FN td_mask td_logical_not(td_mask a) { return {a.m ^ td_splat<td_i32>(-1)}; }
TD_FN td_mask td_logical_and(td_mask a, td_mask b) { return a & b; }
TD_FN td_mask td_logical_or(td_mask a, td_mask b) { return a | b; }
TD_FN td_mask td_logical_xor(td_mask a, td_mask b) { return a ^ b; }
TD_FN td_mask td_add(td_mask a, td_mask b) { return a | b; }
TD_FN td_mask td_sub(td_mask a, td_mask b) { return a ^ b; }
TD_FN td_mask td_mul(td_mask a, td_mask b) { return a & b; }
TD_FN td_mask td_max(td_mask a, td_mask b) { return a | b; }
TD_FN td_mask td_min(td_mask a, td_mask b) { return a & b; }
TD_FN td_mask td_neg(td_mask a) { return a; }
TD_FN td_mask td_abs(td_mask a) { return a; }
TD_FN td_mask td_eq(td_mask a, td_mask b) { return td_logical_not(a ^ b); }
TD_FN td_mask td_ne(td_mask a, td_mask b) { return a ^ b; }
TD_FN td_mask td_lt(td_mask a, td_mask b) { return td_logical_not(a) & b; }
TD_FN td_mask td_le(td_mask a, td_mask b) { return td_logical_not(a) | b; }
TD_FN td_mask td_gt(td_mask a, td_mask b) { return td_lt(b, a); }
TD_FN td_mask td_ge(td_mask a, td_mask b) { return td_le(b, a); }
TD_FN td_mask td_select(td_mask m, td_mask a, td_mask b) { return (m & a) | (td_logical_not(m) & b); }

// --- Functions of float32. Polynomials were fitted for this file (Remez, coefficients rounded one by one). ---

TD_FN td_f32v td_c(td_f32 x) { return td_splat(x); }
TD_FN td_f64v td_c(td_f64 x) { return td_splat(x); }
template <class V, class C> TD_FN V td_poly(V, C c) { return td_c(c); }  // coefficients from the lowest
template <class V, class C, class... Cs> TD_FN V td_poly(V x, C c, Cs... rest) { return td_fma(td_poly(x, rest...), x, td_c(c)); }

// p * 2^n for integral n in [-252, 254]: in two steps, so that the result is rounded once where it is denormal.
TD_FN td_f32v td_scale(td_f32v p, td_f32v n) {
#if TD_BYTES == 64
  return {__builtin_ia32_scalefps512_mask(p.v, n.v, p.v, -1, 4)};
#else
  const td_i32v i = td_convert<td_i32>(n), h = i >> 1, bias = td_splat(127);
  return p * td_bits<td_f32>((h + bias) << 23) * td_bits<td_f32>((i - h + bias) << 23);
#endif
}
// x = n * ln 2 + r, |r| <= ln 2 / 2
TD_FN td_f32v td_reduce_exp(td_f32v x, td_f32v& r) {
  const td_f32v magic = td_c(12582912.0f), n = td_fma(x, td_c(0x1.715476p+0f), magic) - magic;
  r = td_fma(n, td_c(0x1.05c610p-29f), td_fma(n, td_c(-0x1.62e430p-1f), x));
  return n;
}
TD_FN td_f32v td_clamp(td_f32v x, td_f32 low, td_f32 high) {  // NaN stays
  x = td_blend(td_gt_(x, td_c(high)), td_c(high), x);
  return td_blend(td_lt_(x, td_c(low)), td_c(low), x);
}
TD_FN td_f32v td_exp(td_f32v x) {
  td_f32v r;
  const td_f32v n = td_reduce_exp(td_clamp(x, -105.0f, 89.0f), r);
  const td_f32v q = td_poly(r, 0x1.fffffcp-2f, 0x1.55548cp-3f, 0x1.555858p-5f, 0x1.123de2p-7f, 0x1.6ac6e0p-10f);
  return td_scale(td_fma(q, r * r, r) + td_c(1.0f), n);
}
TD_FN td_f32v td_expm1(td_f32v x) {
  td_f32v r;
  const td_f32v n = td_reduce_exp(td_clamp(x, -20.0f, 89.0f), r);
  const td_f32v q = td_poly(r, 0.5f, 0x1.555556p-3f, 0x1.5554e2p-5f, 0x1.110ef2p-7f, 0x1.6d565ep-10f, 0x1.a4fa40p-13f);
  const td_f32v p = td_fma(q, r * r, r);
  // 2^n (1 + p) - 1, halved on the way because 2^128 is no float
  const td_f32v s = td_bits<td_f32>((td_convert<td_i32>(n) + td_splat(126)) << 23);
  const td_f32v y = td_fma(p, s, s - td_c(0.5f));
  return td_copysign(td_blend(td_eq_(n, td_f32v{}), p, y + y), x);
}
// log(1 + f) + e ln 2 for f in [-1/3, 1/3]
TD_FN td_f32v td_log_core(td_f32v f, td_f32v e) {
  const td_f32v q = td_poly(f, -0.5f, 0x1.555556p-2f, -0x1.fffdfcp-3f, 0x1.9997dcp-3f, -0x1.55cf08p-3f, 0x1.24f29ep-3f,
                            -0x1.ed4124p-4f, 0x1.b7fff4p-4f, -0x1.15760ap-3f, 0x1.efd3fap-4f);
  return td_fma(e, td_c(0x1.62e430p-1f), td_fma(q, f * f, f));
}
// result where x > 0 is finite; else log's special values
TD_FN td_f32v td_log_special(td_f32v x, td_f32v result) {
  const td_f32v inf = td_c(__builtin_inff());
  const td_f32v other = td_blend(td_eq_(x, td_f32v{}), -inf, td_blend(td_gt_(x, td_f32v{}), x, td_c(__builtin_nanf(""))));
  return td_blend(td_gt_(x, td_f32v{}) & td_lt_(x, inf), result, other);
}
TD_FN td_i32v td_log_exponent(td_i32v bits) { return (bits - td_splat(0x3f2aaaab)) >> 23; }  // mantissa in [2/3, 4/3)
TD_FN td_f32v td_log(td_f32v x) {
  const td_i32v small = td_lt_(x, td_c(0x1p-126f));
  const td_i32v i = td_bits<td_i32>(td_blend(small, x * td_c(8388608.0f), x)), e = td_log_exponent(i);
  const td_f32v f = td_bits<td_f32>(i - (e << 23)) - td_c(1.0f);
  return td_log_special(x, td_log_core(f, td_convert<td_f32>(e + (small & td_splat(-23)))));
}
TD_FN td_f32v td_log1p(td_f32v x) {
  const td_f32v one = td_c(1.0f), u = x + one;
  const td_i32v i = td_bits<td_i32>(u), e = td_log_exponent(i);
  const td_f32v scale = td_bits<td_f32>((td_splat(127) - e) << 23);
  const td_f32v f = td_blend(td_gt_(x, td_c(16777216.0f)), td_bits<td_f32>(i - (e << 23)) - one, td_fma(x, scale, scale - one));
  return td_blend(td_eq_(x, td_f32v{}), x, td_log_special(u, td_log_core(f, td_convert<td_f32>(e))));
}
TD_FN td_f32v td_tanh(td_f32v x) {
  const td_f32v a = td_abs(x), s = a * a, one = td_c(1.0f);
  const td_f32v q = td_poly(s, -0x1.55554ap-2f, 0x1.110ceep-3f, -0x1.b91e7ep-5f, 0x1.58e518p-6f, -0x1.9921a2p-8f);
  const td_f32v big = one - td_c(2.0f) / (td_exp(a + a) + one);
  return td_copysign(td_blend(td_lt_(a, td_c(0.55f)), td_fma(a * s, q, a), big), x);
}
// |x| < 0.925: x + x P(x^2); above: 1 - exp(Q(|x|)) with Q fitted to log(erfc)
TD_FN td_f32v td_erf(td_f32v x) {
  const td_f32v a = td_abs(x), t = td_blend(td_gt_(a, td_c(4.0f)), td_c(4.0f), a);
  const td_f32v p = td_poly(a * a, 0x1.06eba8p-3f, -0x1.812740p-2f, 0x1.ce2d76p-4f, -0x1.b8043cp-6f, 0x1.54769ap-8f,
                            -0x1.a7fdaep-11f, 0x1.56f108p-14f);
  const td_f32v q = td_poly(t, 0x1.70d472p-13f, -0x1.212846p+0f, -0x1.444478p-1f, -0x1.bb91f6p-4f, 0x1.9bb320p-6f, -0x1.1192a6p-8f,
                            0x1.c84aacp-12f, -0x1.62eff6p-16f);
  const td_f32v big = td_c(1.0f) - td_exp(q);
  return td_copysign(td_blend(td_lt_(a, td_c(0.925f)), td_fma(a, p, a), big), x);
}
// sin (k even) or cos (k odd) of r + k pi / 2, |r| <= pi / 4
TD_FN td_f32v td_sine_core(td_f32v r, td_i32v k) {
  const td_f32v z = r * r;
  const td_f32v s = td_fma(td_poly(z, -0x1.555546p-3f, 0x1.11077ap-7f, -0x1.9954a4p-13f), z * r, r);
  const td_f32v c = td_fma(td_poly(z, -0.5f, 0x1.55554ap-5f, -0x1.6c0c1ap-10f, 0x1.99e0eep-16f), z, td_c(1.0f));
  const td_f32v y = td_blend(td_eq_(k & td_splat(1), td_i32v{}), s, c);
  return td_bits<td_f32>(td_bits<td_i32>(y) ^ ((k & td_splat(2)) << 30));
}
// The multiple of pi / 2 is taken away in double; beyond 2^28 the C library does it all.
template <int quarter> TD_FN td_f32v td_sine(td_f32v x) {
  const td_f64v d = td_convert<td_f64>(x), magic = td_c(6755399441055744.0);
  const td_f64v t = td_fma(d, td_c(0x1.45f306dc9c883p-1), magic), n = t - magic;
  const td_f64v r = td_fma(-n, td_c(0x1.1a62633145c07p-54), td_fma(-n, td_c(0x1.921fb54442d18p+0), d));
  td_f32v y = td_sine_core(td_convert<td_f32>(r), td_convert<td_i32>(td_bits<td_i64>(t)) + td_splat(quarter));
  const td_i32v far = td_ge_(td_abs(x), td_c(268435456.0f));
  if (__builtin_expect(td_any(far), 0)) {
    const auto f = [](td_f32 v) TD_INLINE { return (td_f32)(quarter ? __builtin_cos((td_f64)v) : __builtin_sin((td_f64)v)); };
    y = td_blend(far, td_each(f, x), y);
  }
  return quarter ? y : td_blend(td_eq_(x, td_f32v{}), x, y);
}
TD_FN td_f32v td_sin(td_f32v x) { return td_sine<0>(x); }
TD_FN td_f32v td_cos(td_f32v x) { return td_sine<1>(x); }
// exp(y log|x|) in double, good to 2^-35; zeros, infinities and NaN go to the C library.
TD_FN td_f32v td_pow(td_f32v x, td_f32v y) {
  const td_f32v a = td_abs(x), inf = td_c(__builtin_inff());
  const td_f64v d = td_convert<td_f64>(a), one = td_c(1.0);
  const td_i64v i = td_bits<td_i64>(d), e = (i - td_splat<td_i64>(0x3fe6a09e667f3bcd)) >> 52;
  const td_f64v m = td_bits<td_f64>(i - (e << 52)), s = (m - one) / (m + one), z = s * s;
  const td_f64v l = td_poly(z, 0x1.5555555620390p-1, 0x1.999996a367e2cp-2, 0x1.2494149e88611p-2, 0x1.c62a209025d1ap-3,
                            0x1.91244b5a61a96p-3);
  const td_f64v log = td_fma(td_convert<td_f64>(e), td_c(0x1.62e42fefa39efp-1), td_fma(l, z * s, s + s));
  td_f64v w = td_convert<td_f64>(y) * log;
  w = td_blend(td_gt_(w, td_c(200.0)), td_c(200.0), td_blend(td_lt_(w, td_c(-200.0)), td_c(-200.0), w));
  const td_f64v magic = td_c(6755399441055744.0), t = td_fma(w, td_c(0x1.71547652b82fep+0), magic);
  const td_f64v r = td_fma(td_c(-0x1.62e42fefa39efp-1), t - magic, w);
  const td_f64v p = td_poly(r, 1.0, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720, 1.0 / 5040, 1.0 / 40320, 1.0 / 362880);
  const td_f64v power = td_bits<td_f64>((td_bits<td_i64>(t) + td_splat<td_i64>(1023)) << 52);
  td_f32v v = td_convert<td_f32>(p * power);
  const td_f32v half = y * td_c(0.5f), nan = td_c(__builtin_nanf(""));
  const td_i32v integral = td_eq_(td_trunc(y), y), odd = td_ne_(td_trunc(half), half), negative = td_lt_(x, td_f32v{});
  v = td_blend(negative, td_blend(integral, td_blend(odd, -v, v), nan), v);
  const td_i32v plain = td_gt_(a, td_f32v{}) & td_lt_(a, inf) & td_lt_(td_abs(y), inf);
  if (__builtin_expect(td_any(plain ^ td_splat(-1)), 0)) {
    const auto f = [](td_f32 b, td_f32 n) TD_INLINE { return (td_f32)__builtin_pow((td_f64)b, (td_f64)n); };
    v = td_blend(plain, v, td_each(f, x, y));
  }
  return v;
}

// --- Functions of float64: the C library's ---

#define TD_LIBM(name)                                              \
  TD_FN td_f64 td_##name(td_f64 x) { return __builtin_##name(x); } \
  TD_FN td_f64v td_##name(td_f64v x) { return td_each([](td_f64 v) TD_INLINE { return __builtin_##name(v); }, x); }
TD_LIBM(exp) TD_LIBM(expm1) TD_LIBM(log) TD_LIBM(log1p) TD_LIBM(sin) TD_LIBM(cos) TD_LIBM(tanh) TD_LIBM(erf)
#undef TD_LIBM
TD_FN td_f64 td_pow(td_f64 x, td_f64 y) { return __builtin_pow(x, y); }
TD_FN td_f64v td_pow(td_f64v x, td_f64v y) {
  return td_each([](td_f64 a, td_f64 b) TD_INLINE { return __builtin_pow(a, b); }, x, y);
}

// --- Conversions. Floating to integer: towards zero, saturating, NaN gives 0. To bool: != 0. Halves go through float32. ---

template <class To, class T> TD_FN td_vec<To, 16> td_to(td_vec<T, 16> x) {
  if constexpr (td_floating<T> && !td_floating<To>) {
    constexpr To top = (To)~(td_uint<To>)0 < 0 ? (To)((td_uint<To>)~(td_uint<To>)0 >> 1) : (To)~(td_uint<To>)0;
    const auto low = td_splat((T)(To)(top + (td_uint<To>)1)), high = td_splat((T)(top / 2 + 1) * (T)2);
    const auto fits = td_ge_(x, low) & td_lt_(x, high);
    typedef td_vec<td_int<T>, 16> Lanes;
    auto r = td_convert<To>(td_convert<td_int<T>>(td_blend(fits, x, td_vec<T, 16>{})));
    if constexpr (sizeof(To) > sizeof(T)) r = td_convert<To>(td_blend(fits, x, td_vec<T, 16>{}));
    const auto wide = [](Lanes m) TD_INLINE { return td_convert<td_int<To>>(m); };
    r = td_blend(wide(td_ge_(x, high)), td_splat(top), r);
    return td_blend(wide(td_lt_(x, low)), td_splat((To)(top + (td_uint<To>)1)), r);
  } else if constexpr (td_floating<To> && sizeof(T) == 1) {
    return td_convert<To>(td_convert<td_i32>(x));
  } else {
    return td_convert<To>(x);
  }
}
template <class To> TD_FN td_vec<To, 16> td_to(td_mask x) { return td_to<To>(x.m & td_splat(1)); }
template <class T> TD_FN td_mask td_to_bool(td_vec<T, 16> x) { return td_ne(x, td_vec<T, 16>{}); }
TD_FN td_mask td_to_bool(td_mask x) { return x; }

TD_FN td_f32v td_half_to_float(td_u16v h) {
  typedef td_vec<td_u32, 16> U;
  const U x = td_convert<td_u32>(h), sign = (x & td_splat(0x8000u)) << 16, magnitude = (x & td_splat(0x7fffu)) << 13;
  const U normal = magnitude + td_splat(112u << 23), top = normal + td_splat(112u << 23);
  // Subnormal halves: the mantissa under a one that is taken away again.
  const td_f32v under = td_bits<td_f32>(magnitude + td_splat(113u << 23)) - td_c(0x1p-14f);
  U r = td_blend(td_ge_(magnitude, td_splat(0x1fu << 23)), top, normal);
  r = td_blend(td_lt_(magnitude, td_splat(1u << 23)), td_bits<td_u32>(under), r);
  return td_bits<td_f32>(r | sign);
}
TD_FN td_u16v td_float_to_half(td_f32v f) {
  typedef td_vec<td_u32, 16> U;
  const U x = td_bits<td_u32>(f), magnitude = x & td_splat(0x7fffffffu);
  const U normal = (magnitude + td_splat(0xfffu) + ((magnitude >> 13) & td_splat(1u)) - td_splat(112u << 23)) >> 13;
  const U under = td_bits<td_u32>(td_bits<td_f32>(magnitude) + td_c(0.5f)) - td_splat(0x3f000000u);  // units of 2^-24
  const U nan = td_splat(0x7e00u) | ((magnitude >> 13) & td_splat(0x3ffu));
  U r = td_blend(td_lt_(magnitude, td_splat(0x38800000u)), under, normal);
  r = td_blend(td_ge_(magnitude, td_splat(0x477ff000u)), td_splat(0x7c00u), r);
  r = td_blend(td_gt_(magnitude, td_splat(0x7f800000u)), nan, r);
  return td_convert<td_u16>(r | ((x >> 16) & td_splat(0x8000u)));
}
TD_FN td_f32v td_bfloat_to_float(td_u16v h) { return td_bits<td_f32>(td_convert<td_u32>(h) << 16); }
TD_FN td_u16v td_float_to_bfloat(td_f32v f) {
  const auto x = td_bits<td_u32>(f), rounded = x + td_splat(0x7fffu) + ((x >> 16) & td_splat(1u));
  return td_convert<td_u16>(td_blend(td_ne_(f, f), x | td_splat(0x400000u), rounded) >> 16);
}

#define TD_SAME(x) (x)
#define TD_FROM_bool TD_SAME
#define TD_FROM_u8 TD_SAME
#define TD_FROM_i32 TD_SAME
#define TD_FROM_i64 TD_SAME
#define TD_FROM_f16 td_half_to_float
#define TD_FROM_bf16 td_bfloat_to_float
#define TD_FROM_f32 TD_SAME
#define TD_FROM_f64 TD_SAME
#define TD_TO_bool td_to_bool
#define TD_TO_u8 td_to<td_u8>
#define TD_TO_i32 td_to<td_i32>
#define TD_TO_i64 td_to<td_i64>
#define TD_TO_f16(x) td_float_to_half(td_to<td_f32>(x))
#define TD_TO_bf16(x) td_float_to_bfloat(td_to<td_f32>(x))
#define TD_TO_f32 td_to<td_f32>
#define TD_TO_f64 td_to<td_f64>
#define TD_CAST(from, FromV, From, to, ToV, To)                                        \
  TD_FN ToV td_##from##_to_##to(FromV x) { return TD_TO_##to(TD_FROM_##from(x)); }      \
  TD_FN To td_##from##_to_##to(From x) { return td_lane0(td_##from##_to_##to(td_vector(x))); }
#define TD_CASTS_FROM(from, FromV, From)            \
  TD_CAST(from, FromV, From, bool, td_mask, bool)   \
  TD_CAST(from, FromV, From, u8, td_u8v, td_u8)     \
  TD_CAST(from, FromV, From, i32, td_i32v, td_i32)  \
  TD_CAST(from, FromV, From, i64, td_i64v, td_i64)  \
  TD_CAST(from, FromV, From, f16, td_u16v, td_u16)  \
  TD_CAST(from, FromV, From, bf16, td_u16v, td_u16) \
  TD_CAST(from, FromV, From, f32, td_f32v, td_f32)  \
  TD_CAST(from, FromV, From, f64, td_f64v, td_f64)
TD_CASTS_FROM(bool, td_mask, bool)
TD_CASTS_FROM(u8, td_u8v, td_u8)
TD_CASTS_FROM(i32, td_i32v, td_i32)
TD_CASTS_FROM(i64, td_i64v, td_i64)
TD_CASTS_FROM(f16, td_u16v, td_u16)
TD_CASTS_FROM(bf16, td_u16v, td_u16)
TD_CASTS_FROM(f32, td_f32v, td_f32)
TD_CASTS_FROM(f64, td_f64v, td_f64)
#undef TD_CASTS_FROM
#undef TD_CAST

// --- Single elements: lane 0 of the vector form ---

#define TD_SINGLE(name)                                                                                               \
  template <class A> requires td_scalar<A> TD_FN auto td_##name(A a) { return td_lane0(td_##name(td_vector(a))); }
TD_SINGLE(neg) TD_SINGLE(abs) TD_SINGLE(exp) TD_SINGLE(expm1) TD_SINGLE(log) TD_SINGLE(log1p) TD_SINGLE(sin) TD_SINGLE(cos)
TD_SINGLE(tanh) TD_SINGLE(erf) TD_SINGLE(floor) TD_SINGLE(ceil) TD_SINGLE(round) TD_SINGLE(trunc) TD_SINGLE(logical_not)
#undef TD_SINGLE
#define TD_SINGLE(name)                                                                        \
  template <class A> requires td_scalar<A> TD_FN auto td_##name(A a, A b) {                    \
    return td_lane0(td_##name(td_vector(a), td_vector(b)));                                    \
  }
TD_SINGLE(add) TD_SINGLE(sub) TD_SINGLE(mul) TD_SINGLE(div) TD_SINGLE(min) TD_SINGLE(max) TD_SINGLE(pow) TD_SINGLE(eq)
TD_SINGLE(ne) TD_SINGLE(lt) TD_SINGLE(le) TD_SINGLE(gt) TD_SINGLE(ge) TD_SINGLE(logical_and) TD_SINGLE(logical_or)
TD_SINGLE(logical_xor)
#undef TD_SINGLE
template <class A> requires td_scalar<A> TD_FN A td_idiv(A a, A b) { return td_idiv_(a, b); }
template <class A> requires td_scalar<A> TD_FN A td_mod(A a, A b) { return td_mod_(a, b); }
template <class A> requires td_scalar<A> TD_FN A td_select(bool m, A a, A b) { return m ? a : b; }

// --- Memory: n lanes (the others are 0, or left alone), without alignment ---

#if TD_BYTES == 64
typedef char td_q1 __attribute__((vector_size(16)));
typedef short td_q2 __attribute__((vector_size(32)));
typedef int td_q4 __attribute__((vector_size(64)));
typedef long long td_q8 __attribute__((vector_size(64)));
#ifdef __clang__
typedef td_q1 td_p1;
typedef td_q2 td_p2;
#else
typedef char td_p1;
typedef short td_p2;
#endif
#endif
template <class T> TD_FN td_vec<T, 16> td_load_(const T* p, td_i64 n) {
  if (n >= 16) return td_get<T>(p);
#if TD_BYTES == 64
  td_vec<T, 16> r;
  const unsigned m = (1u << n) - 1;
  if constexpr (sizeof(T) == 1) r.v = (decltype(r.v))__builtin_ia32_loaddquqi128_mask((const td_p1*)p, td_q1{}, m);
  else if constexpr (sizeof(T) == 2) r.v = (decltype(r.v))__builtin_ia32_loaddquhi256_mask((const td_p2*)p, td_q2{}, m);
  else if constexpr (sizeof(T) == 4) r.v = (decltype(r.v))__builtin_ia32_loaddqusi512_mask((const int*)p, td_q4{}, m);
  else {
    r.lo.v = (decltype(r.lo.v))__builtin_ia32_loaddqudi512_mask((const long long*)p, td_q8{}, m & 255);
    r.hi.v = (decltype(r.hi.v))__builtin_ia32_loaddqudi512_mask((const long long*)(p + 8), td_q8{}, m >> 8);
  }
  return r;
#else
  T t[16] = {};
  TD_ROLLED for (td_i64 i = 0; i < n; ++i) t[i] = p[i];
  return td_get<T>(t);
#endif
}
template <class T> TD_FN void td_store_(T* p, td_vec<T, 16> x, td_i64 n) {
  if (n >= 16) return td_put(p, x);
#if TD_BYTES == 64
  const unsigned m = (1u << n) - 1;
  if constexpr (sizeof(T) == 1) __builtin_ia32_storedquqi128_mask((td_p1*)p, (td_q1)x.v, m);
  else if constexpr (sizeof(T) == 2) __builtin_ia32_storedquhi256_mask((td_p2*)p, (td_q2)x.v, m);
  else if constexpr (sizeof(T) == 4) __builtin_ia32_storedqusi512_mask((int*)p, (td_q4)x.v, m);
  else {
    __builtin_ia32_storedqudi512_mask((long long*)p, (td_q8)x.lo.v, m & 255);
    __builtin_ia32_storedqudi512_mask((long long*)(p + 8), (td_q8)x.hi.v, m >> 8);
  }
#else
  T t[16];
  td_put(t, x);
  TD_ROLLED for (td_i64 i = 0; i < n; ++i) p[i] = t[i];
#endif
}
template <class T> TD_FN td_vec<T, 16> td_gather_(const T* p, td_i64 step, td_i64 n) {
  T t[16] = {};
  for (td_i64 i = 0; i < n; ++i) t[i] = p[i * step];
  return td_get<T>(t);
}
template <class T> TD_FN void td_scatter_(T* p, td_i64 step, td_vec<T, 16> x, td_i64 n) {
  T t[16];
  td_put(t, x);
  for (td_i64 i = 0; i < n; ++i) p[i * step] = t[i];
}
// The offset of position `i` along an indexed axis; outside of it the error word is set and the offset is 0.
TD_FN td_i64 td_at(td_i64 i, td_i64 extent, td_i64 stride, td_i64* error, td_i64 code) {
  if (__builtin_expect((td_u64)i < (td_u64)extent, 1)) return i * stride;
  __atomic_store_n(error, code, __ATOMIC_RELAXED);
  return 0;
}
template <class T>
TD_FN td_vec<T, 16> td_pick_(const T* p, td_i64 step, td_i64v index, td_i64 extent, td_i64 stride, td_i64 n, td_i64* error, td_i64 code) {
  T t[16] = {};
  td_i64 k[16];
  td_put(k, index);
  for (td_i64 i = 0; i < n; ++i) {
    const td_i64 offset = td_at(k[i], extent, stride, error, code);
    if (extent > 0) t[i] = p[i * step + offset];
  }
  return td_get<T>(t);
}
#define TD_MEMORY(name, V, T, from, to)                                                                                          \
  TD_FN V td_load_##name(const T* p, td_i64 n) { return from(td_load_(p, n)); }                                                  \
  TD_FN void td_store_##name(T* p, V x, td_i64 n) { td_store_(p, to(x), n); }                                                    \
  TD_FN V td_gather_##name(const T* p, td_i64 step, td_i64 n) { return from(td_gather_(p, step, n)); }                           \
  TD_FN void td_scatter_##name(T* p, td_i64 step, V x, td_i64 n) { td_scatter_(p, step, to(x), n); }                             \
  TD_FN V td_pick_##name(const T* p, td_i64 step, td_i64v index, td_i64 extent, td_i64 stride, td_i64 n, td_i64* e, td_i64 code) { \
    return from(td_pick_(p, step, index, extent, stride, n, e, code));                                                           \
  }
TD_MEMORY(bool, td_mask, td_u8, td_to_bool, td_to<td_u8>)
TD_MEMORY(u8, td_u8v, td_u8, TD_SAME, TD_SAME)
TD_MEMORY(i32, td_i32v, td_i32, TD_SAME, TD_SAME)
TD_MEMORY(i64, td_i64v, td_i64, TD_SAME, TD_SAME)
TD_MEMORY(f16, td_u16v, td_u16, TD_SAME, TD_SAME)
TD_MEMORY(bf16, td_u16v, td_u16, TD_SAME, TD_SAME)
TD_MEMORY(f32, td_f32v, td_f32, TD_SAME, TD_SAME)
TD_MEMORY(f64, td_f64v, td_f64, TD_SAME, TD_SAME)
#undef TD_MEMORY
TD_FN bool td_bool(td_u8 x) { return x != 0; }
TD_FN td_mask td_splat_bool(bool x) { return td_vector(x); }
TD_FN td_u8v td_splat_u8(td_u8 x) { return td_splat(x); }
TD_FN td_i32v td_splat_i32(td_i32 x) { return td_splat(x); }
TD_FN td_i64v td_splat_i64(td_i64 x) { return td_splat(x); }
TD_FN td_u16v td_splat_f16(td_u16 x) { return td_splat(x); }
TD_FN td_u16v td_splat_bf16(td_u16 x) { return td_splat(x); }
TD_FN td_f32v td_splat_f32(td_f32 x) { return td_splat(x); }
TD_FN td_f64v td_splat_f64(td_f64 x) { return td_splat(x); }
TD_FN td_i64v td_iota(td_i64 first) { return td_splat(first) + td_lane_numbers<td_i64>(); }
TD_FN td_i64 td_number_i64(td_i64 word) { return word; }
TD_FN td_f64 td_number_f64(td_i64 word) { return __builtin_bit_cast(td_f64, word); }

// --- Random numbers: Philox 4x32-10 as core/generator.h states it ---

typedef td_vec<td_u64, 8> td_u64x8;  // 32-bit words of 8 counters, one a lane; the upper halves are rubbish in between
TD_T2 TD_FN TD_V td_mul32(TD_V a, td_u64 b) {  // product of the low halves
  if constexpr (!td_whole<T, N>) {
    return {td_mul32(a.lo, b), td_mul32(a.hi, b)};
  } else {
#ifdef __clang__  // sees the instruction behind this
    const TD_V low = td_splat<T, N>(0xffffffffu);
    return {(a & low) * td_splat<T, N>(b)};
#else
    typedef typename td_vec<int, 2 * N>::V I;
    const TD_V c = td_splat<T, N>(b);
#if TD_BYTES == 64
    return {(decltype(a.v))__builtin_ia32_pmuludq512_mask((I)a.v, (I)c.v, td_q8{}, -1)};
#elif TD_BYTES == 32
    return {(decltype(a.v))__builtin_ia32_pmuludq256((I)a.v, (I)c.v)};
#else
    return {(decltype(a.v))__builtin_ia32_pmuludq128((I)a.v, (I)c.v)};
#endif
#endif
  }
}
// Lane k of a beside lane k of b.
TD_T2 TD_FN td_vec<T, 2 * N> td_zip(TD_V a, TD_V b) {
  if constexpr (!td_whole<T, N>) return {td_zip(a.lo, b.lo), td_zip(a.hi, b.hi)};
  else if constexpr (N == 8)
    return {{__builtin_shufflevector(a.v, b.v, 0, 8, 1, 9, 2, 10, 3, 11)}, {__builtin_shufflevector(a.v, b.v, 4, 12, 5, 13, 6, 14, 7, 15)}};
  else if constexpr (N == 4) return {{__builtin_shufflevector(a.v, b.v, 0, 4, 1, 5)}, {__builtin_shufflevector(a.v, b.v, 2, 6, 3, 7)}};
  else return {{__builtin_shufflevector(a.v, b.v, 0, 2)}, {__builtin_shufflevector(a.v, b.v, 1, 3)}};
}
// The words of counters `first` .. `first` + 7 in order: 32 words of 32 bits, 64 half-words of 16.
TD_FN td_vec<td_u64, 16> td_random_words(td_u64 seed, td_u64 first) {
  const td_u64x8 low = td_splat<td_u64, 8>(0xffffffffu);
  td_u64x8 c0 = td_splat<td_u64, 8>(first) + td_low(td_lane_numbers<td_u64>()), c1 = c0 >> 32, c2 = {}, c3 = {};
  td_u32 k0 = (td_u32)seed, k1 = (td_u32)(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const td_u64x8 p0 = td_mul32(c0, 0xD2511F53u), p1 = td_mul32(c2, 0xCD9E8D57u);
    c0 = (p1 >> 32) ^ c1 ^ td_splat<td_u64, 8>(k0);
    c2 = (p0 >> 32) ^ c3 ^ td_splat<td_u64, 8>(k1);
    c1 = p1, c3 = p0;
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return td_zip((c0 & low) | (c1 << 32), (c2 & low) | (c3 << 32));
}
// Word i % per of counter `offset` + i / per, per = 4 words of 32 bits or 8 of 16, for each lane i of `index`. `w` gets
// them with the one before and the one after.
template <class W, int per> TD_FN void td_random_lanes(W (&w)[18], td_i64v index, td_i64 seed, td_i64 offset) {
  W all[1 + 128 / sizeof(W)];
  const td_i64 first = td_lane0(index);
  if (__builtin_expect(!td_any(td_ne_(index, td_iota(first))), 1)) {
    const auto words = td_random_words((td_u64)seed, (td_u64)offset + (td_u64)first / per);
    all[0] = 0;
    td_put(all + 1, words);
    __builtin_memcpy(w, all + (td_u64)first % per, sizeof w);
    return;
  }
  td_i64 i[16];
  td_put(i, index);
  for (int l = 0; l < 16; ++l) {
    const auto words = td_random_words((td_u64)seed, (td_u64)offset + (td_u64)i[l] / per);
    td_put(all + 1, words);
    w[l + 1] = all[1 + (td_u64)i[l] % per];
  }
}
template <class W> TD_FN td_vec<W, 16> td_words(const W* w) { return td_get<W>(w); }
TD_FN td_f32v td_uniform_of(td_vec<td_u32, 16> word) { return td_convert<td_f32>(td_bits<td_i32>(word >> 8)) * td_c(0x1p-24f); }
TD_FN td_f32v td_uniform16_of(td_u16v word) { return td_convert<td_f32>(td_convert<td_i32>(word)) * td_c(0x1p-16f); }
TD_FN td_f32v td_uniform(td_i64v index, td_i64 seed, td_i64 offset) {
  td_u32 w[18];
  td_random_lanes<td_u32, 4>(w, index, seed, offset);
  return td_uniform_of(td_words(w + 1));
}
TD_FN td_f32v td_uniform16(td_i64v index, td_i64 seed, td_i64 offset) {
  td_u16 w[18];
  td_random_lanes<td_u16, 8>(w, index, seed, offset);
  return td_uniform16_of(td_words(w + 1));
}
// Box-Muller. Words x, y of elements 2j, 2j + 1: r = sqrt(-2 log(x 2^-32 + 2^-33)), x rounded to float32 first; element 2j is
// r cos(2 pi y 2^-32), element 2j + 1 is r sin of it. The angle is taken as k quarter turns and a rest of +-1/8 turn.
TD_FN td_f32v td_normal_of(td_vec<td_u32, 16> x, td_vec<td_u32, 16> y, td_i32v odd) {
  const td_f32v high = td_convert<td_f32>(td_bits<td_i32>(x >> 16)), low = td_convert<td_f32>(td_bits<td_i32>(x & td_splat(0xffffu)));
  const td_f32v u = td_fma(td_fma(high, td_c(65536.0f), low), td_c(0x1p-32f), td_c(0x1p-33f));
  const td_f32v r = td_sqrt(td_c(-2.0f) * td_log(u));
  const auto k = (y + td_splat(1u << 29)) >> 30;
  const td_f32v rest = td_convert<td_f32>(td_bits<td_i32>(y - (k << 30))) * td_c(0x1.921fb6p-30f);
  return r * td_sine_core(rest, td_bits<td_i32>(k) + td_splat(1) + odd);
}
TD_FN td_f32v td_normal(td_i64v index, td_i64 seed, td_i64 offset) {
  td_u32 w[18];
  td_random_lanes<td_u32, 4>(w, index, seed, offset);
  const td_i32v odd = -(td_convert<td_i32>(index) & td_splat(1)), even = odd ^ td_splat(-1);
  if (__builtin_expect(td_any(td_ne_(index, td_iota(td_lane0(index)))), 0)) {
    td_u32 other[18];
    td_random_lanes<td_u32, 4>(other, index ^ td_splat<td_i64>(1), seed, offset);
    const auto self = td_words(w + 1), pair = td_words(other + 1);
    return td_normal_of(td_blend(even, self, pair), td_blend(even, pair, self), odd);
  }
  const auto self = td_words(w + 1);
  return td_normal_of(td_blend(even, self, td_words(w)), td_blend(even, td_words(w + 2), self), odd);
}
#define TD_SINGLE(name) \
  TD_FN td_f32 td_##name(td_i64 i, td_i64 seed, td_i64 offset) { return td_lane0(td_##name(td_splat(i), seed, offset)); }
TD_SINGLE(uniform) TD_SINGLE(uniform16) TD_SINGLE(normal)
#undef TD_SINGLE

// --- Reductions: the trees of kernel.h ---

// A value and where it stands; index -1: nothing yet.
template <class V> struct td_best { V value; td_i64 index; };
template <class T, int N> struct td_best<td_vec<T, N>> { td_vec<T, N> value; td_vec<td_i64, N> index; };
template <class V> TD_FN td_best<V> td_none() {
  if constexpr (td_scalar<V>) return {V{}, -1};
  else return {V{}, td_splat<td_i64>(-1)};
}
// Lanes below n from a, the others from b.
template <class T> TD_FN td_vec<T, 16> td_first(td_i64 n, td_vec<T, 16> a, td_vec<T, 16> b) {
  if (n >= 16) return a;
  return td_blend(td_lt_(td_lane_numbers<td_int<T>>(), td_splat((td_int<T>)n)), a, b);
}
template <class V> TD_FN td_best<V> td_first(td_i64 n, td_best<V> a, td_best<V> b) {
  return {td_first(n, a.value, b.value), td_first(n, a.index, b.index)};
}
// Greater (or, for argmin, smaller), or NaN where there was none.
#define TD_ARG(name, above)                                                                                            \
  template <class T> TD_FN td_best<td_vec<T, 16>> td_##name(td_best<td_vec<T, 16>> acc, td_vec<T, 16> x, td_i64v at) {  \
    auto better = above(x, acc.value);                                                                                 \
    if constexpr (td_floating<T>) better = better | (td_ne_(x, x) & td_eq_(acc.value, acc.value));                     \
    const td_i64v take = td_convert<td_i64>(better) | (acc.index >> 63);                                               \
    return {td_blend(td_convert<td_int<T>>(take), x, acc.value), td_blend(take, at, acc.index)};                       \
  }                                                                                                                    \
  template <class T> TD_FN td_best<td_vec<T, 16>> td_##name(td_best<td_vec<T, 16>> acc, td_vec<T, 16> x, td_i64 first) { \
    return td_##name(acc, x, td_iota(first));                                                                          \
  }                                                                                                                    \
  TD_T2 TD_FN td_best<TD_V> td_join_##name(td_best<TD_V> a, td_best<TD_V> b) {                                         \
    auto better = above(b.value, a.value), same = td_eq_(a.value, b.value);                                            \
    if constexpr (td_floating<T>) {                                                                                    \
      const auto nan_a = td_ne_(a.value, a.value), nan_b = td_ne_(b.value, b.value);                                   \
      same = same | (nan_a & nan_b);                                                                                   \
      better = better | (nan_b & td_eq_(a.value, a.value));                                                            \
    }                                                                                                                  \
    const auto none = a.index >> 63, usable = td_ge_(b.index, td_vec<td_i64, N>{});                                    \
    const auto take = (td_convert<td_i64>(better) | none | (td_convert<td_i64>(same) & td_lt_(b.index, a.index))) & usable; \
    return {td_blend(td_convert<td_int<T>>(take), b.value, a.value), td_blend(take, b.index, a.index)};                \
  }                                                                                                                    \
  template <class T> TD_FN td_best<T> td_join_##name(td_best<T> a, td_best<T> b) {                                     \
    const auto r = td_join_##name(td_best<td_vec<T, 2>>{td_splat<T, 2>(a.value), td_splat<td_i64, 2>(a.index)},        \
                                  td_best<td_vec<T, 2>>{td_splat<T, 2>(b.value), td_splat<td_i64, 2>(b.index)});       \
    return {td_lane0(r.value), td_lane0(r.index)};                                                                     \
  }
TD_ARG(argmax, td_gt_)
TD_ARG(argmin, td_lt_)
#undef TD_ARG
TD_T2 TD_FN auto td_low(td_best<TD_V> a) { return td_best<td_vec<T, N / 2>>{td_low(a.value), td_low(a.index)}; }
TD_T2 TD_FN auto td_high(td_best<TD_V> a) { return td_best<td_vec<T, N / 2>>{td_high(a.value), td_high(a.index)}; }
TD_T2 TD_FN T td_last_two(TD_V a, T& other) { return other = a.v[1], a.v[0]; }
TD_T2 TD_FN td_best<T> td_last_two(td_best<TD_V> a, td_best<T>& other) {
  other = {a.value.v[1], a.index.v[1]};
  return {a.value.v[0], a.index.v[0]};
}
template <class V> using td_itself = V;
TD_T2 TD_FN T td_one_of(TD_V) { return {}; }
TD_T2 TD_FN td_best<T> td_one_of(td_best<TD_V>) { return {}; }
// 16 lanes, or 64, to one element, by halves.
#define TD_JOIN(name, join, Of)                                                                      \
  template <class T> TD_FN auto td_fold_##name(Of<td_vec<T, 16>> all) {                              \
    const auto eight = join(td_low(all), td_high(all));                                              \
    const auto four = join(td_low(eight), td_high(eight));                                           \
    const auto two = join(td_low(four), td_high(four));                                              \
    decltype(td_one_of(two)) other, one = td_last_two(two, other);                                   \
    return join(one, other);                                                                         \
  }                                                                                                  \
  template <class T> TD_FN auto td_lanes_##name(const Of<td_vec<T, 16>>* a) {                        \
    return td_fold_##name<T>(join(join(a[0], a[2]), join(a[1], a[3])));                              \
  }
TD_JOIN(sum, td_add, td_itself) TD_JOIN(prod, td_mul, td_itself) TD_JOIN(max, td_max, td_itself) TD_JOIN(min, td_min, td_itself)
TD_JOIN(argmax, td_join_argmax, td_best) TD_JOIN(argmin, td_join_argmin, td_best)
#undef TD_JOIN

// --- For printed kernels: draws of consecutive elements, 128 bytes of words at a time ---

template <class W> struct td_draws {
  static constexpr td_i64 per = 16 / (td_i64)sizeof(W), size = 128 / (td_i64)sizeof(W);
  td_i64 first = -(1l << 62);
  W words[1 + size + 1];  // from element `first` - 1, which is not drawn
};
// The words of elements i, i + 1, ..., 16 in all; the one before and the one after where they belong to the same pair.
template <class W> TD_FN const W* td_drawn(td_draws<W>& d, td_i64 i, td_i64 seed, td_i64 offset) {
  if ((td_u64)(i - d.first) > (td_u64)(d.size - 16)) {
    const auto words = td_random_words((td_u64)seed, (td_u64)offset + (td_u64)i / d.per);
    td_put(d.words + 1, words);
    d.first = i - i % d.per;
  }
  return d.words + 1 + (i - d.first);
}
TD_FN td_f32v td_uniform_run(td_draws<td_u32>& d, td_i64 i, td_i64 seed, td_i64 offset) {
  return td_uniform_of(td_words(td_drawn(d, i, seed, offset)));
}
TD_FN td_f32v td_uniform16_run(td_draws<td_u16>& d, td_i64 i, td_i64 seed, td_i64 offset) {
  return td_uniform16_of(td_words(td_drawn(d, i, seed, offset)));
}
TD_FN td_f32v td_normal_run(td_draws<td_u32>& d, td_i64 i, td_i64 seed, td_i64 offset) {
  const td_u32* w = td_drawn(d, i, seed, offset);
  const td_i32v odd = -((td_lane_numbers<td_i32>() + td_splat((td_i32)(i & 1))) & td_splat(1)), even = odd ^ td_splat(-1);
  const auto self = td_words(w);
  return td_normal_of(td_blend(even, self, td_words(w - 1)), td_blend(even, td_words(w + 1), self), odd);
}
