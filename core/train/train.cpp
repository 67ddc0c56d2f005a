#include "core/train/train.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstring>
#include <numeric>
#include <set>

#include "core/base/error.hpp"
#include "core/kernels/compute.hpp"
#include "core/kernels/kernels.hpp"
#include "core/model/execute.hpp"
#include "core/model/score.hpp"

namespace nibble {

std::string_view to_string(Loss loss) { return loss == Loss::CrossEntropy ? "cross_entropy" : "mean_squared"; }

std::string_view to_string(Optimizer optimizer) {
  return optimizer == Optimizer::Sgd ? "sgd" : optimizer == Optimizer::Adam ? "adam" : "adamw";
}

std::string_view to_string(Schedule schedule) {
  return schedule == Schedule::Constant ? "constant" : schedule == Schedule::Cosine ? "cosine" : "step";
}

namespace {

/// cos(pi x) for 0 <= x <= 1 by its Taylor series around the nearer of 0 and 1/2: the same everywhere, unlike libm's.
double cos_pi(double x) {
  if (x > 0.5) return -cos_pi(1 - x);
  const double angle = x * 3.14159265358979323846, square = angle * angle;
  double term = 1, sum = 1;
  for (int i = 1; i <= 12; ++i) {
    term *= -square / ((2 * i - 1) * (2 * i));
    sum += term;
  }
  return sum;
}

/// Params that training changes, in the order of the graph's initializers.
std::vector<size_t> find_trained(const Model& model) {
  std::vector<size_t> trained = find_learnt(model);
  for (const size_t param : trained) {
    const Tensor& value = model.params[param].value;
    if (value.dtype() != DType::Float32) {
      fail(ErrorCode::Unsupported, model.params[param].name,
           "it holds " + std::string(to_string(value.dtype())) + "; training wants float32 weights");
    }
  }
  return trained;
}

void check_choice(const TrainChoice& choice) {
  const auto wants = [](bool good, const char* field, const std::string& expected, double got) {
    if (good) return;
    std::string number = std::to_string(got);
    fail(ErrorCode::BadRecipe, field, "expected " + expected + ", got " + number);
  };
  wants(choice.epochs >= 1 && choice.epochs <= 10000, "epochs", "1 to 10000", static_cast<double>(choice.epochs));
  wants(choice.batch >= 1 && choice.batch <= 65536, "batch", "1 to 65536", static_cast<double>(choice.batch));
  wants(choice.learning_rate > 0 && choice.learning_rate <= 100, "learning_rate", "above 0 and at most 100",
        choice.learning_rate);
  wants(choice.momentum >= 0 && choice.momentum < 1, "momentum", "0 to below 1", choice.momentum);
  wants(choice.weight_decay >= 0 && choice.weight_decay <= 10, "weight_decay", "0 to 10", choice.weight_decay);
  wants(choice.warmup >= 0 && choice.warmup <= 10000, "warmup", "0 to 10000", choice.warmup);
  wants(choice.step_epochs > 0, "step_epochs", "more than 0", choice.step_epochs);
  wants(choice.step_factor > 0 && choice.step_factor <= 1, "step_factor", "above 0 and at most 1", choice.step_factor);
  wants(choice.clip_norm >= 0, "clip_norm", "0 or more", choice.clip_norm);
}

std::string number(double value) {
  std::string text = std::to_string(value);
  while (text.size() > 1 && text.back() == '0') text.pop_back();
  if (!text.empty() && text.back() == '.') text.pop_back();
  return text;
}

/// Numbers and tensors in a row of bytes, and back.
class Writer {
 public:
  template <class T>
  void put(T value) {
    const auto* at = reinterpret_cast<const std::byte*>(&value);
    bytes.insert(bytes.end(), at, at + sizeof(T));
  }
  void put(std::span<const float> values) {
    put<uint64_t>(values.size());
    const auto* at = reinterpret_cast<const std::byte*>(values.data());
    bytes.insert(bytes.end(), at, at + values.size_bytes());
  }
  std::vector<std::byte> bytes;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <class T>
  T get() {
    if (bytes_.size() - at_ < sizeof(T)) broken("it ends early");
    T value;
    std::memcpy(&value, bytes_.data() + at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }
  void get(std::span<float> values) {
    if (get<uint64_t>() != values.size()) broken("a tensor has another size than the model's");
    if (bytes_.size() - at_ < values.size_bytes()) broken("it ends early");
    std::memcpy(values.data(), bytes_.data() + at_, values.size_bytes());
    at_ += values.size_bytes();
  }
  void end() const {
    if (at_ != bytes_.size()) broken("more follows after its end");
  }
  [[noreturn]] void broken(const std::string& what) const {
    fail(ErrorCode::BadFile, "saved training, byte " + std::to_string(at_), what);
  }

 private:
  std::span<const std::byte> bytes_;
  size_t at_ = 0;
};

constexpr uint64_t kMagic = 0x3230'6e69'6172'744eu;  // "Ntrain02"

}  // namespace

struct Trainer::Impl {
  /// One tensor that is learnt.
  struct Learnt {
    size_t param = 0;
    Tensor value;                   ///< what the optimizer moves; the model runs on it, or on its grid points
    Tensor first, second;           ///< of the optimizer: velocity, or the two moments
    std::vector<float> inside;      ///< where the value lies within its grid's range
    std::vector<uint32_t> cluster;  ///< of each element, where values are shared
    Rows rows;
    bool decays = false;  ///< weights do, biases and normalisation parameters do not
  };

