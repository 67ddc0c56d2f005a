// RNN, GRU, LSTM, Attention and RotaryEmbedding: values against loops written down from the definitions, gradients
// against finite differences.
#include <doctest/doctest.h>

#include <cmath>
#include <numbers>

#include "tests/core/ops_support.hpp"

using namespace nibble;
using namespace nibble::test;

namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// Inputs of a recurrent operator, random: X, W, R, B, sequence_lens, initial_h, initial_c, P.
struct Sizes {
  size_t steps = 3, batch = 2, inputs = 4, hidden = 3, directions = 1, gates = 4;
  bool batch_first = false;
};
std::vector<Tensor> recurrent_inputs(const Sizes& n, const std::vector<int>& lengths = {}) {
  const Shape x = n.batch_first ? Shape{n.batch, n.steps, n.inputs} : Shape{n.steps, n.batch, n.inputs};
  const Shape state = n.batch_first ? Shape{n.batch, n.directions, n.hidden} : Shape{n.directions, n.batch, n.hidden};
  const size_t width = n.gates * n.hidden;
  std::vector<Tensor> inputs = {random_real(x, 1),
                                random_real({n.directions, width, n.inputs}, 2, 0.5f),
                                random_real({n.directions, width, n.hidden}, 3, 0.5f),
                                random_real({n.directions, 2 * width}, 4, 0.5f),
                                Tensor(),
                                random_real(state, 5)};
  if (!lengths.empty()) {
    const std::vector<int32_t> values(lengths.begin(), lengths.end());
    inputs[4] = tensor_of(DType::Int32, {values.size()}, values);
  }
  if (n.gates == 4) {
    inputs.push_back(random_real(state, 6));
    inputs.push_back(random_real({n.directions, 3 * n.hidden}, 7, 0.5f));
  }
  return inputs;
}

const std::vector<Givens> kDirections = {
    {{"direction", "forward"}}, {{"direction", "reverse"}}, {{"direction", "bidirectional"}}};

}  // namespace

TEST_CASE("an LSTM with peepholes, lengths and both directions is the definition's loop") {
  Sizes n;
  n.directions = 2;
  const std::vector<int> lengths = {3, 2};
  const std::vector<Tensor> in = recurrent_inputs(n, lengths);
  const std::vector<Tensor> out = run_op("LSTM", in, {{"direction", "bidirectional"}}, 22, 3);
  REQUIRE(out.size() == 3);
  CHECK(out[0].shape() == Shape{n.steps, 2, n.batch, n.hidden});
  CHECK(out[1].shape() == Shape{2, n.batch, n.hidden});
  CHECK(out[2].shape() == Shape{2, n.batch, n.hidden});
  const auto at = [&](size_t input, size_t i) { return double{in[input].data<float>()[i]}; };
  const size_t h = n.hidden, width = 4 * h;
  for (size_t d = 0; d < 2; ++d) {
    for (size_t b = 0; b < n.batch; ++b) {
      std::vector<double> state(h), cell(h);
      for (size_t j = 0; j < h; ++j) {
        state[j] = at(5, (d * n.batch + b) * h + j);
        cell[j] = at(6, (d * n.batch + b) * h + j);
      }
      const size_t length = static_cast<size_t>(lengths[b]);
      for (size_t s = 0; s < length; ++s) {
        const size_t t = d == 0 ? s : length - 1 - s;
        std::vector<double> z(width);
        for (size_t g = 0; g < width; ++g) {
          z[g] = at(3, d * 2 * width + g) + at(3, d * 2 * width + width + g);
          for (size_t k = 0; k < n.inputs; ++k)
            z[g] += at(0, (t * n.batch + b) * n.inputs + k) * at(1, (d * width + g) * n.inputs + k);
          for (size_t k = 0; k < h; ++k) z[g] += state[k] * at(2, (d * width + g) * h + k);
        }
        for (size_t j = 0; j < h; ++j) {
          const double i = sigmoid(z[j] + at(7, d * 3 * h + j) * cell[j]);
          const double f = sigmoid(z[2 * h + j] + at(7, d * 3 * h + 2 * h + j) * cell[j]);
          cell[j] = f * cell[j] + i * std::tanh(z[3 * h + j]);
          const double o = sigmoid(z[h + j] + at(7, d * 3 * h + h + j) * cell[j]);
          z[j] = o * std::tanh(cell[j]);
        }
        for (size_t j = 0; j < h; ++j) {
          state[j] = z[j];
          CHECK(out[0].data<float>()[((t * 2 + d) * n.batch + b) * h + j] == doctest::Approx(state[j]).epsilon(1e-5));
        }
      }
      for (size_t t = length; t < n.steps; ++t) {
        for (size_t j = 0; j < h; ++j) CHECK(out[0].data<float>()[((t * 2 + d) * n.batch + b) * h + j] == 0);
      }
      for (size_t j = 0; j < h; ++j) {
        CHECK(out[1].data<float>()[(d * n.batch + b) * h + j] == doctest::Approx(state[j]).epsilon(1e-5));
        CHECK(out[2].data<float>()[(d * n.batch + b) * h + j] == doctest::Approx(cell[j]).epsilon(1e-5));
      }
    }
  }
}

