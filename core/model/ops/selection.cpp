// NonMaxSuppression: of boxes that overlap, the one with the best score.
#include <limits>
#include <numeric>

#include "core/model/ops/shape_parts.hpp"

namespace nibble::ops {

namespace {

struct Box {
  float top, left, bottom, right;
  float area() const { return (bottom - top) * (right - left); }
};

/// Corners may be given in any order, or as centre and size (x, y, width, height).
Box box_of(const float* values, bool centre) {
  if (centre) {
    const float x = values[0], y = values[1], width = values[2], height = values[3];
    return {y - height / 2, x - width / 2, y + height / 2, x + width / 2};
  }
  return {std::min(values[0], values[2]), std::min(values[1], values[3]), std::max(values[0], values[2]),
          std::max(values[1], values[3])};
}

/// Area of the intersection over that of the union.
float overlap(const Box& a, const Box& b) {
  const float height = std::min(a.bottom, b.bottom) - std::max(a.top, b.top);
  const float width = std::min(a.right, b.right) - std::max(a.left, b.left);
  if (!(height > 0 && width > 0)) return 0;
  return height * width / (a.area() + b.area() - height * width);
}

float one_real(const Call& call, size_t input, float otherwise) {
  if (!call.has(input)) return otherwise;
  if (call.floats(input).size() != 1) call.fail("wants one number as input " + std::to_string(input));
  return call.floats(input)[0];
}

std::vector<Tensor> non_max_suppression(Call& call) {
  const Shape& boxes = call.in(0).shape();
  const Shape& scores = call.in(1).shape();
  if (boxes.size() != 3 || boxes[2] != 4 || scores.size() != 3 || scores[0] != boxes[0] || scores[2] != boxes[1]) {
    call.fail("boxes of " + to_string(boxes) + " and scores of " + to_string(scores) +
              " do not fit; they are batch x boxes x 4 and batch x classes x boxes");
  }
  const std::span<const float> corners = call.floats(0), marks = call.floats(1);
  int64_t most = 0;
  if (call.has(2)) {
    const std::vector<int64_t> given = call.integers(2);
    if (given.size() != 1) call.fail("wants one number as input 2");
    most = given[0];
  }
  const float threshold = one_real(call, 3, 0);
  const float lowest = one_real(call, 4, -std::numeric_limits<float>::infinity());
  const bool centre = call.integer("center_point_box", 0) != 0;
  const size_t count = boxes[1];
  std::vector<int64_t> selected;
  std::vector<Box> all(count), kept;
  std::vector<size_t> order;
  // Without boxes or classes there may be any number of the other.
  for (size_t batch = 0; batch < boxes[0] && !marks.empty(); ++batch) {
    for (size_t i = 0; i < count; ++i) all[i] = box_of(corners.data() + (batch * count + i) * 4, centre);
    for (size_t label = 0; label < scores[1]; ++label) {
      const std::span<const float> score = marks.subspan((batch * scores[1] + label) * count, count);
      order.clear();
      for (size_t i = 0; i < count; ++i) {
        if (score[i] > lowest) order.push_back(i);  // no NaN either
      }
      std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return score[a] > score[b]; });
      kept.clear();
      for (const size_t i : order) {
        if (static_cast<int64_t>(kept.size()) >= most) break;
        const auto hides = [&](const Box& other) { return overlap(all[i], other) > threshold; };
        if (std::any_of(kept.begin(), kept.end(), hides)) continue;
        kept.push_back(all[i]);
        selected.insert(selected.end(),
                        {static_cast<int64_t>(batch), static_cast<int64_t>(label), static_cast<int64_t>(i)});
      }
    }
  }
  const size_t rows = selected.size() / 3;
  return {Tensor::from<int64_t>(DType::Int64, {rows, 3}, selected)};
}

}  // namespace

std::span<const Op> selection_ops() {
  static const std::vector<Op> table = {{"NonMaxSuppression", non_max_suppression, nullptr, Reals::AsFloat32}};
  return table;
}

}  // namespace nibble::ops
