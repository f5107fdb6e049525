// The float64 reference of the op tests, for this folder's binary too.
#include "tests/ops/reference_emitter.cpp"
#include "tests/ops/reference_scalar.cpp"