TEST_CASE("a GRU resets before or after the product") {
  Sizes n;
  n.gates = 3;
  n.batch = 1;
  n.steps = 2;
  const std::vector<Tensor> in = recurrent_inputs(n);
  for (const bool after : {false, true}) {
    const std::vector<Tensor> out = run_op("GRU", in, {{"linear_before_reset", after ? 1 : 0}}, 22, 2);
    const auto at = [&](size_t input, size_t i) { return double{in[input].data<float>()[i]}; };
    const size_t h = n.hidden, width = 3 * h;
    std::vector<double> state(h);
    for (size_t j = 0; j < h; ++j) state[j] = at(5, j);
    for (size_t t = 0; t < n.steps; ++t) {
      const auto input = [&](size_t g) {
        double sum = at(3, g);
        for (size_t k = 0; k < n.inputs; ++k) sum += at(0, t * n.inputs + k) * at(1, g * n.inputs + k);
        return sum;
      };
      const auto carried = [&](size_t g, const std::vector<double>& from) {
        double sum = at(3, width + g);
        for (size_t k = 0; k < h; ++k) sum += from[k] * at(2, g * h + k);
        return sum;
      };
      std::vector<double> z(h), r(h), reset(h), next(h);
      for (size_t j = 0; j < h; ++j) {
        z[j] = sigmoid(input(j) + carried(j, state));
        r[j] = sigmoid(input(h + j) + carried(h + j, state));
        reset[j] = r[j] * state[j];
      }
      for (size_t j = 0; j < h; ++j) {
        const double inner = after ? r[j] * carried(2 * h + j, state) : carried(2 * h + j, reset);
        next[j] = (1 - z[j]) * std::tanh(input(2 * h + j) + inner) + z[j] * state[j];
      }
      state = next;
      for (size_t j = 0; j < h; ++j) CHECK(out[0].data<float>()[t * h + j] == doctest::Approx(state[j]).epsilon(1e-5));
    }
    for (size_t j = 0; j < h; ++j) CHECK(out[1].data<float>()[j] == doctest::Approx(state[j]).epsilon(1e-5));
  }
}