  Impl(const Model& source, const Dataset& data, const Split& parts, const Preparation& prepared,
       const TrainChoice& chosen, uint64_t seed)
      : original(source),
        dataset(data),
        split(parts),
        preparation(prepared),
        choice(chosen),
        context(seed),
        trained(find_trained(source)),
        program(chosen.loss == Loss::CrossEntropy ? before_softmax(source) : source, trained) {
    check_choice(choice);
    check(dataset);
    check(preparation, dataset);
    if (split.training.empty()) fail(ErrorCode::BadData, "data", "no sample is left for training");
    if (choice.loss == Loss::CrossEntropy && !dataset.labelled())
      fail(ErrorCode::BadRecipe, "loss", "\"cross_entropy\" wants labels, and the data have none");
    if (choice.loss == Loss::MeanSquared && !dataset.targets.exists())
      fail(ErrorCode::BadRecipe, "loss", "\"mean_squared\" wants targets, and the data have none");
    if (trained.empty()) fail(ErrorCode::Unsupported, "model", "it has no float32 weights that training could change");
    for (const size_t param : trained) {
      const Param& from = original.params[param];
      Learnt learnt;
      learnt.param = param;
      learnt.value = Tensor::copy_of(DType::Float32, from.value.shape(), from.value.bytes());
      std::optional<size_t> axis;
      for (const Weight& weight : *original.weights) {
        if (weight.param != param) continue;
        axis = weight.channel_axis;
        learnt.decays = true;
      }
      learnt.rows = rows_of(from.value.shape(), axis);
      if (choice.keep_grids && from.codebook) {
        const std::vector<float>& centroids = from.codebook->centroids;
        for (const float value : learnt.value.data<float>()) {
          const auto at = std::lower_bound(centroids.begin(), centroids.end(), value);
          learnt.cluster.push_back(static_cast<uint32_t>(at - centroids.begin()));
        }
      }
      if (choice.optimizer != Optimizer::Sgd || choice.momentum > 0) learnt.first = zero_like(learnt.value);
      if (choice.optimizer != Optimizer::Sgd) learnt.second = zero_like(learnt.value);
      all.push_back(std::move(learnt));
    }
    for (Learnt& learnt : all) show(learnt);
    keep_best();
    chunk = fixed_batch(program);
    // A batch is what one step averages over; a model that takes a fixed number of samples runs it in pieces.
    batches = (split.training.size() + choice.batch - 1) / choice.batch;
    progress.epochs = choice.epochs;
    progress.batches = batches;
    progress.steps = choice.epochs * batches;
    shuffle();
  }

