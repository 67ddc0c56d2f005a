#include "core/quantize/rate_distortion.hpp"

#include <algorithm>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "core/codec/level_pricer.hpp"
#include "core/kernels/kernels.hpp"
#include "core/quantize/cholesky.hpp"

namespace nibble {

namespace {

constexpr double kLn2 = 0.69314718055994530942;

/// A float with `bits` bits of mantissa, the nearest.
float with_mantissa(float value, int bits) {
  if (bits >= 23 || value == 0 || !std::isfinite(value)) return value;
  uint32_t pattern = std::bit_cast<uint32_t>(value);
  const int dropped = 23 - bits;
  pattern += (1u << (dropped - 1)) - 1 + (pattern >> dropped & 1);
  pattern &= ~((1u << dropped) - 1);
  const float rounded = std::bit_cast<float>(pattern);
  return std::isfinite(rounded) ? rounded : value;
}

/// Mantissa bits at which one bit more saves as much loss as lambda: a relative error uniform in 2^-bits costs
/// 1/2 weight 2^(-2 bits) / 12, weight being curvature * value^2. log2 by the exponent and a chord, within 0.09: libm's
/// is not the same everywhere.
int mantissa_bits(double weight, double lambda) {
  const double ratio = weight * kLn2 / (12 * lambda);
  if (!(ratio > 1)) return 3;
  int exponent = 0;
  const double fraction = std::frexp(ratio, &exponent);  // in [1/2, 1)
  const double log2 = exponent - 1 + (2 * fraction - 1);
  return std::clamp(static_cast<int>(log2 / 2 + 0.5) + 1, 3, 23);
}

double curvature_at(const ErrorCost& cost, size_t at) {
  // An element that no sample has needed is not worthless: it has a fiftieth of what the others have.
  return cost.diagonal.empty() ? cost.mean : 0.98 * static_cast<double>(cost.diagonal[at]) + 0.02 * cost.mean;
}

/// How the elements of a param lie on its grid.
struct Layout {
  Rows rows;  ///< of the grid: what shares scales
  size_t group = 1, groups = 1;

  Layout(const Shape& shape, const QuantScheme& scheme, const Weight* weight) {
    const bool by_row = scheme.granularity == Granularity::Channel || scheme.granularity == Granularity::Group;
    rows = rows_of(shape, by_row && weight ? weight->channel_axis : std::nullopt);
    group = scheme.granularity == Granularity::Group ? std::min(scheme.group_size, rows.length()) : rows.length();
    groups = groups_of(rows.length(), group);
  }
  size_t piece(size_t at) const {
    const size_t inner = at % rows.inner, channel = at / rows.inner % rows.channels;
    const size_t position = at / rows.inner / rows.channels * rows.inner + inner;
    return channel * groups + position / group;
  }
};

class Rounder {
 public:
  Rounder(const Param& param, const Weight* weight, const ErrorCost& cost, double lambda)
      : param_(param), weight_(weight), cost_(cost), lambda_(lambda), view_(param.value), values_(view_.values()) {}

  std::optional<Param> round(std::string& note) {
    for (const float value : values_) {
      if (!std::isfinite(value)) {
        note = "holds values that are not finite, and is left as it is";
        return std::nullopt;
      }
    }
    if (param_.grid && param_.grid->scheme.bits == 1 && param_.grid->scheme.symmetric) {
      note = "has one bit, which leaves nothing to choose";
      return std::nullopt;
    }
    if (param_.codebook) {
      note = "shares its values, and each keeps the one it has";
      return std::nullopt;
    }
    find_grid();
    layout_.emplace(param_.value.shape(), grid_.scheme, weight_);
    levels_.resize(values_.size());
    for (size_t i = 0; i < levels_.size(); ++i) levels_[i] = kept(i) ? nearest(values_[i], i) : 0;
    widths_ = codec::widths_of(param_.value.shape());
    const bool together = !cost_.moments.empty() && factor(note);
    // What is chosen changes what the coder expects; the second time it expects what it gets.
    for (int pass = 0; pass < 2; ++pass) {
      const codec::LevelChoice choice = codec::choose_model(levels_, widths_);
      codec::LevelPricer pricer(choice, widths_);
      if (together) {
        sweep(pricer);
      } else {
        one_by_one(pricer);
      }
    }
    return result();
  }