TEST_CASE("layout 1 is layout 0 with batch and time exchanged") {
  for (const auto& [op, gates] : {std::pair("RNN", 1), std::pair("GRU", 3), std::pair("LSTM", 4)}) {
    Sizes n;
    n.gates = static_cast<size_t>(gates);
    n.directions = 2;
    std::vector<Tensor> in = recurrent_inputs(n, {3, 1});
    const std::vector<Tensor> first = run_op(op, in, {{"direction", "bidirectional"}}, 22, gates == 4 ? 3 : 2);
    const auto exchange = [](const Tensor& x) {
      Shape shape = x.shape();
      const size_t rows = shape[0], columns = shape[1], run = x.elements() / (rows * columns);
      std::swap(shape[0], shape[1]);
      Tensor made = Tensor::allocate(DType::Float32, shape);
      for (size_t i = 0; i < rows; ++i) {
        for (size_t j = 0; j < columns; ++j) {
          std::copy_n(x.data<float>().data() + (i * columns + j) * run, run,
                      made.write<float>().data() + (j * rows + i) * run);
        }
      }
      return made;
    };
    for (const size_t input : {0, 5, 6}) {
      if (input < in.size()) in[input] = exchange(in[input]);
    }
    const std::vector<Tensor> second =
        run_op(op, in, {{"direction", "bidirectional"}, {"layout", 1}}, 22, gates == 4 ? 3 : 2);
    for (size_t i = 1; i < first.size(); ++i) CHECK(values_of(exchange(second[i])) == values_of(first[i]));
    // [batch, steps, directions, hidden] against [steps, directions, batch, hidden].
    CHECK(second[0].shape() == Shape{n.batch, n.steps, 2, n.hidden});
    for (size_t t = 0; t < n.steps; ++t) {
      for (size_t d = 0; d < 2; ++d) {
        for (size_t b = 0; b < n.batch; ++b) {
          for (size_t j = 0; j < n.hidden; ++j) {
            CHECK(second[0].data<float>()[((b * n.steps + t) * 2 + d) * n.hidden + j] ==
                  first[0].data<float>()[((t * 2 + d) * n.batch + b) * n.hidden + j]);
          }
        }
      }
    }
  }
}

TEST_CASE("gradients of RNN, GRU and LSTM in every direction, with lengths, and in both layouts") {
  for (const auto& [op, gates] : {std::pair("RNN", 1), std::pair("GRU", 3), std::pair("LSTM", 4)}) {
    for (size_t direction = 0; direction < kDirections.size(); ++direction) {
      for (const bool ragged : {false, true}) {
        for (const bool batch_first : {false, true}) {
          CAPTURE(op);
          CAPTURE(direction);
          CAPTURE(ragged);
          CAPTURE(batch_first);
          Sizes n;
          n.gates = static_cast<size_t>(gates);
          n.directions = direction == 2 ? 2 : 1;
          n.batch_first = batch_first;
          Givens attributes = kDirections[direction];
          attributes.push_back({"layout", batch_first ? 1 : 0});
          const std::vector<Tensor> in = recurrent_inputs(n, ragged ? std::vector<int>{3, 2} : std::vector<int>{});
          std::vector<size_t> which = {0, 1, 2, 3, 5};
          if (gates == 4) which.insert(which.end(), {6, 7});
          const size_t outputs = gates == 4 ? 3 : 2;
          check_gradients(op, in, attributes, which,
                          {.opset = 22, .outputs = outputs, .losses = outputs, .samples = 12});
          if (gates == 3 && !batch_first) {
            attributes.push_back({"linear_before_reset", 1});
            check_gradients(op, in, attributes, which,
                            {.opset = 22, .outputs = outputs, .losses = outputs, .samples = 12});
          }
        }
      }
    }
  }
}

