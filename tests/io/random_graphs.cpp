// Random graphs, for this folder's binary too.
#include "tests/jit/random_graphs.cpp"
#include "tests/jit/random_values.cpp"