  static Tensor zero_like(const Tensor& tensor) {
    Tensor zero = Tensor::allocate(DType::Float32, tensor.shape());
    std::memset(zero.write<float>().data(), 0, zero.bytes().size());
    return zero;
  }

  bool on_grid(const Learnt& learnt) const { return choice.keep_grids && original.params[learnt.param].grid; }

  /// Elements that share a value move together: to the mean of where each of them would go, which is a step along the
  /// mean of their gradients (Han et al., arXiv:1510.00149, section 3.3, has the sum; the rate makes up for it).
  Tensor shared(const Learnt& learnt) const {
    const Param& param = original.params[learnt.param];
    const std::span<const float> values = learnt.value.data<float>();
    const size_t count = param.codebook->centroids.size() + 1;  // the last: what has no centroid, being pruned
    std::vector<double> sums(count, 0);
    std::vector<size_t> counts(count, 0);
    const auto kept = [&](size_t i) { return !param.mask || (param.mask->words[i / 64] >> (i % 64) & 1); };
    for (size_t i = 0; i < values.size(); ++i) {
      if (!kept(i)) continue;
      sums[learnt.cluster[i]] += values[i];
      ++counts[learnt.cluster[i]];
    }
    Tensor out = Tensor::allocate(DType::Float32, learnt.value.shape());
    const std::span<float> to = out.write<float>();
    for (size_t i = 0; i < values.size(); ++i) {
      const uint32_t c = learnt.cluster[i];
      to[i] = !kept(i) ? values[i] : static_cast<float>(sums[c] / static_cast<double>(counts[c]));
    }
    return out;
  }

  /// Hands the learnt value to the program: itself, or its grid points.
  void show(Learnt& learnt) {
    const Param& param = original.params[learnt.param];
    if (!learnt.cluster.empty()) return program.set(learnt.param, shared(learnt));
    if (!on_grid(learnt)) return program.set(learnt.param, learnt.value);
    Tensor snapped = Tensor::allocate(DType::Float32, learnt.value.shape());
    learnt.inside.resize(learnt.value.elements());
    snap_to_grid(*param.grid, learnt.rows, learnt.value.data<float>(), snapped.write<float>(), learnt.inside);
    if (choice.keep_masks && param.mask)
      kernels::apply_mask(snapped.data<float>(), param.mask->words, snapped.write<float>());
    program.set(learnt.param, std::move(snapped));
  }

  void keep_best() {
    best_values.clear();
    for (const Learnt& learnt : all) best_values.push_back(program.value(learnt.param));
    best_running = running;
  }

  /// The order of the samples in the epoch at hand: Fisher and Yates, from the seed and the epoch's number alone.
  void shuffle() {
    order = split.training;
    const uint64_t key = context.random_key("shuffle " + std::to_string(progress.epoch));
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[mix64(key, i) % i]);
  }

  double rate() const {
    const double total = static_cast<double>(progress.steps), warm = choice.warmup * static_cast<double>(batches);
    const double now = static_cast<double>(progress.step);
    if (now < warm) return choice.learning_rate * (now + 1) / (warm + 1);
    if (choice.schedule == Schedule::Cosine)
      return choice.learning_rate * 0.5 * (1 + cos_pi(std::min(1.0, (now - warm) / std::max(1.0, total - warm))));
    if (choice.schedule == Schedule::Constant) return choice.learning_rate;
    double rate = choice.learning_rate;
    for (double at = choice.step_epochs; at <= static_cast<double>(progress.epoch); at += choice.step_epochs)
      rate *= choice.step_factor;
    return rate;
  }