TEST_CASE("gradients with other activations, a clip, and the input gate forgetting") {
  Sizes n;
  const std::vector<std::vector<std::string>> lists = {{"Softsign", "Softplus", "ScaledTanh"},
                                                       {"Sigmoid", "Elu", "Affine"},
                                                       {"Affine", "LeakyRelu", "softsign"},
                                                       {"HardSigmoid", "Tanh", "Tanh"}};
  const std::vector<std::vector<float>> alphas = {{1.5f}, {0.7f, 0.8f}, {0.3f, 0.2f}, {0.15f}},
                                        betas = {{0.6f}, {0.1f}, {0.4f}, {0.5f}};
  for (size_t i = 0; i < lists.size(); ++i) {
    CAPTURE(i);
    const std::vector<Tensor> in = recurrent_inputs(n);
    const Givens attributes = {
        {"activations", lists[i]}, {"activation_alpha", alphas[i]}, {"activation_beta", betas[i]}};
    check_gradients("LSTM", in, attributes, {0, 1, 2, 3, 5, 6, 7},
                    {.opset = 22, .outputs = 3, .losses = 3, .step = 1e-3f, .bound = 2e-2, .samples = 12});
  }
  // Kinks (of the clip) are rare enough to be missed by these numbers.
  check_gradients("LSTM", recurrent_inputs(n), {{"clip", 0.8f}}, {0, 1, 2, 3, 5, 6, 7},
                  {.opset = 22, .outputs = 3, .losses = 3, .step = 1e-3f, .bound = 2e-2, .samples = 12});
  check_gradients("LSTM", recurrent_inputs(n), {{"input_forget", 1}}, {0, 1, 2, 3, 5, 6, 7},
                  {.opset = 22, .outputs = 3, .losses = 3, .samples = 12});
  n.gates = 3;
  check_gradients("GRU", recurrent_inputs(n), {{"clip", 0.8f}, {"linear_before_reset", 1}}, {0, 1, 2, 3, 5},
                  {.opset = 22, .outputs = 2, .losses = 2, .step = 1e-3f, .bound = 2e-2, .samples = 12});
}

TEST_CASE("gradients need not have been prepared in training") {
  // A pass outside training saves nothing: backward runs it again.
  check_gradients("LSTM", recurrent_inputs({}), {}, {0, 1, 2}, {.opset = 22, .outputs = 3, .training = false});
}

TEST_CASE("recurrent operators refuse what does not fit, by name") {
  const auto message = [](std::vector<Tensor> in, const Givens& attributes) {
    const Error error = error_of_op("LSTM", in, attributes, 22, 3);
    CHECK(holds(error.where, "LSTM"));
    return error.message;
  };
  const std::vector<Tensor> in = recurrent_inputs({});
  CHECK(holds(message(in, {{"direction", "sideways"}}), "sideways"));
  CHECK(holds(message(in, {{"direction", "bidirectional"}}), "recurrence weights"));
  CHECK(holds(message(in, {{"hidden_size", 7}}), "hidden_size"));
  CHECK(holds(message(in, {{"clip", -1.0f}}), "clip"));
  CHECK(holds(message(in, {{"activations", std::vector<std::string>{"Sigmoid"}}}), "3 functions"));
  CHECK(holds(message(in, {{"activations", std::vector<std::string>{"Sigmoid", "Tanh", "Sine"}}}), "Sine"));
  CHECK(holds(message(recurrent_inputs({}, {1, 9}), {}), "sequence_lens"));
  CHECK(holds(message(recurrent_inputs({}, {1}), {}), "sequence_lens"));
  std::vector<Tensor> wrong = in;
  wrong[5] = random_real({1, 2, 5}, 1);
  CHECK(holds(message(wrong, {}), "initial state"));
  wrong = in;
  wrong[0] = Tensor::allocate(DType::Float32, {1u << 30, 1u << 10, 0});
  CHECK(holds(message(wrong, {}), "must not be empty"));
}

