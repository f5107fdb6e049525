// Recurrent cells and layers: RNN, LSTM, GRU, with PyTorch's parameter names, order of gates and
// initialisation (uniform within 1 / sqrt(hidden_size)). Ownership and threads as in module.h.
#pragma once

#include "tandem/eager/nn/module.h"
#include "tandem/eager/nn/packed.h"

namespace tandem::nn {

enum class Nonlinearity : uint8_t { tanh, relu };

struct LstmState {
  Tensor h, c;  // undefined: zeros
};

/// What one step computes. Products of the input and of the state, with their biases, come first.
enum class RecurrentKind : uint8_t { rnn_tanh, rnn_relu, lstm, gru };

/// Parameters of one step: (gates * hidden, input), (gates * hidden, hidden) and biases, undefined for none.
struct RecurrentWeights {
  Tensor weight_ih, weight_hh, bias_ih, bias_hh;
};

/// The parameters of a cell, and its step. Input (N, input_size) or (input_size), state (N, hidden_size) or
/// (hidden_size).
class RecurrentCell : public Module {
 public:
  const int64_t input_size, hidden_size;
  const RecurrentWeights weights;

 protected:
  RecurrentCell(RecurrentKind kind, int64_t input_size, int64_t hidden_size, bool bias, TensorOptions options,
                Location where);
  LstmState step(const Tensor& x, LstmState state, Location where) const;

 private:
  const RecurrentKind kind_;
};

/// tanh or relu of weight_ih x + bias_ih + weight_hh h + bias_hh.
class RNNCell : public RecurrentCell {
 public:
  RNNCell(int64_t input_size, int64_t hidden_size, bool bias = true,
          Nonlinearity nonlinearity = Nonlinearity::tanh, TensorOptions options = {},
          Location where = Location::here());
  Tensor forward(const Tensor& x, const Tensor& h = {}, Location where = Location::here()) const {
    return step(x, {h, {}}, where).h;
  }
  Tensor operator()(const Tensor& x, const Tensor& h = {}, Location where = Location::here()) const {
    return forward(x, h, where);
  }
};

/// Long short-term memory (Hochreiter and Schmidhuber, 1997); gates i, f, g, o.
class LSTMCell : public RecurrentCell {
 public:
  LSTMCell(int64_t input_size, int64_t hidden_size, bool bias = true, TensorOptions options = {},
           Location where = Location::here());
  LstmState forward(const Tensor& x, const LstmState& state = {}, Location where = Location::here()) const {
    return step(x, state, where);
  }
  LstmState operator()(const Tensor& x, const LstmState& state = {},
                       Location where = Location::here()) const {
    return forward(x, state, where);
  }
};

/// Gated recurrent unit (Cho et al., 2014); gates r, z, n.
class GRUCell : public RecurrentCell {
 public:
  GRUCell(int64_t input_size, int64_t hidden_size, bool bias = true, TensorOptions options = {},
          Location where = Location::here());
  Tensor forward(const Tensor& x, const Tensor& h = {}, Location where = Location::here()) const {
    return step(x, {h, {}}, where).h;
  }
  Tensor operator()(const Tensor& x, const Tensor& h = {}, Location where = Location::here()) const {
    return forward(x, h, where);
  }
};

struct RecurrentOptions {
  int64_t num_layers = 1;
  bool bias = true, batch_first = false;
  double dropout = 0;  // of the outputs of all layers but the last, while training
  bool bidirectional = false;
};

/// What the layers share. x is (T, N, input_size), or (N, T, input_size) with batch_first, or (T,
/// input_size); the output has the last layer's states in place of x, both directions side by side; states
/// are (num_layers * directions, N, hidden_size), directions fastest. With `lengths` (N), int64 or int32,
/// sequence n has lengths[n] steps (PyTorch's packed sequences): beyond them the output is zero whatever x
/// holds, the final state is that of its last step, and the backward direction begins there. Lengths outside
/// [0, T] count as 0 or T (their values are not read on the host); without a step the final state is the
/// initial one. A PackedSequence is padded, run with its lengths, and its output packed like it; states are
/// in the order in which the sequences were given. Parameters: weight_ih_l0, weight_hh_l0, bias_ih_l0,
/// bias_hh_l0, then those of "l0_reverse", "l1", ...
class RecurrentLayers : public Module {
 public:
  const int64_t input_size, hidden_size;
  const RecurrentOptions options;
  const std::vector<RecurrentWeights> weights;  // per layer and direction