  /// The loss of a model's rows, and its gradient where one is wanted. `real` of the rows are samples, the rest
  /// filling.
  Score score(const Tensor& rows, std::span<const uint32_t> indices, size_t real, std::span<float> grad, float scale) {
    const size_t columns = rows.shape()[1];
    const std::span<const float> out = rows.data<float>().first(real * columns);
    const std::span<const uint32_t> meant = indices.first(real);
    check_outputs(dataset, columns);
    if (choice.loss == Loss::CrossEntropy)
      return cross_entropy(out, columns, labels_of(dataset, meant), grad, scale, {}, {});
    return mean_squared(out, columns, targets_of(dataset, meant), grad, scale);
  }

  /// Forward and backward over one batch: gradients of the mean loss, running statistics taken over.
  Score learn(std::span<const uint32_t> indices, std::vector<Tensor>& grads) {
    Score sum;
    const float scale = 1.0f / static_cast<float>(indices.size());
    size_t piece_number = 0;
    for_each_piece(indices, chunk, indices.size(), [&](const std::vector<uint32_t>& piece, size_t real, double) {
      Tape tape;
      RunOptions options;
      options.training = true;
      options.tape = &tape;
      options.key = mix64(context.random_key("dropout"), progress.step * 4096 + piece_number++);
      const std::vector<Tensor> outputs = run_samples(program, prepare(dataset, preparation, piece), options);
      const Tensor rows = as_rows(outputs[0], piece.size());
      Tensor grad = zero_like(rows);
      const size_t used = real * rows.shape()[1];
      const Score score_here = score(rows, piece, real, grad.write<float>().first(used), scale);
      sum.loss += score_here.loss;
      sum.correct += score_here.correct;
      const Tensor shaped = std::move(grad).reshaped(outputs[0].shape());
      std::vector<Tensor> back = program.backward(tape, std::span(&shaped, 1));
      if (grads.empty()) {
        grads = std::move(back);
      } else {
        for (size_t i = 0; i < grads.size(); ++i)
          kernels::add_scaled(1, back[i].data<float>(), grads[i].write<float>());
      }
      for (auto& [param, value] : tape.running) {
        program.set(param, value);
        const auto known = std::find_if(running.begin(), running.end(),
                                        [param = param](const auto& entry) { return entry.first == param; });
        if (known == running.end())
          running.emplace_back(param, value);
        else
          known->second = value;
      }
    });
    return sum;
  }

  void update(std::vector<Tensor>& grads) {
    // What is not to move has no gradient, so that neither the norm nor the optimizer's moments know it.
    for (size_t i = 0; i < all.size(); ++i) {
      const Param& param = original.params[all[i].param];
      const std::span<float> grad = grads[i].write<float>();
      // The straight-through estimator: rounding has gradient 1 inside the grid's range and 0 where it clips.
      if (on_grid(all[i])) kernels::multiply(grad, all[i].inside, grad);
      if (choice.keep_masks && param.mask) kernels::apply_mask(grad, param.mask->words, grad);
    }
    if (choice.clip_norm > 0) {
      double squares = 0;
      for (const Tensor& grad : grads) squares += kernels::moments(grad.data<float>(), 0).sum_squares;
      const double norm = std::sqrt(squares);
      if (norm > choice.clip_norm) {
        const auto factor = static_cast<float>(choice.clip_norm / norm);
        for (Tensor& grad : grads) kernels::scale_shift(grad.data<float>(), factor, 0, grad.write<float>());
      }
    }
    const auto now = static_cast<float>(rate());
    power1 *= kBeta1;
    power2 *= kBeta2;
    for (size_t i = 0; i < all.size(); ++i) {
      Learnt& learnt = all[i];
      const Param& param = original.params[learnt.param];
      program.set(learnt.param, Tensor());  // so that the value is changed in place
      const auto decay = static_cast<float>(learnt.decays ? choice.weight_decay : 0);
      const std::span<float> value = learnt.value.write<float>();
      const std::span<float> first = learnt.first.exists() ? learnt.first.write<float>() : std::span<float>();
      if (choice.optimizer == Optimizer::Sgd) {
        const kernels::SgdStep step{now, static_cast<float>(choice.momentum), decay, false};
        kernels::sgd_step(step, grads[i].data<float>(), first, value);
      } else {
        kernels::AdamStep step;
        step.rate = now;
        step.beta1 = static_cast<float>(kBeta1);
        step.beta2 = static_cast<float>(kBeta2);
        step.weight_decay = decay;
        step.correction1 = static_cast<float>(1 - power1);
        step.correction2 = static_cast<float>(1 - power2);
        step.decoupled = choice.optimizer == Optimizer::AdamW;
        kernels::adam_step(step, grads[i].data<float>(), first, learnt.second.write<float>(), value);
      }
      if (choice.keep_masks && param.mask) kernels::apply_mask(value, param.mask->words, value);
      show(learnt);
    }
  }