TEST_CASE("attention's gradients flow to queries, keys, values, masks and the past") {
  const Tensor q = random_real({2, 4, 3, 5}, 1), k = random_real({2, 2, 4, 5}, 2), v = random_real({2, 2, 4, 6}, 3),
               mask = random_real({2, 1, 3, 6}, 4), past_k = random_real({2, 2, 2, 5}, 5),
               past_v = random_real({2, 2, 2, 6}, 6);
  check_gradients("Attention", {q, k, v}, {}, {0, 1, 2}, {.opset = 23});
  check_gradients("Attention", {q, k, v}, {{"is_causal", 1}, {"scale", 0.7f}}, {0, 1, 2}, {.opset = 23});
  check_gradients("Attention", {q, k, v, mask, past_k, past_v}, {{"softcap", 2.0f}}, {0, 1, 2, 3, 4, 5},
                  {.opset = 23, .outputs = 3, .losses = 3});
  const Tensor q3 = random_real({2, 3, 20}, 1), k3 = random_real({2, 4, 10}, 2), v3 = random_real({2, 4, 12}, 3);
  check_gradients("Attention", {q3, k3, v3}, {{"q_num_heads", 4}, {"kv_num_heads", 2}}, {0, 1, 2}, {.opset = 23});
}

TEST_CASE("a query that sees no key attends to nothing") {
  const Tensor q = random_real({1, 1, 2, 4}, 1), k = random_real({1, 1, 3, 4}, 2), v = random_real({1, 1, 3, 4}, 3);
  const Tensor mask = tensor_of(DType::Bool, {2, 3}, std::vector<uint8_t>{0, 0, 0, 0, 1, 0});
  const std::vector<float> y = values_of(run_op("Attention", {q, k, v, mask}, {}, 23)[0]);
  for (size_t j = 0; j < 4; ++j) {
    CHECK(y[j] == 0);
    CHECK(y[4 + j] == doctest::Approx(v.data<float>()[4 + j]));
  }
}

TEST_CASE("attention and rotary embedding refuse what does not fit") {
  const Tensor q = random_real({1, 2, 3, 4}, 1), k = random_real({1, 2, 3, 4}, 2);
  CHECK(holds(error_of_op("Attention", {q, k, random_real({1, 2, 5, 4}, 3)}, {}, 23).message, "do not fit"));
  CHECK(holds(error_of_op("Attention", {q, k, k, random_real({7, 3}, 3)}, {}, 23).message, "mask"));
  CHECK(holds(error_of_op("Attention", {random_real({1, 3, 7}, 1), k, k}, {}, 23).message, "axes"));
  CHECK(holds(error_of_op("Attention", {q, k, k}, {{"qk_matmul_output_mode", 9}}, 23).message, "qk_matmul"));
  const Tensor table = random_real({4, 2}, 4);
  const Tensor places = tensor_of(DType::Int64, {1, 3}, std::vector<int64_t>{0, 1, 4});
  CHECK(holds(error_of_op("RotaryEmbedding", {q, table, table, places}, {}, 23).message, "position 4"));
  CHECK(holds(error_of_op("RotaryEmbedding", {q, table, table}, {}, 23).message, "tables"));
}

TEST_CASE("rotary embedding turns gradients back") {
  const Tensor x = random_real({2, 3, 4, 6}, 1), cosines = random_real({2, 4, 2}, 2), sines = random_real({2, 4, 2}, 3);
  for (const int interleaved : {0, 1}) {
    check_gradients("RotaryEmbedding", {x, cosines, sines}, {{"interleaved", interleaved}, {"rotary_embedding_dim", 4}},
                    {0}, {.opset = 23});
  }
}