 private:
  bool kept(size_t at) const { return !param_.mask || (param_.mask->words[at / 64] >> (at % 64) & 1); }
  double scale_at(size_t at) const {
    return grid_.scale.size() == 1 ? grid_.scale[0] : grid_.scale[layout_->piece(at)];
  }

  void find_grid() {
    if (param_.grid) {
      grid_ = *param_.grid;
      return;
    }
    const float largest = kernels::abs_max(values_);
    double step = std::sqrt(12 * lambda_ / (cost_.mean * kLn2));
    // 16 bits are the most that a grid has, a step below the normal numbers may be 0 as a float, and one beyond the
    // largest value leaves nothing anyway.
    step = std::clamp(step, std::max<double>(largest / 32767.0, FLT_MIN),
                      std::min(std::max(4.0 * largest, 1e-30), largest_finite(DType::Float32) / 2));
    grid_.scheme = {16, true, Granularity::Tensor, 32};
    grid_.scale = {with_mantissa(static_cast<float>(step), 4)};
    grid_.zero_point = {0};
    if (static_cast<double>(largest) / grid_.scale[0] > 32767) grid_.scale[0] *= 1.0625f;
  }

  /// The level next to a code that the grid has, and that the type can hold.
  int32_t clamped(double code, size_t at) const {
    const int32_t zero = grid_.zero_point[grid_.scale.size() == 1 ? 0 : layout_->piece(at)];
    const double reach = std::floor(largest_finite(param_.value.dtype()) / scale_at(at));
    const double low = std::max<double>(lowest_code(grid_.scheme) - zero, -reach);
    const double high = std::min<double>(highest_code(grid_.scheme) - zero, reach);
    return static_cast<int32_t>(std::clamp(code, low, high));
  }
  int32_t nearest(double value, size_t at) const { return clamped(std::nearbyint(value / scale_at(at)), at); }

  /// Tries the nearest level, its neighbours and 0; `weight` is half the curvature, `relief` what is taken off a
  /// level's cost for its square.
  int32_t choose(double value, size_t at, double weight, double relief, codec::LevelPricer& pricer) const {
    if (!kept(at)) return 0;
    const double scale = scale_at(at);
    const int32_t level = nearest(value, at);
    const int32_t inner = level > 0 ? level - 1 : level < 0 ? level + 1 : 0;
    const int32_t outer = clamped(level + (level < 0 || (level == 0 && value < 0) ? -1 : 1), at);
    int32_t best = 0;
    double least = 0;
    const int32_t tried[4] = {level, inner, 0, outer};
    const size_t count = relief > 0 ? 4 : 3;
    for (size_t i = 0; i < count; ++i) {
      const int32_t candidate = tried[i];
      if (i && (candidate == tried[0] || (i == 2 && candidate == tried[1]))) continue;
      const double point = scale * candidate, error = value - point;
      const double cost = weight * error * error + lambda_ * static_cast<double>(pricer.price(candidate)) / 65536 -
                          relief * point * point;
      if (i == 0 || cost < least) {
        least = cost;
        best = candidate;
      }
    }
    return best;
  }

  void one_by_one(codec::LevelPricer& pricer) {
    for (size_t at = 0; at < levels_.size(); ++at) {
      levels_[at] = choose(values_[at], at, curvature_at(cost_, at) / 2, 0, pricer);
      pricer.take(levels_[at]);
    }
  }

