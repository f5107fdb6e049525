// Public functions that make, rearrange, look up and order elements. Names, argument order and defaults are
// PyTorch's. Included by functions.h. Stateless but for the default generator; any thread.
#pragma once

#include <initializer_list>

#include "tandem/eager/tensor.h"

namespace tandem {

/// Results that are found along an axis, and where (int64).
struct ValuesIndices {
  Tensor values, indices;
};
struct MinMax {
  Tensor min, max;
};

// Creation.
/// Ones on the diagonal of (n, m), m = n unless said.
Tensor eye(int64_t n, std::optional<int64_t> m = {}, TensorOptions options = {},
           Location where = Location::here());
/// `steps` numbers from start to end, both included.
Tensor linspace(double start, double end, int64_t steps, TensorOptions options = {},
                Location where = Location::here());
/// base to the powers of linspace(start, end, steps).
Tensor logspace(double start, double end, int64_t steps, double base = 10, TensorOptions options = {},
                Location where = Location::here());
/// Rows and columns (2, n), int64, of the elements of a (rows, columns) matrix on the diagonal `offset` and
/// below it, or above it.
Tensor tril_indices(int64_t rows, int64_t columns, int64_t offset = 0, TensorOptions options = {},
                    Location where = Location::here());
Tensor triu_indices(int64_t rows, int64_t columns, int64_t offset = 0, TensorOptions options = {},
                    Location where = Location::here());
/// 0 and 1 with the probabilities p, in p's sizes and type.
Tensor bernoulli(const Tensor& p, Generator* generator = nullptr, Location where = Location::here());
/// Normal numbers of the mean and deviation given per element (which broadcast).
Tensor normal(const Tensor& mean, const Tensor& std, Generator* generator = nullptr,
              Location where = Location::here());
Tensor normal(double mean, double std, const Dims& sizes, TensorOptions options = {},
              Generator* generator = nullptr, Location where = Location::here());
/// n positions drawn along the last axis with probabilities in proportion to the weights (C) or (N, C), which
/// must not be negative; int64. Without replacement positions of weight 0 come only once all others are
/// drawn.
Tensor multinomial(const Tensor& weights, int64_t n, bool replacement = false, Generator* generator = nullptr,
                   Location where = Location::here());
/// 1 at the class that the index names, along a new last axis; int64. Without `classes` as many as the
/// largest index asks for, which reads it.
Tensor one_hot(const Tensor& index, std::optional<int64_t> classes = {}, Location where = Location::here());

// Parts. Views where PyTorch gives views.
/// Parts of `size` positions along an axis, the last one what is left.
std::vector<Tensor> split(const Tensor& t, int64_t size, int64_t axis = 0, Location where = Location::here());
/// Parts of the sizes listed.
std::vector<Tensor> split(const Tensor& t, const Dims& sizes, int64_t axis = 0,
                          Location where = Location::here());
/// At most `chunks` parts of equal size but for the last.
std::vector<Tensor> chunk(const Tensor& t, int64_t chunks, int64_t axis = 0,
                          Location where = Location::here());
/// The positions of an axis one by one.
std::vector<Tensor> unbind(const Tensor& t, int64_t axis = 0, Location where = Location::here());
/// Grids of coordinates (indexing "ij").
std::vector<Tensor> meshgrid(TensorSpan axes, Location where = Location::here());
/// All combinations of elements of vectors: (n1 * n2 * ..., vectors).
Tensor cartesian_prod(TensorSpan vectors, Location where = Location::here());
/// The diagonal of a matrix, or a matrix with the vector as its diagonal.
Tensor diag(const Tensor& t, int64_t offset = 0, Location where = Location::here());
Tensor diag_embed(const Tensor& t, int64_t offset = 0, int64_t axis1 = -2, int64_t axis2 = -1,
                  Location where = Location::here());
Tensor broadcast_to(const Tensor& t, const Dims& sizes, Location where = Location::here());
Tensor rot90(const Tensor& t, int64_t k = 1, int64_t axis0 = 0, int64_t axis1 = 1,
             Location where = Location::here());

// Looking up.
/// The elements where the mask holds: their number depends on its values, so this reads it.
Tensor masked_select(const Tensor& t, const Tensor& mask, Location where = Location::here());
/// The positions (n, axes) of what is not 0; reads it. int64.
Tensor nonzero(const Tensor& t, Location where = Location::here());
/// The different elements, ascending; reads them.
Tensor unique(const Tensor& t, Location where = Location::here());
/// How many of the ascending numbers of `sorted` (n), or (..., n) in step with values (..., m), are below
/// each value (right: below or equal); int64.
Tensor searchsorted(const Tensor& sorted, const Tensor& values, bool right = false,
                    Location where = Location::here());
Tensor bucketize(const Tensor& values, const Tensor& boundaries, bool right = false,
                 Location where = Location::here());

/// gather() of an index that has one size an axis of t, or 1; without an axis both are vectors.
Tensor take_along_dim(const Tensor& t, const Tensor& index, std::optional<int64_t> axis = {},
                      Location where = Location::here());
/// Whether each element is one of those of `test`; bool.
Tensor isin(const Tensor& elements, const Tensor& test, Location where = Location::here());
/// How often each of 0, 1, ... occurs in the integers t (n), int64, or the sums of their weights (n); as many
/// as the largest asks for, which reads it, and at least `minlength`.
Tensor bincount(const Tensor& t, const Tensor& weights = {}, int64_t minlength = 0,
                Location where = Location::here());
/// How many elements fall into each of `bins` parts of [min, max], in t's type; if both are equal, of the
/// elements' own range. Others, and NaN, are not counted.
Tensor histc(const Tensor& t, int64_t bins = 100, double min = 0, double max = 0,
             Location where = Location::here());

// Products.
/// Of matrices, (B, N, K) x (B, K, M), matrix by vector, vectors, and column by row.
Tensor mm(const Tensor& a, const Tensor& b, Location where = Location::here());
Tensor bmm(const Tensor& a, const Tensor& b, Location where = Location::here());
Tensor mv(const Tensor& a, const Tensor& b, Location where = Location::here());
Tensor dot(const Tensor& a, const Tensor& b, Location where = Location::here());
Tensor outer(const Tensor& a, const Tensor& b, Location where = Location::here());
/// Summed over the last `axes` axes of a and the first ones of b, or over those listed, pair by pair.
Tensor tensordot(const Tensor& a, const Tensor& b, int64_t axes = 2, Location where = Location::here());
Tensor tensordot(const Tensor& a, const Tensor& b, const Dims& axes_a, const Dims& axes_b,
                 Location where = Location::here());
/// Each element of a times the whole of b, as blocks in the places of those elements.
Tensor kron(const Tensor& a, const Tensor& b, Location where = Location::here());
/// The cross product along an axis of size 3.
Tensor cross(const Tensor& a, const Tensor& b, int64_t axis = -1, Location where = Location::here());
/// The p-norms of a's rows (..., P, D) minus b's (..., R, D): (..., P, R).
Tensor cdist(const Tensor& a, const Tensor& b, double p = 2, Location where = Location::here());
/// beta * c + alpha * a b
Tensor addmm(const Tensor& c, const Tensor& a, const Tensor& b, double beta = 1, double alpha = 1,
             Location where = Location::here());
Tensor baddbmm(const Tensor& c, const Tensor& a, const Tensor& b, double beta = 1, double alpha = 1,
               Location where = Location::here());
/// Products summed over the letters that the result lacks: einsum("bij,bjk->bik", {a, b}). Without "->" the
/// result has the letters that occur once, in alphabetical order. A letter twice in one operand is its
/// diagonal. "..." stands for all further axes of an operand, which are matched from their last on; in front
/// of the result without "->", summed where "->" leaves them out. Axes of size 1 broadcast. Several operands
/// are multiplied from left to right.
Tensor einsum(const std::string& equation, TensorSpan operands, Location where = Location::here());

}  // namespace tandem