TEST_CASE("linear attention by the gated delta rule is the definition's loop") {
  constexpr size_t kSteps = 3, kHeads = 4, kKvHeads = 2, kWidth = 3, kValues = 2;
  const Tensor q = random_real({1, kSteps, kHeads * kWidth}, 1), k = random_real({1, kSteps, kKvHeads * kWidth}, 2),
               v = random_real({1, kSteps, kKvHeads * kValues}, 3),
               past = random_real({1, kKvHeads, kWidth, kValues}, 4),
               decay = random_real({1, kSteps, kKvHeads * kWidth}, 5, 0.3f),
               beta = random_real({1, kSteps, kKvHeads}, 6), erase = random_real({1, kSteps, kKvHeads * kWidth}, 7);
  const std::vector<Tensor> out =
      run_op("LinearAttention", {q, k, v, past, decay, beta, erase}, {{"q_num_heads", 4}, {"kv_num_heads", 2}}, 27, 2);
  const auto at = [](const Tensor& x, size_t i) { return double{x.data<float>()[i]}; };
  for (size_t h = 0; h < kKvHeads; ++h) {
    double s[kWidth][kValues];
    for (size_t i = 0; i < kWidth; ++i) {
      for (size_t j = 0; j < kValues; ++j) s[i][j] = at(past, (h * kWidth + i) * kValues + j);
    }
    for (size_t t = 0; t < kSteps; ++t) {
      const size_t row = (t * kKvHeads + h) * kWidth;
      for (size_t j = 0; j < kValues; ++j) {
        double update = at(v, (t * kKvHeads + h) * kValues + j);
        for (size_t i = 0; i < kWidth; ++i) {
          s[i][j] *= std::exp(at(decay, row + i));
          update -= s[i][j] * at(k, row + i) * at(erase, row + i);
        }
        for (size_t i = 0; i < kWidth; ++i) s[i][j] += at(k, row + i) * update * at(beta, t * kKvHeads + h);
        for (size_t g = 2 * h; g < 2 * h + 2; ++g) {
          double y = 0;
          for (size_t i = 0; i < kWidth; ++i) y += s[i][j] * at(q, (t * kHeads + g) * kWidth + i) / std::sqrt(3.0);
          CHECK(at(out[0], (t * kHeads + g) * kValues + j) == doctest::Approx(y).epsilon(1e-4));
        }
      }
    }
    for (size_t i = 0; i < kWidth; ++i) {
      for (size_t j = 0; j < kValues; ++j)
        CHECK(at(out[1], (h * kWidth + i) * kValues + j) == doctest::Approx(s[i][j]).epsilon(1e-4));
    }
  }
  CHECK(
      holds(error_of_op("LinearAttention", {q, k, v}, {{"q_num_heads", 4}, {"kv_num_heads", 2}}, 27).message, "decay"));
  CHECK(holds(error_of_op("LinearAttention", {q, k, v}, {{"q_num_heads", 5}, {"kv_num_heads", 2}}, 27).message,
              "divide"));
}

namespace {

constexpr std::string_view kMicrosoft = "com.microsoft";

/// Rows of (x - mean) / deviation * gamma + beta in double.
std::vector<double> normalized(std::vector<double> x, size_t width, const Tensor& gamma, const Tensor& beta,
                               double epsilon) {
  for (size_t at = 0; at < x.size(); at += width) {
    double mean = 0, square = 0;
    for (size_t j = 0; j < width; ++j) mean += x[at + j] / static_cast<double>(width);
    for (size_t j = 0; j < width; ++j) square += (x[at + j] - mean) * (x[at + j] - mean) / static_cast<double>(width);
    for (size_t j = 0; j < width; ++j)
      x[at + j] = (x[at + j] - mean) / std::sqrt(square + epsilon) * double{gamma.data<float>()[j]} +
                  double{beta.data<float>()[j]};
  }
  return x;
}

void check_close(const Tensor& actual, const std::vector<double>& expected) {
  REQUIRE(actual.elements() == expected.size());
  for (size_t i = 0; i < expected.size(); ++i) CHECK(std::fabs(actual.data<float>()[i] - expected[i]) < 1e-5);
}

}  // namespace