 protected:
  struct Result {
    Tensor output;
    LstmState state;
  };
  RecurrentLayers(RecurrentKind kind, int64_t input_size, int64_t hidden_size, RecurrentOptions options,
                  TensorOptions tensors, Location where);
  Result run(const Tensor& x, const LstmState& initial, const Tensor& lengths, Location where) const;

 private:
  std::vector<RecurrentWeights> made(RecurrentKind kind, const TensorOptions& tensors, Location where);
  const RecurrentKind kind_;
};

class RNN : public RecurrentLayers {
 public:
  RNN(int64_t input_size, int64_t hidden_size, RecurrentOptions options = {},
      Nonlinearity nonlinearity = Nonlinearity::tanh, TensorOptions tensors = {},
      Location where = Location::here());
  /// Output and final state.
  std::pair<Tensor, Tensor> forward(const Tensor& x, const Tensor& h = {}, const Tensor& lengths = {},
                                    Location where = Location::here()) const;
  std::pair<Tensor, Tensor> operator()(const Tensor& x, const Tensor& h = {}, const Tensor& lengths = {},
                                       Location where = Location::here()) const {
    return forward(x, h, lengths, where);
  }
  std::pair<PackedSequence, Tensor> forward(const PackedSequence& x, const Tensor& h = {},
                                            Location where = Location::here()) const;
  std::pair<PackedSequence, Tensor> operator()(const PackedSequence& x, const Tensor& h = {},
                                               Location where = Location::here()) const {
    return forward(x, h, where);
  }
};

class LSTM : public RecurrentLayers {
 public:
  LSTM(int64_t input_size, int64_t hidden_size, RecurrentOptions options = {}, TensorOptions tensors = {},
       Location where = Location::here());
  std::pair<Tensor, LstmState> forward(const Tensor& x, const LstmState& state = {},
                                       const Tensor& lengths = {}, Location where = Location::here()) const;
  std::pair<Tensor, LstmState> operator()(const Tensor& x, const LstmState& state = {},
                                          const Tensor& lengths = {},
                                          Location where = Location::here()) const {
    return forward(x, state, lengths, where);
  }
  std::pair<PackedSequence, LstmState> forward(const PackedSequence& x, const LstmState& state = {},
                                               Location where = Location::here()) const;
  std::pair<PackedSequence, LstmState> operator()(const PackedSequence& x, const LstmState& state = {},
                                                  Location where = Location::here()) const {
    return forward(x, state, where);
  }
};

class GRU : public RecurrentLayers {
 public:
  GRU(int64_t input_size, int64_t hidden_size, RecurrentOptions options = {}, TensorOptions tensors = {},
      Location where = Location::here());
  std::pair<Tensor, Tensor> forward(const Tensor& x, const Tensor& h = {}, const Tensor& lengths = {},
                                    Location where = Location::here()) const;
  std::pair<Tensor, Tensor> operator()(const Tensor& x, const Tensor& h = {}, const Tensor& lengths = {},
                                       Location where = Location::here()) const {
    return forward(x, h, lengths, where);
  }
  std::pair<PackedSequence, Tensor> forward(const PackedSequence& x, const Tensor& h = {},
                                            Location where = Location::here()) const;
  std::pair<PackedSequence, Tensor> operator()(const PackedSequence& x, const Tensor& h = {},
                                               Location where = Location::here()) const {
    return forward(x, h, where);
  }
};

}  // namespace tandem::nn