  /// For each group of outputs that share their inputs: U, and the values that W H H'^-1 has. False where H' cannot be
  /// factored.
  bool factor(std::string& note) {
    rows_ = rows_of(param_.value.shape(), weight_->channel_axis);
    const size_t n = cost_.columns, groups = cost_.groups;
    if (rows_.length() != n || rows_.channels % groups) return false;
    const double count = static_cast<double>(values_.size());
    double sum = 0, squares = 0;
    for (const float value : values_) {
      sum += value;
      squares += static_cast<double>(value) * value;
    }
    const double variance = squares / count - (sum / count) * (sum / count);
    if (!(variance > 0)) return false;
    relief_ = 1 / (2 * kLn2 * variance);  // of a squared value, in bits
    double diagonal = 0;
    for (size_t g = 0; g < groups; ++g) {
      for (size_t i = 0; i < n; ++i) diagonal += cost_.moments[(g * n + i) * n + i];
    }
    diagonal /= static_cast<double>(groups * n);
    if (!(diagonal > 0)) return false;
    const double unit = cost_.mean / diagonal;
    target_.resize(values_.size());
    gather_rows<float>(values_, rows_, 0, rows_.channels, target_);
    targets_.assign(target_.begin(), target_.end());
    factors_.resize(groups * n * n);
    std::vector<double> h(n * n), product(n), solved(n);
    for (size_t g = 0; g < groups; ++g) {
      // A hundredth of the mean on the diagonal, as GPTQ has it: inputs that were always 0 have no curvature at all.
      for (size_t i = 0; i < n * n; ++i) h[i] = unit * cost_.moments[g * n * n + i];
      for (size_t i = 0; i < n; ++i) h[i * n + i] += 0.01 * cost_.mean;
      const std::span<double> u = std::span(factors_).subspan(g * n * n, n * n);
      std::copy(h.begin(), h.end(), u.begin());
      for (size_t i = 0; i < n; ++i) u[i * n + i] += 2 * lambda_ * relief_;
      if (!inverse_factor(u, n)) {
        note =
            "its inputs say too little about each other (the matrix has no Cholesky factor); errors are counted one by "
            "one";
        return false;
      }
      const size_t outputs = rows_.channels / groups;
      for (size_t row = g * outputs; row < (g + 1) * outputs; ++row) {
        // w H'^-1 H = (U^T (U (H w))).
        double* const w = targets_.data() + row * n;
        for (size_t i = 0; i < n; ++i) {
          double dot = 0;
          for (size_t j = 0; j < n; ++j) dot += h[i * n + j] * w[j];
          product[i] = dot;
        }
        std::fill(solved.begin(), solved.end(), 0.0);
        for (size_t i = 0; i < n; ++i) {
          double dot = 0;
          for (size_t j = i; j < n; ++j) dot += u[i * n + j] * product[j];
          for (size_t j = i; j < n; ++j) solved[j] += u[i * n + j] * dot;
        }
        std::copy(solved.begin(), solved.end(), w);
        if (!std::all_of(w, w + n, [](double value) { return std::isfinite(value); })) {
          note = "its inputs are too large to be counted together; errors are counted one by one";
          return false;
        }
      }
    }
    return true;
  }

  /// One element of the sweep: chooses, and hands its error to the inputs of this output that are still to come.
  void settle(std::vector<double>& left, size_t row, size_t column, size_t at, codec::LevelPricer& pricer) {
    const size_t n = cost_.columns, group = row / (rows_.channels / cost_.groups);
    const double* const u = factors_.data() + (group * n + column) * n;
    double* const w = left.data() + row * n;
    const double diagonal = u[column];
    // The error of a column costs 1/2 (w - q)^2 / U_jj^2 once the later ones have made up for it.
    levels_[at] = choose(w[column], at, 1 / (2 * diagonal * diagonal), lambda_ * relief_, pricer);
    pricer.take(levels_[at]);
    const double error = (w[column] - scale_at(at) * levels_[at]) / diagonal;
    for (size_t j = column + 1; j < n; ++j) w[j] -= error * u[j];
  }

  /// In the tensor's own order, so that the coder is asked in its own; rows and columns are visited in an order in
  /// which each row's columns come one after the other, whatever the axis of the outputs.
  void sweep(codec::LevelPricer& pricer) {
    std::vector<double> left = targets_;
    for (size_t o = 0; o < rows_.outer; ++o) {
      for (size_t c = 0; c < rows_.channels; ++c) {
        for (size_t i = 0; i < rows_.inner; ++i)
          settle(left, c, o * rows_.inner + i, (o * rows_.channels + c) * rows_.inner + i, pricer);
      }
    }
  }