TEST_CASE("fused normalizations are sums, then rows normalised") {
  const Tensor x = random_real({2, 3, 8}, 1), skip = random_real({1, 3, 8}, 2), gamma = random_real({8}, 3),
               beta = random_real({8}, 4), bias = random_real({8}, 5);
  std::vector<double> sum(48);
  for (size_t i = 0; i < 48; ++i)
    sum[i] = double{x.data<float>()[i]} + skip.data<float>()[i % 24] + bias.data<float>()[i % 8];
  const Alone skipping("SkipLayerNormalization", std::vector{x, skip, gamma, beta, bias}, {{"epsilon", 1e-3f}}, 1, 4,
                       kMicrosoft);
  Node node = skipping.node;
  node.outputs[1] = node.outputs[2] = "";
  ops::Call call{node, 1, {}};
  call.inputs = {x, skip, gamma, beta, bias};
  const std::vector<Tensor> out = skipping.op->forward(call);
  check_close(out[0], normalized(sum, 8, gamma, beta, 1e-3));
  check_close(out[3], sum);

  const Tensor ids = tensor_of(DType::Int32, {2, 3}, std::vector<int32_t>{4, 0, 2, 1, 1, 3}),
               segments = tensor_of(DType::Int32, {2, 3}, std::vector<int32_t>{0, 0, 1, 1, 0, 1}),
               mask = tensor_of(DType::Int32, {2, 3}, std::vector<int32_t>{1, 1, 1, 1, 0, 0});
  const Tensor words = random_real({5, 8}, 6), places = random_real({4, 8}, 7), kinds = random_real({2, 8}, 8);
  const std::vector<Tensor> embedded =
      run_op("EmbedLayerNormalization", {ids, segments, words, places, kinds, gamma, beta, mask}, {}, 1, 3, kMicrosoft);
  for (size_t i = 0; i < 48; ++i) {
    const size_t token = i / 8, j = i % 8;
    sum[i] = double{words.data<float>()[static_cast<size_t>(ids.data<int32_t>()[token]) * 8 + j]} +
             places.data<float>()[token % 3 * 8 + j] +
             kinds.data<float>()[static_cast<size_t>(segments.data<int32_t>()[token]) * 8 + j];
  }
  check_close(embedded[0], normalized(sum, 8, gamma, beta, 1e-12));
  CHECK(values_of<int32_t>(embedded[1]) == std::vector<int32_t>{3, 1});
  check_close(embedded[2], sum);
  const Tensor wrong = tensor_of(DType::Int32, {1, 1}, std::vector<int32_t>{5});
  CHECK(holds(error_of_op("EmbedLayerNormalization", {wrong, Tensor(), words, places, Tensor(), gamma, beta}, {}, 1, 1,
                          kMicrosoft)
                  .message,
              "index 5"));
}

TEST_CASE("fused Gelu takes its bias along") {
  const Tensor x = random_real({3, 4}, 1), bias = random_real({4}, 2);
  std::vector<double> fast(12), exact(12);
  for (size_t i = 0; i < 12; ++i) {
    const double v = double{x.data<float>()[i]} + bias.data<float>()[i % 4];
    fast[i] = 0.5 * v * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (v + 0.044715 * v * v * v)));
    exact[i] = 0.5 * v * (1 + std::erf(v / std::sqrt(2.0)));
  }
  check_close(run_op("FastGelu", {x, bias}, {}, 1, 1, kMicrosoft)[0], fast);
  check_close(run_op("BiasGelu", {x, bias}, {}, 1, 1, kMicrosoft)[0], exact);
}