  /// Mean loss and accuracy of the validation split, in inference form.
  void validate(const Context& caller) {
    if (split.validation.empty()) return;
    Score sum;
    size_t done = 0;
    for_each_piece(split.validation, chunk, 256, [&](const std::vector<uint32_t>& piece, size_t real, double) {
      caller.tick({"train", "validation", fraction()});
      const std::vector<Tensor> outputs = run_samples(program, prepare(dataset, preparation, piece));
      const Score here = score(as_rows(outputs[0], piece.size()), piece, real, {}, 0);
      sum.loss += here.loss;
      sum.correct += here.correct;
      done += real;
    });
    progress.validation_loss = sum.loss / static_cast<double>(done);
    if (choice.loss == Loss::CrossEntropy)
      progress.validation_accuracy = static_cast<double>(sum.correct) / static_cast<double>(done);
  }

  double fraction() const {
    return static_cast<double>(progress.step) / static_cast<double>(std::max<size_t>(1, progress.steps));
  }

  TrainProgress step(const Context& caller) {
    if (progress.done) return progress;
    caller.tick({"train", "epoch " + std::to_string(progress.epoch + 1), fraction()});
    const auto started = std::chrono::steady_clock::now();
    // After a finished epoch the next step is in a new one. An epoch whose judgement broke off has that to come.
    if (next_batch == batches) {
      if (!judged) {
        judge(caller);
        return progress;
      }
      ++progress.epoch;
      next_batch = 0;
      shuffle();
    }
    const size_t from = next_batch * choice.batch, to = std::min(order.size(), from + choice.batch);
    const std::span<const uint32_t> indices = std::span(order).subspan(from, to - from);
    std::vector<Tensor> grads;
    const Score score_here = learn(indices, grads);
    progress.batch = next_batch;
    progress.loss = score_here.loss / static_cast<double>(indices.size());
    progress.accuracy = static_cast<double>(score_here.correct) / static_cast<double>(indices.size());
    progress.learning_rate = rate();
    progress.validation_loss.reset();
    progress.validation_accuracy.reset();
    progress.best = false;
    if (!std::isfinite(progress.loss)) stop_at_nan();
    update(grads);
    ++progress.step;
    ++next_batch;
    judged = false;
    if (next_batch == batches) judge(caller);
    progress.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    return progress;
  }

  /// The end of an epoch. Nothing is changed where validating is broken off.
  void judge(const Context& caller) {
    validate(caller);
    const double loss = progress.validation_loss.value_or(-static_cast<double>(progress.step));
    // Without a validation split nothing has run on these weights yet.
    if (!std::isfinite(loss) || (!progress.validation_loss && !all_finite())) stop_at_nan();
    if (loss < best_loss || !has_best) {
      best_loss = loss;
      has_best = true;
      progress.best = true;
      waited = 0;
      keep_best();
    } else {
      ++waited;
    }
    judged = true;
    progress.done = progress.step >= progress.steps || (choice.patience > 0 && waited >= choice.patience);
  }

