// RNN, GRU and LSTM as ONNX defines them (docs/Operators.md), forward and through time backward.
//
// Everything inside runs in *step order*: [steps, batch, ...] with the first step that a direction takes first. A
// reverse direction gathers its input rows into that order (each sequence from its own end, where lengths are given)
// and scatters its results back, so that there is one loop for all. The input's share of all gates is one matrix
// product over all steps; only the state's share is left to the loop.
#include <cmath>

#include "core/model/ops/sequence.hpp"
#include "core/model/ops/support.hpp"

namespace nibble::ops {

namespace {

using kernels::MatrixView;

enum class Curve : uint8_t {
  Sigmoid,
  Tanh,
  Relu,
  Affine,
  LeakyRelu,
  ThresholdedRelu,
  ScaledTanh,
  HardSigmoid,
  Elu,
  Softsign,
  Softplus
};

struct Activation {
  Curve curve = Curve::Sigmoid;
  float alpha = 0, beta = 0;
  float clip = 0;  ///< the argument is held within +-clip; 0: it is not
  /// True where the slope follows from the value alone, so that the argument need not be kept.
  bool is_plain() const {
    return clip == 0 && (curve == Curve::Sigmoid || curve == Curve::Tanh || curve == Curve::Relu);
  }
};

struct CurveName {
  std::string_view name;
  Curve curve;
  int numbers;  ///< how many of alpha and beta it takes
  float alpha, beta;
};
// Defaults are those of the operators of the same name; ScaledTanh's operator was dropped from ONNX without any.
constexpr CurveName kCurves[] = {
    {"sigmoid", Curve::Sigmoid, 0, 0, 0},
    {"tanh", Curve::Tanh, 0, 0, 0},
    {"relu", Curve::Relu, 0, 0, 0},
    {"affine", Curve::Affine, 2, 1, 0},
    {"leakyrelu", Curve::LeakyRelu, 1, 0.01f, 0},
    {"thresholdedrelu", Curve::ThresholdedRelu, 1, 1, 0},
    {"scaledtanh", Curve::ScaledTanh, 2, 1, 1},
    {"hardsigmoid", Curve::HardSigmoid, 2, 0.2f, 0.5f},
    {"elu", Curve::Elu, 1, 1, 0},
    {"softsign", Curve::Softsign, 0, 0, 0},
    {"softplus", Curve::Softplus, 0, 0, 0},
};

/// y = f(x), in place.
void activate(const Activation& f, std::span<float> x) {
  if (f.clip > 0) {
    for (float& v : x) v = std::clamp(v, -f.clip, f.clip);
  }
  switch (f.curve) {
    case Curve::Sigmoid: kernels::sigmoid(x, x); return;
    case Curve::Tanh: kernels::tanh(x, x); return;
    case Curve::Relu: kernels::relu(x, x); return;
    case Curve::Affine: kernels::scale_shift(x, f.alpha, f.beta, x); return;
    case Curve::LeakyRelu:
      for (float& v : x) v = v >= 0 ? v : f.alpha * v;
      return;
    case Curve::ThresholdedRelu:
      for (float& v : x) v = v >= f.alpha ? v : 0;
      return;
    case Curve::ScaledTanh:
      kernels::scale_shift(x, f.beta, 0, x);
      kernels::tanh(x, x);
      kernels::scale_shift(x, f.alpha, 0, x);
      return;
    case Curve::HardSigmoid:
      for (float& v : x) v = std::clamp(f.alpha * v + f.beta, 0.0f, 1.0f);
      return;
    case Curve::Elu:
      for (float& v : x) {
        if (v >= 0) continue;
        kernels::exp({&v, 1}, {&v, 1});
        v = f.alpha * (v - 1);
      }
      return;
    case Curve::Softsign:
      for (float& v : x) v = v / (1 + std::abs(v));
      return;
    case Curve::Softplus:
      // log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), which does not overflow.
      for (float& v : x) {
        float small = -std::abs(v);
        kernels::exp({&small, 1}, {&small, 1});
        small += 1;
        kernels::log({&small, 1}, {&small, 1});
        v = std::max(v, 0.0f) + small;
      }
      return;
  }
}

/// f'(x), where y = f(x).
float slope(const Activation& f, float x, float y) {
  if (f.clip > 0) {
    if (std::abs(x) > f.clip) return 0;
    x = std::clamp(x, -f.clip, f.clip);
  }
  switch (f.curve) {
    case Curve::Sigmoid: return y * (1 - y);
    case Curve::Tanh: return 1 - y * y;
    case Curve::Relu: return y > 0 ? 1 : 0;
    case Curve::Affine: return f.alpha;
    case Curve::LeakyRelu: return x >= 0 ? 1 : f.alpha;
    case Curve::ThresholdedRelu: return x >= f.alpha ? 1 : 0;
    case Curve::ScaledTanh: {
      float t = f.beta * x;
      kernels::tanh({&t, 1}, {&t, 1});
      return f.alpha * f.beta * (1 - t * t);
    }
    case Curve::HardSigmoid: return y > 0 && y < 1 ? f.alpha : 0;
    case Curve::Elu: return x >= 0 ? 1 : y + f.alpha;
    case Curve::Softsign: return 1 / ((1 + std::abs(x)) * (1 + std::abs(x)));
    case Curve::Softplus: {
      kernels::sigmoid({&x, 1}, {&x, 1});
      return x;
    }
  }
  return 0;
}

/// grad *= f'(x). `x` may be null where the activation is plain.
void times_slope(const Activation& f, const float* x, const float* y, float* grad, size_t count) {
  if (f.is_plain() && f.curve == Curve::Sigmoid) {
    for (size_t i = 0; i < count; ++i) grad[i] *= y[i] * (1 - y[i]);
  } else if (f.is_plain() && f.curve == Curve::Tanh) {
    for (size_t i = 0; i < count; ++i) grad[i] *= 1 - y[i] * y[i];
  } else {
    for (size_t i = 0; i < count; ++i) grad[i] *= slope(f, x ? x[i] : 0, y[i]);
  }
}

enum class Cell : uint8_t { Rnn, Gru, Lstm };

/// The operator's sizes and attributes, checked.
struct Net {
  Cell cell = Cell::Rnn;
  size_t gates = 1, steps = 0, batch = 0, inputs = 0, hidden = 0, directions = 1;
  bool batch_first = false, only_reverse = false, input_forget = false, linear_before_reset = false;
  bool keeps_arguments = false;         ///< some activation is not plain
  std::vector<Activation> activations;  ///< of each direction one after the other
  std::vector<size_t> lengths;          ///< of each sequence