TEST_CASE("fused attention is a product, then attention with a mask") {
  constexpr size_t kBatch = 2, kTokens = 3, kIn = 5, kHeads = 2, kWidth = 4, kOut = kHeads * kWidth, kPastTokens = 2;
  const Tensor x = random_real({kBatch, kTokens, kIn}, 1), weights = random_real({kIn, 3 * kOut}, 2),
               bias = random_real({3 * kOut}, 3), past = random_real({2, kBatch, kHeads, kPastTokens, kWidth}, 4);
  const Tensor mask =
      tensor_of(DType::Int32, {kBatch, kPastTokens + kTokens}, std::vector<int32_t>{1, 1, 1, 1, 1, 0, 1, 1, 1, 1});
  const std::vector<Tensor> fused =
      run_op("Attention", {x, weights, bias, mask, past}, {{"num_heads", 2}, {"unidirectional", 1}}, 1, 2, kMicrosoft);
  // The parts by a loop, then ONNX's own operator.
  std::vector<std::vector<float>> parts(3);
  for (size_t part = 0; part < 3; ++part) {
    for (size_t token = 0; token < kBatch * kTokens; ++token) {
      for (size_t j = 0; j < kOut; ++j) {
        double sum = bias.data<float>()[part * kOut + j];
        for (size_t k = 0; k < kIn; ++k)
          sum += double{x.data<float>()[token * kIn + k]} * weights.data<float>()[k * 3 * kOut + part * kOut + j];
        parts[part].push_back(static_cast<float>(sum));
      }
    }
  }
  const auto tensor = [&](size_t part) { return floats({kBatch, kTokens, kOut}, parts[part]); };
  std::vector<uint8_t> shows(mask.elements());
  for (size_t i = 0; i < shows.size(); ++i) shows[i] = mask.data<int32_t>()[i] != 0;
  const size_t half = past.elements() / 2;
  const Shape past_shape = {kBatch, kHeads, kPastTokens, kWidth};
  const std::vector<float> old = values_of(past);
  const std::vector<Tensor> plain =
      run_op("Attention",
             {tensor(0), tensor(1), tensor(2), tensor_of(DType::Bool, {kBatch, 1, 1, kPastTokens + kTokens}, shows),
              floats(past_shape, {old.begin(), old.begin() + static_cast<ptrdiff_t>(half)}),
              floats(past_shape, {old.begin() + static_cast<ptrdiff_t>(half), old.end()})},
             {{"q_num_heads", 2}, {"kv_num_heads", 2}, {"is_causal", 1}}, 23, 3);
  const auto doubles = [](const Tensor& t) {
    const std::span<const float> values = t.data<float>();
    return std::vector<double>(values.begin(), values.end());
  };
  check_close(fused[0], doubles(plain[0]));
  std::vector<double> present = doubles(plain[1]);
  const std::vector<double> present_values = doubles(plain[2]);
  present.insert(present.end(), present_values.begin(), present_values.end());
  check_close(fused[1], present);
  CHECK(holds(error_of_op("Attention", {x, weights, bias}, {{"num_heads", 3}}, 1, 1, kMicrosoft).message, "3 heads"));
  CHECK(holds(error_of_op("Attention", {x, weights}, {{"num_heads", 2}, {"do_rotary", 1}}, 1, 1, kMicrosoft).message,
              "rotary"));
}

TEST_CASE("sequences and batches of nothing give nothing") {
  Sizes n;
  for (const auto& [steps, batch] : {std::pair(0, 2), std::pair(3, 0), std::pair(0, 0)}) {
    n.steps = static_cast<size_t>(steps);
    n.batch = static_cast<size_t>(batch);
    const std::vector<Tensor> in = recurrent_inputs(n);
    const std::vector<Tensor> out = run_op("LSTM", in, {}, 22, 3);
    CHECK(out[0].shape() == Shape{n.steps, 1, n.batch, n.hidden});
    if (steps == 0) CHECK(values_of(out[1]) == values_of(in[5]));
    run_op("GRU", {in[0], random_real({1, 9, 4}, 1), random_real({1, 9, 3}, 2)}, {}, 22, 2);
    run_op("RNN", {in[0], random_real({1, 3, 4}, 1), random_real({1, 3, 3}, 2)}, {}, 22, 2);
  }
  const Tensor q = random_real({1, 2, 3, 4}, 1), none = random_real({1, 2, 0, 4}, 2);
  CHECK(values_of(run_op("Attention", {q, none, none}, {}, 23)[0]) == std::vector<float>(24, 0));
  CHECK(run_op("Attention", {none, q, q}, {}, 23)[0].shape() == Shape{1, 2, 0, 4});
}
