// What runs graphs in tests, for this folder's binary too.
#include "tests/jit/graph_runner.cpp"