  size_t per_direction() const { return activations.size() / directions; }
  std::span<const Activation> of(size_t direction) const {
    return std::span(activations).subspan(direction * per_direction(), per_direction());
  }
  bool reverse(size_t direction) const { return only_reverse || direction == 1; }
  bool runs(size_t step, size_t row) const { return step < lengths[row]; }
  /// Where in time a sequence is at a step.
  size_t time(size_t direction, size_t step, size_t row) const {
    return reverse(direction) ? lengths[row] - 1 - step : step;
  }
  size_t rows() const { return steps * batch; }
  size_t gate_width() const { return gates * hidden; }
};

// Inputs of all three; the last two are LSTM's.
enum : size_t { kX, kW, kR, kB, kLengths, kInitialH, kInitialC, kPeephole };

void check_shape(const Call& call, size_t input, std::string_view what, const Shape& expected) {
  if (!call.has(input)) return;
  call.floats(input);
  if (call.inputs[input].shape() == expected) return;
  call.fail(std::string(what) + " must be " + to_string(expected) + ", it is " + to_string(call.inputs[input].shape()));
}

std::vector<Activation> read_activations(const Call& call, Cell cell, size_t directions) {
  std::vector<std::string> names;
  if (const Attribute* given = find_attribute(call.node, "activations")) {
    if (const auto* list = std::get_if<std::vector<std::string>>(&given->value)) names = *list;
  }
  const std::vector<std::string> usual = cell == Cell::Lstm  ? std::vector<std::string>{"sigmoid", "tanh", "tanh"}
                                         : cell == Cell::Gru ? std::vector<std::string>{"sigmoid", "tanh"}
                                                             : std::vector<std::string>{"tanh"};
  const size_t count = usual.size() * directions;
  if (names.empty()) {
    for (size_t i = 0; i < directions; ++i) names.insert(names.end(), usual.begin(), usual.end());
  }
  if (names.size() != count) {
    call.fail("attribute \"activations\" must name " + std::to_string(count) + " functions, it names " +
              std::to_string(names.size()));
  }
  const std::vector<float> alphas = call.reals("activation_alpha"), betas = call.reals("activation_beta");
  const float clip = call.real("clip", 0);
  if (!(clip >= 0)) call.fail("attribute \"clip\" must not be negative, it is " + std::to_string(clip));
  size_t alpha = 0, beta = 0;
  std::vector<Activation> made;
  for (const std::string& name : names) {
    std::string lower = name;
    for (char& c : lower) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    const auto known = std::ranges::find(kCurves, lower, &CurveName::name);
    if (known == std::end(kCurves)) call.refuse("activation \"" + name + "\" is not known");
    Activation f{known->curve, known->alpha, known->beta, clip};
    // The values are consumed in order by the functions that take some.
    const bool has_alpha = alpha < alphas.size(), has_beta = beta < betas.size();
    if (known->curve == Curve::ScaledTanh && !(has_alpha && has_beta))
      call.fail("activation ScaledTanh needs activation_alpha and activation_beta");
    if (known->numbers > 0 && has_alpha) f.alpha = alphas[alpha++];
    if (known->numbers > 1 && has_beta) f.beta = betas[beta++];
    made.push_back(f);
  }
  return made;
}

Net read_net(const Call& call, Cell cell) {
  Net net;
  net.cell = cell;
  net.gates = cell == Cell::Lstm ? 4 : cell == Cell::Gru ? 3 : 1;
  const std::string direction = call.text("direction", "forward");
  if (direction == "bidirectional")
    net.directions = 2;
  else if (direction == "reverse")
    net.only_reverse = true;
  else if (direction != "forward")
    call.fail("attribute \"direction\" must be forward, reverse or bidirectional, it is \"" + direction + "\"");
  net.batch_first = call.integer("layout", 0) != 0;
  net.input_forget = cell == Cell::Lstm && call.integer("input_forget", 0) != 0;
  net.linear_before_reset = cell == Cell::Gru && call.integer("linear_before_reset", 0) != 0;

  const Shape& x = (call.floats(kX), call.in(kX).shape());
  const Shape& r = (call.floats(kR), call.in(kR).shape());
  call.floats(kW);
  if (x.size() != 3) call.fail("the input must have three axes (steps, batch, values), it is " + to_string(x));
  if (r.size() != 3) call.fail("the recurrence weights must have three axes, they are " + to_string(r));
  net.steps = x[net.batch_first ? 1 : 0];
  net.batch = x[net.batch_first ? 0 : 1];
  net.inputs = x[2];
  net.hidden = r[2];
  const size_t d = net.directions, h = net.hidden;
  // Without values in the input or the state, nothing bounds the other extents.
  if (net.inputs == 0 || h == 0) call.fail("input and state must not be empty, the input is " + to_string(x));
  if (const int64_t given = call.integer("hidden_size", static_cast<int64_t>(h)); given != static_cast<int64_t>(h)) {
    call.fail("attribute \"hidden_size\" is " + std::to_string(given) + ", the recurrence weights are " + to_string(r));
  }
  check_shape(call, kR, "recurrence weights", {d, net.gate_width(), h});
  check_shape(call, kW, "input weights", {d, net.gate_width(), net.inputs});
  check_shape(call, kB, "bias", {d, 2 * net.gate_width()});
  const Shape state = net.batch_first ? Shape{net.batch, d, h} : Shape{d, net.batch, h};
  check_shape(call, kInitialH, "initial state", state);
  if (cell == Cell::Lstm) {
    check_shape(call, kInitialC, "initial cell", state);
    check_shape(call, kPeephole, "peepholes", {d, 3 * h});
  }
  net.lengths.assign(net.batch, net.steps);
  if (call.has(kLengths)) {
    const std::vector<int64_t> lengths = call.integers(kLengths);
    if (lengths.size() != net.batch) {
      call.fail("sequence_lens must have one entry for each of " + std::to_string(net.batch) + " sequences, it has " +
                std::to_string(lengths.size()));
    }
    for (size_t i = 0; i < net.batch; ++i) {
      if (lengths[i] < 0 || static_cast<uint64_t>(lengths[i]) > net.steps) {
        call.fail("sequence_lens must be 0 to " + std::to_string(net.steps) + ", one is " + std::to_string(lengths[i]));
      }
      net.lengths[i] = static_cast<size_t>(lengths[i]);
    }
  }
  net.activations = read_activations(call, cell, d);
  net.keeps_arguments = !std::ranges::all_of(net.activations, &Activation::is_plain);
  return net;
}

constexpr size_t kSwap[] = {1, 0, 2};

/// An input in the layout that everything here uses, time (or direction) first.
Tensor time_first(const Call& call, const Net& net, size_t input) {
  if (!call.has(input)) return {};
  return net.batch_first ? transposed(call, call.inputs[input], kSwap) : call.inputs[input];
}

/// Rows of one direction in step order: [steps, batch, width] out of an array whose row (time, row) starts at
/// time * time_step + row * row_step. Rows after a sequence's end are zero.
void gather_steps(const Net& net, size_t direction, const float* from, size_t time_step, size_t row_step, size_t width,
                  float* to) {
  for (size_t s = 0; s < net.steps; ++s) {
    for (size_t n = 0; n < net.batch; ++n, to += width) {
      if (net.runs(s, n))
        std::copy_n(from + net.time(direction, s, n) * time_step + n * row_step, width, to);
      else
        std::fill_n(to, width, 0.0f);
    }
  }
}

MatrixView plain(const float* data, size_t columns) { return {data, columns, 1}; }
MatrixView turned(const float* data, size_t columns) { return {data, 1, columns}; }

/// What a pass over one direction works with. All in step order; states have the initial one before the first step's:
/// [steps + 1, batch, hidden].
struct Track {
  const float* w;         ///< [gates * hidden, inputs]
  const float* r;         ///< [gates * hidden, hidden]
  const float* b;         ///< [2 * gates * hidden] or null
  const float* peephole;  ///< [3 * hidden] (i, o, f) or null
  float* gates;           ///< [steps, batch, gates * hidden]: arguments of the activations, then their values
  float* arguments;       ///< the arguments kept, or null
  float* states;
  float* cells;    ///< LSTM
  float* carried;  ///< GRU with linear_before_reset: states R_h^T + Rb_h, [steps, batch, hidden]; or null
};

void rnn_step(const Net& net, std::span<const Activation> f, const Track& at, size_t s) {
  const size_t h = net.hidden;
  float* gates = at.gates + s * net.batch * h;
  const float* before = at.states + s * net.batch * h;
  float* after = at.states + (s + 1) * net.batch * h;
  kernels::matmul(net.batch, h, h, plain(before, h), turned(at.r, h), gates, h, true, scratch());
  if (at.arguments) std::copy_n(gates, net.batch * h, at.arguments + s * net.batch * h);
  activate(f[0], {gates, net.batch * h});
  for (size_t n = 0; n < net.batch; ++n) std::copy_n((net.runs(s, n) ? gates : before) + n * h, h, after + n * h);
}

void gru_step(const Net& net, std::span<const Activation> f, const Track& at, size_t s, std::span<float> room) {
  const size_t h = net.hidden, width = 3 * h, batch = net.batch;
  float* gates = at.gates + s * batch * width;
  const float* before = at.states + s * batch * h;
  float* after = at.states + (s + 1) * batch * h;
  kernels::matmul(batch, 2 * h, h, plain(before, h), turned(at.r, h), gates, width, true, scratch());
  if (at.arguments) std::copy_n(gates, batch * width, at.arguments + s * batch * width);
  for (size_t n = 0; n < batch; ++n) activate(f[0], {gates + n * width, 2 * h});
  const float* r_h = at.r + 2 * h * h;
  if (net.linear_before_reset) {
    float* carried = at.carried + s * batch * h;
    for (size_t n = 0; n < batch; ++n) {
      if (at.b)
        std::copy_n(at.b + width + 2 * h, h, carried + n * h);
      else
        std::fill_n(carried + n * h, h, 0.0f);
    }
    kernels::matmul(batch, h, h, plain(before, h), turned(r_h, h), carried, h, true, scratch());
    for (size_t n = 0; n < batch; ++n) {
      float* z = gates + n * width;
      for (size_t j = 0; j < h; ++j) z[2 * h + j] += z[h + j] * carried[n * h + j];
    }
  } else {
    for (size_t n = 0; n < batch; ++n) {
      for (size_t j = 0; j < h; ++j) room[n * h + j] = gates[n * width + h + j] * before[n * h + j];
    }
    kernels::matmul(batch, h, h, plain(room.data(), h), turned(r_h, h), gates + 2 * h, width, true, scratch());
  }
  for (size_t n = 0; n < batch; ++n) {
    float* z = gates + n * width;
    if (at.arguments) std::copy_n(z + 2 * h, h, at.arguments + (s * batch + n) * width + 2 * h);
    activate(f[1], {z + 2 * h, h});
    const float* old = before + n * h;
    float* made = after + n * h;
    if (!net.runs(s, n)) {
      std::copy_n(old, h, made);
      continue;
    }
    for (size_t j = 0; j < h; ++j) made[j] = (1 - z[j]) * z[2 * h + j] + z[j] * old[j];
  }
}

void lstm_step(const Net& net, std::span<const Activation> f, const Track& at, size_t s, std::span<float> room) {
  const size_t h = net.hidden, width = 4 * h, batch = net.batch;
  float* gates = at.gates + s * batch * width;
  const float* before = at.states + s * batch * h;
  float* after = at.states + (s + 1) * batch * h;
  const float* cells_before = at.cells + s * batch * h;
  float* cells_after = at.cells + (s + 1) * batch * h;
  kernels::matmul(batch, width, h, plain(before, h), turned(at.r, h), gates, width, true, scratch());
  for (size_t n = 0; n < batch; ++n) {
    float *i = gates + n * width, *o = i + h, *forget = o + h, *c = forget + h;
    const float* old = cells_before + n * h;
    float* cell = cells_after + n * h;
    if (at.peephole) {
      for (size_t j = 0; j < h; ++j) {
        i[j] += at.peephole[j] * old[j];
        forget[j] += at.peephole[2 * h + j] * old[j];
      }
    }
    float* kept = at.arguments ? at.arguments + (s * batch + n) * width : nullptr;
    if (kept) std::copy_n(i, width, kept);
    activate(f[0], {i, h});
    if (net.input_forget) {
      for (size_t j = 0; j < h; ++j) forget[j] = 1 - i[j];
    } else {
      activate(f[0], {forget, h});
    }
    activate(f[1], {c, h});
    for (size_t j = 0; j < h; ++j) cell[j] = forget[j] * old[j] + i[j] * c[j];
    if (at.peephole) {
      for (size_t j = 0; j < h; ++j) o[j] += at.peephole[h + j] * cell[j];
      if (kept) std::copy_n(o, h, kept + h);
    }
    activate(f[0], {o, h});
    if (!net.runs(s, n)) std::copy_n(old, h, cell);
  }
  std::copy_n(cells_after, batch * h, room.data());
  activate(f[2], room.first(batch * h));
  for (size_t n = 0; n < batch; ++n) {
    const float* o = gates + n * width + h;
    if (!net.runs(s, n)) {
      std::copy_n(before + n * h, h, after + n * h);
      continue;
    }
    for (size_t j = 0; j < h; ++j) after[n * h + j] = o[j] * room[n * h + j];
  }
}

// What forward saves: the kept arrays of all directions.
enum : size_t { kGates, kStates, kCells, kCarried, kArguments, kSavedCount };

struct Kept {
  std::vector<Tensor> tensors;
  float* at(size_t which, size_t direction) {
    Tensor& tensor = tensors[which];
    if (!tensor.exists()) return nullptr;
    return tensor.write<float>().data() + direction * (tensor.elements() / tensor.shape()[0]);
  }
};

Kept allocate_kept(const Net& net) {
  const size_t d = net.directions, h = net.hidden;
  const auto make = [](Shape shape) { return Tensor::allocate(DType::Float32, std::move(shape)); };
  Kept kept{std::vector<Tensor>(kSavedCount)};
  kept.tensors[kGates] = make({d, net.steps, net.batch, net.gate_width()});
  kept.tensors[kStates] = make({d, net.steps + 1, net.batch, h});
  if (net.cell == Cell::Lstm) kept.tensors[kCells] = make({d, net.steps + 1, net.batch, h});
  if (net.linear_before_reset) kept.tensors[kCarried] = make({d, net.steps, net.batch, h});
  if (net.keeps_arguments) kept.tensors[kArguments] = make({d, net.steps, net.batch, net.gate_width()});
  return kept;
}

Track track_of(const Call& call, const Net& net, Kept& kept, size_t direction) {
  const size_t width = net.gate_width();
  Track at{};
  at.w = call.inputs[kW].data<float>().data() + direction * width * net.inputs;
  at.r = call.inputs[kR].data<float>().data() + direction * width * net.hidden;
  at.b = call.has(kB) ? call.inputs[kB].data<float>().data() + direction * 2 * width : nullptr;
  const bool peeps = net.cell == Cell::Lstm && call.has(kPeephole);
  at.peephole = peeps ? call.inputs[kPeephole].data<float>().data() + direction * 3 * net.hidden : nullptr;
  at.gates = kept.at(kGates, direction);
  at.states = kept.at(kStates, direction);
  at.cells = kept.at(kCells, direction);
  at.carried = kept.at(kCarried, direction);
  at.arguments = kept.at(kArguments, direction);
  return at;
}

/// The input of one direction in step order: itself where it is that already.
Tensor steps_of_input(const Net& net, size_t direction, const Tensor& x) {
  if (!net.reverse(direction)) return x;
  Tensor ordered = Tensor::allocate(DType::Float32, x.shape());
  gather_steps(net, direction, x.data<float>().data(), net.batch * net.inputs, net.inputs, net.inputs,
               ordered.write<float>().data());
  return ordered;
}

void start_state(const Net& net, const Tensor& initial, size_t direction, float* states) {
  const size_t count = net.batch * net.hidden;
  if (initial.exists())
    std::copy_n(initial.data<float>().data() + direction * count, count, states);
  else
    std::fill_n(states, count, 0.0f);
}

Kept run(const Call& call, const Net& net) {
  Kept kept = allocate_kept(net);
  const size_t width = net.gate_width(), h = net.hidden;
  const Tensor x = time_first(call, net, kX), initial_h = time_first(call, net, kInitialH),
               initial_c = net.cell == Cell::Lstm ? time_first(call, net, kInitialC) : Tensor();
  std::vector<float> bias(width), room(net.batch * h);
  for (size_t d = 0; d < net.directions; ++d) {
    const Track at = track_of(call, net, kept, d);
    start_state(net, initial_h, d, at.states);
    if (at.cells) start_state(net, initial_c, d, at.cells);
    if (at.b) {
      // GRU's Rb_h stands inside the reset with linear_before_reset.
      const size_t both = net.linear_before_reset ? 2 * h : width;
      for (size_t j = 0; j < width; ++j) bias[j] = at.b[j] + (j < both ? at.b[width + j] : 0);
    }
    for (size_t row = 0; row < net.rows(); ++row) std::copy_n(bias.data(), width, at.gates + row * width);
    const Tensor ordered = steps_of_input(net, d, x);
    kernels::matmul(net.rows(), width, net.inputs, plain(ordered.data<float>().data(), net.inputs),
                    turned(at.w, net.inputs), at.gates, width, true, scratch());
    for (size_t s = 0; s < net.steps; ++s) {
      switch (net.cell) {
        case Cell::Rnn: rnn_step(net, net.of(d), at, s); break;
        case Cell::Gru: gru_step(net, net.of(d), at, s, room); break;
        case Cell::Lstm: lstm_step(net, net.of(d), at, s, room); break;
      }
    }
  }
  return kept;
}

template <Cell cell>
std::vector<Tensor> forward(Call& call) {
  const Net net = read_net(call, cell);
  Kept kept = run(call, net);
  const size_t h = net.hidden, state = net.batch * h;
  std::vector<Tensor> outputs(cell == Cell::Lstm ? 3 : 2);
  if (call.wants(0)) {
    // [steps, directions, batch, hidden]; zero after a sequence's end.
    Tensor y = zeros({net.steps, net.directions, net.batch, h});
    float* to = y.write<float>().data();
    for (size_t d = 0; d < net.directions; ++d) {
      const float* from = kept.at(kStates, d) + state;
      for (size_t s = 0; s < net.steps; ++s) {
        for (size_t n = 0; n < net.batch; ++n) {
          if (!net.runs(s, n)) continue;
          std::copy_n(from + (s * net.batch + n) * h, h,
                      to + ((net.time(d, s, n) * net.directions + d) * net.batch + n) * h);
        }
      }
    }
    constexpr size_t kBatchFirst[] = {2, 0, 1, 3};
    outputs[0] = net.batch_first ? transposed(call, y, kBatchFirst) : std::move(y);
  }
  for (size_t output = 1; output < outputs.size(); ++output) {
    if (!call.wants(output)) continue;
    Tensor last = Tensor::allocate(DType::Float32, {net.directions, net.batch, h});
    for (size_t d = 0; d < net.directions; ++d) {
      std::copy_n(kept.at(output == 1 ? kStates : kCells, d) + net.steps * state, state,
                  last.write<float>().data() + d * state);
    }
    outputs[output] = net.batch_first ? transposed(call, last, kSwap) : std::move(last);
  }
  if (call.training) call.saved = std::move(kept.tensors);
  return outputs;
}

/// Sums of the columns of [rows, width], added to `sums`.
void add_columns(const float* values, size_t rows, size_t width, size_t columns, float* sums) {
  for (size_t row = 0; row < rows; ++row)
    kernels::add({sums, columns}, {values + row * width, columns}, {sums, columns});
}

/// What the loop backward works with: gradients of the gates' arguments (all steps), of state and cell (now).
struct Slopes {
  float* gates;    ///< [steps, batch, gates * hidden]; zero where a sequence has ended
  float* state;    ///< [batch, hidden]: of the state after the step, then of the one before
  float* cell;     ///< LSTM
  float* carried;  ///< GRU, [steps, batch, hidden]: of what R_h's product gives
};

void rnn_step_back(const Net& net, std::span<const Activation> f, const Track& at, const Slopes& grad, size_t s) {
  const size_t h = net.hidden, batch = net.batch, here = s * batch * h;
  float* dg = grad.gates + here;
  for (size_t n = 0; n < batch; ++n) {
    if (!net.runs(s, n)) continue;
    std::copy_n(grad.state + n * h, h, dg + n * h);
    times_slope(f[0], at.arguments ? at.arguments + here + n * h : nullptr, at.gates + here + n * h, dg + n * h, h);
    std::fill_n(grad.state + n * h, h, 0.0f);
  }
  kernels::matmul(batch, h, h, plain(dg, h), plain(at.r, h), grad.state, h, true, scratch());
}

void gru_step_back(const Net& net, std::span<const Activation> f, const Track& at, const Slopes& grad, size_t s,
                   std::span<float> room) {
  const size_t h = net.hidden, width = 3 * h, batch = net.batch;
  const float* before = at.states + s * batch * h;
  const float* r_h = at.r + 2 * h * h;
  float* carried = grad.carried + s * batch * h;
  for (size_t n = 0; n < batch; ++n) {
    if (!net.runs(s, n)) continue;
    const size_t row = (s * batch + n) * width;
    const float* z = at.gates + row;
    const float* kept = at.arguments ? at.arguments + row : nullptr;
    float* dz = grad.gates + row;
    float* dh = grad.state + n * h;
    const float* old = before + n * h;
    // h' = (1 - z) h~ + z h
    for (size_t j = 0; j < h; ++j) {
      dz[j] = dh[j] * (old[j] - z[2 * h + j]);
      dz[2 * h + j] = dh[j] * (1 - z[j]);
      dh[j] *= z[j];
    }
    times_slope(f[0], kept, z, dz, h);
    times_slope(f[1], kept ? kept + 2 * h : nullptr, z + 2 * h, dz + 2 * h, h);
    for (size_t j = 0; j < h; ++j) {
      carried[n * h + j] = net.linear_before_reset ? dz[2 * h + j] * z[h + j] : dz[2 * h + j];
    }
  }
  // Through the product with R_h: to the state, or to reset times state.
  kernels::matmul(batch, h, h, plain(carried, h), plain(r_h, h), room.data(), h, false, scratch());
  for (size_t n = 0; n < batch; ++n) {
    if (!net.runs(s, n)) continue;
    const size_t row = (s * batch + n) * width;
    const float* z = at.gates + row;
    float* dz = grad.gates + row;
    float* dh = grad.state + n * h;
    for (size_t j = 0; j < h; ++j) {
      if (net.linear_before_reset) {
        dz[h + j] = dz[2 * h + j] * at.carried[(s * batch + n) * h + j];
        dh[j] += room[n * h + j];
      } else {
        dz[h + j] = room[n * h + j] * before[n * h + j];
        dh[j] += room[n * h + j] * z[h + j];
      }
    }
    times_slope(f[0], at.arguments ? at.arguments + row + h : nullptr, z + h, dz + h, h);
  }
  kernels::matmul(batch, h, 2 * h, plain(grad.gates + s * batch * width, width), plain(at.r, h), grad.state, h, true,
                  scratch());
}

void lstm_step_back(const Net& net, std::span<const Activation> f, const Track& at, const Slopes& grad, size_t s,
                    std::span<float> room) {
  const size_t h = net.hidden, width = 4 * h, batch = net.batch;
  const float* cells = at.cells + (s + 1) * batch * h;
  const float* cells_before = at.cells + s * batch * h;
  // h(C) again: cheaper than keeping it for all steps.
  std::copy_n(cells, batch * h, room.data());
  activate(f[2], room.first(batch * h));
  std::vector<float> slope_of_cell(h);
  for (size_t n = 0; n < batch; ++n) {
    if (!net.runs(s, n)) continue;
    const size_t row = (s * batch + n) * width;
    const float *i = at.gates + row, *o = i + h, *forget = o + h, *c = forget + h;
    const float* kept = at.arguments ? at.arguments + row : nullptr;
    float *di = grad.gates + row, *d_o = di + h, *df = d_o + h, *dc = df + h;
    float *dh = grad.state + n * h, *dcell = grad.cell + n * h;
    const float *cell = cells + n * h, *old = cells_before + n * h, *curved = room.data() + n * h;
    for (size_t j = 0; j < h; ++j) {
      d_o[j] = dh[j] * curved[j];
      slope_of_cell[j] = dh[j] * o[j];
    }
    times_slope(f[0], kept ? kept + h : nullptr, o, d_o, h);
    times_slope(f[2], cell, curved, slope_of_cell.data(), h);
    for (size_t j = 0; j < h; ++j) dcell[j] += slope_of_cell[j];
    if (at.peephole) {
      for (size_t j = 0; j < h; ++j) dcell[j] += d_o[j] * at.peephole[h + j];
    }
    for (size_t j = 0; j < h; ++j) {
      di[j] = dcell[j] * c[j];
      df[j] = dcell[j] * old[j];
      dc[j] = dcell[j] * i[j];
      dcell[j] *= forget[j];
    }
    if (net.input_forget) {
      for (size_t j = 0; j < h; ++j) di[j] -= std::exchange(df[j], 0.0f);
    } else {
      times_slope(f[0], kept ? kept + 2 * h : nullptr, forget, df, h);
    }
    times_slope(f[0], kept, i, di, h);
    times_slope(f[1], kept ? kept + 3 * h : nullptr, c, dc, h);
    if (at.peephole) {
      for (size_t j = 0; j < h; ++j) dcell[j] += di[j] * at.peephole[j] + df[j] * at.peephole[2 * h + j];
    }
    std::fill_n(dh, h, 0.0f);
  }
  kernels::matmul(batch, h, width, plain(grad.gates + s * batch * width, width), plain(at.r, h), grad.state, h, true,
                  scratch());
}

template <Cell cell>
std::vector<Tensor> backward(const Call& call, std::span<const Tensor>, std::span<const Tensor> grads) {
  const Net net = read_net(call, cell);
  Kept kept{call.saved};
  if (kept.tensors.size() != kSavedCount) kept = run(call, net);
  const size_t h = net.hidden, width = net.gate_width(), state = net.batch * h, rows = net.rows();
  const Tensor x = time_first(call, net, kX);
  const auto given = [&](size_t output) { return output < grads.size() && grads[output].exists(); };
  const auto time_first_grad = [&](size_t output) {
    if (!given(output)) return Tensor();
    constexpr size_t kTimeFirst[] = {1, 2, 0, 3};
    if (!net.batch_first) return grads[output];
    return output == 0 ? transposed(call, grads[0], kTimeFirst) : transposed(call, grads[output], kSwap);
  };
  const Tensor dy = time_first_grad(0), dlast = time_first_grad(1), dlast_cell = time_first_grad(2);
  const auto wanted = [&](size_t input) { return call.has(input) && input < call.wanted.size() && call.wanted[input]; };
  const auto like = [&](size_t input) { return wanted(input) ? zeros(call.inputs[input].shape()) : Tensor(); };
  std::vector<Tensor> result(call.inputs.size());
  Tensor dx = wanted(kX) ? zeros(x.shape()) : Tensor();
  for (const size_t input : {kW, kR, kB, kPeephole}) {
    if (input < result.size() && (input != kPeephole || cell == Cell::Lstm)) result[input] = like(input);
  }
  Tensor dstart = wanted(kInitialH) ? zeros({net.directions, net.batch, h}) : Tensor();
  Tensor dstart_cell = cell == Cell::Lstm && wanted(kInitialC) ? zeros({net.directions, net.batch, h}) : Tensor();
  Tensor dgates = Tensor::allocate(DType::Float32, {net.steps, net.batch, width});
  Tensor dcarried = cell == Cell::Gru ? Tensor::allocate(DType::Float32, {net.steps, net.batch, h}) : Tensor();
  std::vector<float> dstate(state), dcell(state), room(state);
  for (size_t d = 0; d < net.directions; ++d) {
    const Track at = track_of(call, net, kept, d);
    const std::span<float> all_gates = dgates.write<float>();
    std::ranges::fill(all_gates, 0.0f);
    Slopes grad{all_gates.data(), dstate.data(), dcell.data(), nullptr};
    if (dcarried.exists()) {
      std::ranges::fill(dcarried.write<float>(), 0.0f);
      grad.carried = dcarried.write<float>().data();
    }
    start_state(net, dlast, d, dstate.data());
    start_state(net, dlast_cell, d, dcell.data());
    for (size_t s = net.steps; s-- > 0;) {
      for (size_t n = 0; dy.exists() && n < net.batch; ++n) {
        if (!net.runs(s, n)) continue;
        const size_t from = ((net.time(d, s, n) * net.directions + d) * net.batch + n) * h;
        kernels::add({dstate.data() + n * h, h}, dy.data<float>().subspan(from, h), {dstate.data() + n * h, h});
      }
      switch (cell) {
        case Cell::Rnn: rnn_step_back(net, net.of(d), at, grad, s); break;
        case Cell::Gru: gru_step_back(net, net.of(d), at, grad, s, room); break;
        case Cell::Lstm: lstm_step_back(net, net.of(d), at, grad, s, room); break;
      }
    }
    if (dstart.exists()) std::ranges::copy(dstate, dstart.write<float>().begin() + static_cast<ptrdiff_t>(d * state));
    if (dstart_cell.exists())
      std::ranges::copy(dcell, dstart_cell.write<float>().begin() + static_cast<ptrdiff_t>(d * state));

    if (dx.exists()) {
      Tensor ordered = Tensor::allocate(DType::Float32, x.shape());
      float* from = ordered.write<float>().data();
      kernels::matmul(rows, net.inputs, width, plain(grad.gates, width), plain(at.w, net.inputs), from, net.inputs,
                      false, scratch());
      const std::span<float> to = dx.write<float>();
      for (size_t s = 0; s < net.steps; ++s) {
        for (size_t n = 0; n < net.batch; ++n, from += net.inputs) {
          if (!net.runs(s, n)) continue;
          const std::span<float> target = to.subspan((net.time(d, s, n) * net.batch + n) * net.inputs, net.inputs);
          kernels::add(target, {from, net.inputs}, target);
        }
      }
    }
    const auto part = [&](size_t input, size_t count) { return result[input].write<float>().data() + d * count; };
    const bool has_w = wanted(kW), has_r = wanted(kR), has_b = wanted(kB);
    if (has_w) {
      const Tensor ordered = steps_of_input(net, d, x);
      kernels::matmul(width, net.inputs, rows, turned(grad.gates, width),
                      plain(ordered.data<float>().data(), net.inputs), part(kW, width * net.inputs), net.inputs, false,
                      scratch());
    }
    if (has_b) {
      float* sums = part(kB, 2 * width);
      add_columns(grad.gates, rows, width, width, sums);
      std::copy_n(sums, width, sums + width);
      if (net.linear_before_reset) {
        std::fill_n(sums + width + 2 * h, h, 0.0f);
        add_columns(grad.carried, rows, h, h, sums + width + 2 * h);
      }
    }
    if (has_r) {
      float* to = part(kR, width * h);
      const size_t direct = cell == Cell::Gru ? 2 * h : width;
      kernels::matmul(direct, h, rows, turned(grad.gates, width), plain(at.states, h), to, h, false, scratch());
      if constexpr (cell == Cell::Gru) {
        Tensor reset;
        const float* factor = at.states;
        if (!net.linear_before_reset) {
          reset = Tensor::allocate(DType::Float32, {rows, h});
          float* product = reset.write<float>().data();
          for (size_t row = 0; row < rows; ++row) {
            kernels::multiply({at.gates + row * width + h, h}, {at.states + row * h, h}, {product + row * h, h});
          }
          factor = product;
        }
        kernels::matmul(h, h, rows, turned(grad.carried, h), plain(factor, h), to + 2 * h * h, h, false, scratch());
      }
    }
    if constexpr (cell == Cell::Lstm) {
      if (wanted(kPeephole)) {
        float* to = part(kPeephole, 3 * h);
        for (size_t row = 0; row < rows; ++row) {
          const float* g = grad.gates + row * width;
          const float *old = at.cells + row * h, *made = at.cells + (row + net.batch) * h;
          for (size_t j = 0; j < h; ++j) {
            to[j] += g[j] * old[j];
            to[h + j] += g[h + j] * made[j];
            to[2 * h + j] += g[2 * h + j] * old[j];
          }
        }
      }
    }
  }
  const auto own_layout = [&](Tensor tensor) {
    return net.batch_first && tensor.exists() ? transposed(call, tensor, kSwap) : tensor;
  };
  result[kX] = own_layout(std::move(dx));
  if (kInitialH < result.size()) result[kInitialH] = own_layout(std::move(dstart));
  if (cell == Cell::Lstm && kInitialC < result.size()) result[kInitialC] = own_layout(std::move(dstart_cell));
  return result;
}

}  // namespace

std::span<const Op> recurrent_ops() {
  static const Op kOps[] = {
      {"RNN", forward<Cell::Rnn>, backward<Cell::Rnn>, Reals::AsFloat32},
      {"GRU", forward<Cell::Gru>, backward<Cell::Gru>, Reals::AsFloat32},
      {"LSTM", forward<Cell::Lstm>, backward<Cell::Lstm>, Reals::AsFloat32},
  };
  return kOps;
}

}  // namespace nibble::ops