  bool all_finite() const {
    return std::all_of(all.begin(), all.end(), [](const Learnt& learnt) {
      const std::span<const float> values = learnt.value.data<float>();
      return std::all_of(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
    });
  }

  /// Sets all statistics back, those that the list does not have to what the model came with.
  void set_running(std::vector<std::pair<size_t, Tensor>> list) {
    for (const auto& [param, value] : running) program.set(param, original.params[param].value);
    running = std::move(list);
    for (const auto& [param, value] : running) program.set(param, value);
  }

  [[noreturn]] void stop_at_nan() {
    progress.done = true;
    for (size_t i = 0; i < all.size(); ++i) {
      all[i].value = Tensor::copy_of(DType::Float32, best_values[i].shape(), best_values[i].bytes());
      show(all[i]);
    }
    set_running(best_running);
    fail(ErrorCode::BadData,
         "epoch " + std::to_string(progress.epoch + 1) + ", batch " + std::to_string(progress.batch + 1),
         "the loss is not a number any more, so training has stopped; the weights are those of " +
             std::string(has_best ? "the best epoch so far" : "the start") + ". Try a learning rate below " +
             number(choice.learning_rate) + ", or clip_norm 1");
  }

  Model with(const std::vector<Tensor>& values, const std::vector<std::pair<size_t, Tensor>>& statistics) const {
    Model model = original;
    for (size_t i = 0; i < all.size(); ++i) {
      Param& param = model.params[all[i].param];
      param.value = values[i];
      if (!choice.keep_masks) param.mask.reset();
      if (!choice.keep_grids) {
        param.grid.reset();
        param.codebook.reset();
      } else if (param.codebook) {
        // Every value that is there now, but for the zeros of what is pruned.
        const std::span<const float> now = values[i].data<float>();
        std::set<float> centroids;
        for (size_t at = 0; at < now.size(); ++at) {
          if (!param.mask || (param.mask->words[at / 64] >> (at % 64) & 1)) centroids.insert(now[at]);
        }
        param.codebook->centroids.assign(centroids.begin(), centroids.end());
      }
    }
    for (const auto& [param, value] : statistics) model.params[param].value = value;
    auto header = std::make_shared<Header>(*model.header);
    const auto say = [&](const std::string& key, const std::string& value) {
      const auto known = std::find_if(header->metadata.begin(), header->metadata.end(),
                                      [&](const auto& entry) { return entry.first == key; });
      if (known == header->metadata.end())
        header->metadata.emplace_back(key, value);
      else
        known->second = value;
    };
    const auto list = [](const std::vector<float>& numbers) {
      std::string text;
      for (const float value : numbers) text += (text.empty() ? "" : ",") + exact(value);
      return text;
    };
    say("nibble.scale", exact(preparation.scale));
    say("nibble.mean", list(preparation.mean));
    say("nibble.std", list(preparation.std));
    model.header = std::move(header);
    return model;
  }

  /// Nine digits give every float32 back.
  static std::string exact(float value) {
    char text[32];
    std::snprintf(text, sizeof(text), "%.9g", static_cast<double>(value));
    return text;
  }

  /// What a saved state belongs to: everything that a step depends on and that is not in the state, but for the
  /// samples themselves, whose name and labels stand for them.
  uint64_t fingerprint() const {
    uint64_t hash = 0;
    const auto mix = [&](uint64_t value) { hash = mix64(hash, value); };
    const auto mix_text = [&](std::string_view text) {
      mix(text.size());
      for (const char c : text) mix(static_cast<uint8_t>(c));
    };
    const auto mix_all = [&](const auto& values) {
      mix(values.size());
      for (const auto value : values) {
        uint64_t bits = 0;
        std::memcpy(&bits, &value, sizeof(value));
        mix(bits);
      }
    };
    for (const Node& node : original.graph->nodes) {
      mix_text(node.op);
      for (const std::string& input : node.inputs) mix_text(input);
    }
    for (const Learnt& learnt : all) {
      const Param& param = original.params[learnt.param];
      mix_text(param.name);
      mix_all(learnt.value.shape());
      mix(on_grid(learnt));
      mix(learnt.cluster.size());
      mix(param.mask.has_value());
      if (param.grid) {
        mix_all(param.grid->scale);
        mix_all(param.grid->zero_point);
      }
      if (param.codebook) mix_all(param.codebook->centroids);
      if (param.mask) mix_all(param.mask->words);
    }
    mix_text(dataset.name);
    mix_all(dataset.labels);
    if (dataset.targets.exists()) mix_all(dataset.targets.data<float>());
    mix_all(split.training);
    mix_all(split.validation);
    mix_all(preparation.shape);
    mix(static_cast<uint64_t>(preparation.layout));
    mix_all(std::array{preparation.scale});
    mix_all(preparation.mean);
    mix_all(preparation.std);
    mix_all(std::array{choice.learning_rate, choice.momentum, choice.weight_decay, choice.warmup, choice.step_epochs,
                       choice.step_factor, choice.clip_norm});
    for (const size_t value : {choice.epochs, choice.batch, static_cast<size_t>(choice.loss),
                               static_cast<size_t>(choice.optimizer), static_cast<size_t>(choice.schedule),
                               static_cast<size_t>(choice.keep_masks), static_cast<size_t>(choice.keep_grids),
                               choice.patience, dataset.size, split.training.size(), split.validation.size()})
      mix(value);
    mix(context.random_key("fingerprint"));
    return hash;
  }

  std::vector<std::byte> save() const {
    Writer out;
    out.put(kMagic);
    out.put(fingerprint());
    for (const size_t value : {progress.epoch, progress.batch, progress.step, next_batch, waited})
      out.put<uint64_t>(value);
    for (const double value :
         {progress.loss, progress.accuracy, progress.learning_rate, progress.seconds, best_loss, power1, power2,
          progress.validation_loss.value_or(NAN), progress.validation_accuracy.value_or(NAN)})
      out.put(value);
    for (const bool value : {progress.done, has_best, progress.best, judged}) out.put<uint8_t>(value);
    for (const Learnt& learnt : all) {
      out.put(learnt.value.data<float>());
      if (learnt.first.exists()) out.put(learnt.first.data<float>());
      if (learnt.second.exists()) out.put(learnt.second.data<float>());
    }
    for (const Tensor& value : best_values) out.put(value.data<float>());
    for (const auto* statistics : {&running, &best_running}) {
      out.put<uint64_t>(statistics->size());
      for (const auto& [param, value] : *statistics) {
        out.put<uint64_t>(param);
        out.put(value.data<float>());
      }
    }
    return std::move(out.bytes);
  }

  void restore(std::span<const std::byte> saved) {
    Reader in(saved);
    if (in.get<uint64_t>() != kMagic) in.broken("this is not a saved training");
    if (in.get<uint64_t>() != fingerprint())
      in.broken("it was saved by a training of another model, other data, another seed or other choices");
    // Everything is read before anything is changed.
    Impl::State state;
    for (size_t* value : {&state.epoch, &state.batch, &state.step, &state.next_batch, &state.waited})
      *value = static_cast<size_t>(in.get<uint64_t>());
    if (state.next_batch > batches || state.step > progress.steps || state.epoch >= choice.epochs)
      in.broken("its counters are beyond the end of the training");
    double* const numbers[] = {&state.loss,   &state.accuracy, &state.rate,   &state.seconds,   &state.best_loss,
                               &state.power1, &state.power2,   &state.v_loss, &state.v_accuracy};
    for (double* value : numbers) *value = in.get<double>();
    for (bool* value : {&state.done, &state.has_best, &state.best, &state.judged}) *value = in.get<uint8_t>() != 0;
    std::vector<Learnt> learnt_values = all;
    for (Learnt& learnt : learnt_values) {
      in.get(learnt.value.write<float>());
      if (learnt.first.exists()) in.get(learnt.first.write<float>());
      if (learnt.second.exists()) in.get(learnt.second.write<float>());
    }
    std::vector<Tensor> best = best_values;
    for (Tensor& value : best) in.get(value.write<float>());
    std::vector<std::pair<size_t, Tensor>> statistics[2];
    for (auto& list : statistics) {
      const uint64_t count = in.get<uint64_t>();
      for (uint64_t i = 0; i < count; ++i) {
        const uint64_t param = in.get<uint64_t>();
        if (param >= original.params.size() || original.params[param].value.dtype() != DType::Float32)
          in.broken("it names a statistic that the model does not have");
        Tensor value = zero_like(original.params[param].value);
        in.get(value.write<float>());
        list.emplace_back(param, std::move(value));
      }
    }
    in.end();

    all = std::move(learnt_values);
    best_values = std::move(best);
    set_running(std::move(statistics[0]));
    best_running = std::move(statistics[1]);
    progress.epoch = state.epoch, progress.batch = state.batch, progress.step = state.step;
    next_batch = state.next_batch, waited = state.waited;
    progress.loss = state.loss, progress.accuracy = state.accuracy, progress.learning_rate = state.rate;
    progress.seconds = state.seconds, best_loss = state.best_loss, power1 = state.power1, power2 = state.power2;
    progress.validation_loss = std::isnan(state.v_loss) ? std::nullopt : std::optional(state.v_loss);
    progress.validation_accuracy = std::isnan(state.v_accuracy) ? std::nullopt : std::optional(state.v_accuracy);
    progress.done = state.done, has_best = state.has_best, progress.best = state.best, judged = state.judged;
    for (Learnt& learnt : all) show(learnt);
    shuffle();
  }

  struct State {
    size_t epoch = 0, batch = 0, step = 0, next_batch = 0, waited = 0;
    double loss = 0, accuracy = 0, rate = 0, seconds = 0, best_loss = 0, power1 = 1, power2 = 1, v_loss = 0,
           v_accuracy = 0;
    bool done = false, has_best = false, best = false, judged = false;
  };

  // Kingma and Ba 2015, section 2: "good default settings".
  static constexpr double kBeta1 = 0.9, kBeta2 = 0.999;

  Model original;
  Dataset dataset;
  Split split;
  Preparation preparation;
  TrainChoice choice;
  Context context;
  std::vector<size_t> trained;
  Program program;
  std::vector<Learnt> all;
  std::optional<size_t> chunk;
  size_t batches = 0, next_batch = 0, waited = 0;
  std::vector<uint32_t> order;
  TrainProgress progress;
  double best_loss = 0, power1 = 1, power2 = 1;
  bool has_best = false, judged = false;  ///< judged: the last finished epoch
  std::vector<Tensor> best_values;
  std::vector<std::pair<size_t, Tensor>> running, best_running;
};

Trainer::Trainer(const Model& model, const Dataset& dataset, const Split& split, const Preparation& preparation,
                 const TrainChoice& choice, uint64_t seed)
    : impl_(std::make_unique<Impl>(model, dataset, split, preparation, choice, seed)) {}
Trainer::Trainer(Trainer&&) noexcept = default;
Trainer::~Trainer() = default;

TrainProgress Trainer::step(const Context& context) { return impl_->step(context); }
bool Trainer::done() const { return impl_->progress.done; }

Model Trainer::current() const {
  std::vector<Tensor> values;
  for (const auto& learnt : impl_->all) values.push_back(impl_->program.value(learnt.param));
  return impl_->with(values, impl_->running);
}

Model Trainer::best() const { return impl_->with(impl_->best_values, impl_->best_running); }

std::vector<std::byte> Trainer::save() const { return impl_->save(); }
void Trainer::restore(std::span<const std::byte> saved) { impl_->restore(saved); }

Model train(const Model& model, const Dataset& dataset, const Split& split, const Preparation& preparation,
            const TrainChoice& choice, uint64_t seed, const Context& context,
            const std::function<void(const TrainProgress&)>& listener) {
  Trainer trainer(model, dataset, split, preparation, choice, seed);
  while (!trainer.done()) {
    const TrainProgress progress = trainer.step(context);
    if (listener) listener(progress);
  }
  return trainer.best();
}

}  // namespace nibble