  Param result() {
    Param rounded = param_;
    std::vector<float> out(values_.size());
    uint32_t largest = 0;
    for (size_t i = 0; i < out.size(); ++i) {
      out[i] = static_cast<float>(scale_at(i)) * static_cast<float>(levels_[i]);
      largest = std::max(largest, static_cast<uint32_t>(std::abs(levels_[i])));
    }
    rounded.value = from_floats(param_.value.dtype(), param_.value.shape(), out);
    if (!param_.grid) {
      // As few bits as the levels need; one bit would have no zero.
      const int bits = std::max(2, static_cast<int>(std::bit_width(largest)) + 1);
      grid_.scheme.bits = bits <= 8 ? bits : 16;
    }
    rounded.grid = grid_;
    return rounded;
  }

  const Param& param_;
  const Weight* weight_;
  const ErrorCost& cost_;
  const double lambda_;
  const FloatView view_;
  const std::span<const float> values_;
  QuantParams grid_;
  std::optional<Layout> layout_;
  std::vector<int32_t> levels_;
  codec::Widths widths_;
  // With moments.
  Rows rows_;
  double relief_ = 0;
  std::vector<float> target_;
  std::vector<double> targets_, factors_;  // [rows, columns]; [groups, columns, columns]
};

}  // namespace

std::optional<Param> round_by_rate(const Param& param, const Weight* weight, const ErrorCost& cost, double lambda,
                                   std::string& note) {
  if (param.value.elements() == 0 || !(cost.mean > 0)) return std::nullopt;
  return Rounder(param, weight, cost, lambda).round(note);
}

Param shorten_mantissas(const Param& param, const ErrorCost& cost, double lambda) {
  const FloatView view(param.value);
  const std::span<const float> values = view.values();
  double weight = 0;
  for (size_t i = 0; i < values.size(); ++i)
    weight = std::max(weight, curvature_at(cost, i) * static_cast<double>(values[i]) * values[i]);
  const int bits = mantissa_bits(weight, lambda);
  std::vector<float> out(values.begin(), values.end());
  const double most = largest_finite(param.value.dtype());
  for (float& value : out) {
    if (const float rounded = with_mantissa(value, bits); std::abs(rounded) <= most) value = rounded;
  }
  Param shortened = param;
  shortened.value = from_floats(param.value.dtype(), param.value.shape(), out);
  return shortened;
}

Param shorten_scales(const Param& param, const Weight& weight, const ErrorCost& cost, double lambda) {
  if (!param.grid) return param;
  const Layout layout(param.value.shape(), param.grid->scheme, &weight);
  const FloatView view(param.value);
  const std::span<const float> values = view.values();
  std::vector<double> weights(param.grid->scale.size(), 0);
  std::vector<float> largest(weights.size(), 0);
  const auto piece = [&](size_t at) { return weights.size() == 1 ? 0 : layout.piece(at); };
  for (size_t i = 0; i < values.size(); ++i) {
    weights[piece(i)] += curvature_at(cost, i) * static_cast<double>(values[i]) * values[i];
    largest[piece(i)] = std::max(largest[piece(i)], std::abs(values[i]));
  }
  Param shortened = param;
  for (size_t i = 0; i < weights.size(); ++i) {
    const float scale = param.grid->scale[i], rounded = with_mantissa(scale, mantissa_bits(weights[i], lambda));
    // Not where the outermost value would become infinity.
    if (largest[i] * (static_cast<double>(rounded) / scale) <= largest_finite(param.value.dtype()))
      shortened.grid->scale[i] = rounded;
  }
  std::vector<float> out(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const float code = std::nearbyint(values[i] / param.grid->scale[piece(i)]);
    out[i] = shortened.grid->scale[piece(i)] * code;
  }
  shortened.value = from_floats(param.value.dtype(), param.value.shape(), out);
  return shortened;
}

}  // namespace nibble
