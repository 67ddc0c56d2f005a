// Data made here, so that everything can be tried before a file is found: digits drawn with a pen of random hand, and
// points of a linear model. Only +, -, *, / and the square root, all of which round the same way everywhere: the bytes
// are the same natively and in every browser.
#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <memory>

#include "core/base/error.hpp"
#include "core/data/data.hpp"

namespace nibble {

namespace {

// --- Writing variants ------------------------------------------------------------------------------------------------

/// A point the pen passes, in hundredths of the digit's height: x to the right, y down, (0, 0) the middle. The same
/// point twice in a row is a corner.
struct Mark {
  int8_t x, y;
};
/// Not a point: the pen is lifted.
constexpr Mark kLift = {127, 127};

constexpr Mark kZeroRound[] = {{4, -50}, {-20, -38}, {-31, 0},  {-20, 38}, {2, 50},
                               {22, 38}, {31, 0},    {22, -38}, {3, -50}};
constexpr Mark kZeroNarrow[] = {{2, -50}, {-14, -36}, {-20, 2},  {-12, 40}, {2, 50},
                                {15, 36}, {20, -2},   {13, -38}, {2, -50}};
constexpr Mark kZeroOpen[] = {{-4, -46}, {-24, -28}, {-28, 10}, {-10, 46}, {14, 46},
                              {28, 10},  {22, -30},  {4, -50},  {-14, -44}};

constexpr Mark kOnePlain[] = {{0, -50}, {0, 0}, {0, 50}};
constexpr Mark kOneLeaning[] = {{9, -50}, {1, 0}, {-8, 50}};
constexpr Mark kOneFlag[] = {{-17, -27}, {-6, -38}, {2, -50}, {2, -50}, {1, 0}, {0, 50}};
constexpr Mark kOneSerif[] = {{-15, -30}, {0, -50}, {0, -50}, {0, 0}, {0, 50}, kLift, {-20, 50}, {0, 49}, {20, 50}};

constexpr Mark kTwoAngular[] = {{-25, -30}, {-12, -48}, {12, -48}, {25, -28}, {14, -2},
                                {-10, 26},  {-28, 48},  {-28, 48}, {0, 48},   {28, 48}};
constexpr Mark kTwoLooped[] = {{-24, -32}, {-8, -50}, {16, -44}, {22, -22}, {8, 6},  {-14, 34},
                               {-27, 44},  {-26, 32}, {-8, 34},  {10, 46},  {30, 42}};
constexpr Mark kTwoWide[] = {{-28, -36}, {0, -50}, {24, -36}, {8, 2},  {-28, 46},
                             {-28, 46},  {-4, 42}, {8, 48},   {30, 44}};

constexpr Mark kThreePointed[] = {{-24, -38}, {-4, -50}, {20, -40}, {20, -18}, {-6, -4},
                                  {-6, -4},   {22, 10},  {26, 32},  {4, 50},   {-26, 38}};
constexpr Mark kThreeFlat[] = {{-24, -48}, {0, -48}, {22, -48}, {22, -48}, {8, -28}, {-4, -8},
                               {-4, -8},   {20, 4},  {25, 28},  {4, 49},   {-26, 40}};
constexpr Mark kThreeLooped[] = {{-22, -40}, {2, -50}, {22, -32}, {2, -5},  {-8, -4},
                                 {6, -1},    {27, 22}, {8, 48},   {-26, 42}};

constexpr Mark kFourOpen[] = {{-22, -48}, {-26, -18}, {-28, 8},  {-28, 8}, {0, 7},
                              {28, 6},    kLift,      {14, -34}, {13, 8},  {12, 50}};
constexpr Mark kFourClosed[] = {{12, 50},  {12, 0},   {12, -50}, {12, -50}, {-8, -16},
                                {-30, 16}, {-30, 16}, {0, 16},   {30, 16}};
constexpr Mark kFourCurved[] = {{-20, -50}, {-26, -12}, {-16, 4}, {18, -2}, kLift, {22, -48}, {16, 0}, {8, 50}};

constexpr Mark kFiveTwoStrokes[] = {{-18, -48}, {-20, -28}, {-22, -6}, {-22, -6},  {4, -14}, {26, 10}, {20, 40},
                                    {-4, 50},   {-26, 38},  kLift,     {-18, -48}, {4, -48}, {27, -49}};
constexpr Mark kFiveOneStroke[] = {{26, -48}, {4, -47}, {-18, -48}, {-18, -48}, {-22, -28}, {-24, -6},
                                   {-24, -6}, {6, -12}, {26, 14},   {12, 46},   {-26, 42}};
constexpr Mark kFiveCurved[] = {{26, -46}, {-4, -50}, {-22, -30}, {-10, -8}, {16, 6}, {22, 30}, {0, 50}, {-24, 40}};

constexpr Mark kSixCurved[] = {{18, -50}, {-12, -26}, {-26, 10}, {-16, 42}, {6, 50},
                               {24, 32},  {18, 8},    {-2, 2},   {-22, 20}};
constexpr Mark kSixStraight[] = {{6, -50}, {-10, -24}, {-20, 0}, {-24, 28}, {-4, 50},
                                 {20, 38}, {20, 14},   {0, 6},   {-20, 24}};
constexpr Mark kSixHooked[] = {{22, -40}, {4, -50}, {-18, -28}, {-27, 14}, {-10, 48},
                               {16, 44},  {24, 22}, {8, 4},     {-14, 10}, {-24, 28}};

constexpr Mark kSevenPlain[] = {{-26, -46}, {0, -47}, {26, -46}, {26, -46}, {10, 2}, {-6, 50}};
constexpr Mark kSevenBar[] = {{-26, -46}, {0, -47}, {26, -46}, {26, -46}, {10, 2},
                              {-6, 50},   kLift,    {-16, 3},  {2, 1},    {24, 1}};
constexpr Mark kSevenSerif[] = {{-27, -32}, {-26, -47}, {-26, -47}, {0, -46}, {26, -47}, {26, -47}, {4, 0}, {-4, 50}};
constexpr Mark kSevenCurved[] = {{-28, -42}, {0, -48}, {26, -46}, {26, -46}, {6, -6}, {-4, 50}};

constexpr Mark kEightCrossed[] = {{16, -40}, {-4, -50}, {-20, -34}, {-8, -10}, {18, 14},  {22, 36},
                                  {0, 50},   {-22, 36}, {-14, 12},  {10, -10}, {20, -30}, {10, -48}};
constexpr Mark kEightTwoRings[] = {{0, -50}, {-19, -38}, {-17, -14}, {0, -4}, {17, -14}, {19, -38}, {1, -50}, kLift,
                                   {0, -4},  {-23, 10},  {-23, 38},  {0, 50}, {23, 38},  {23, 10},  {0, -4}};
constexpr Mark kEightOpen[] = {{20, -44}, {-6, -48}, {-20, -30}, {0, -4},  {20, 24},
                               {4, 50},   {-18, 38}, {-10, 12},  {12, -8}, {24, -36}};

constexpr Mark kNineStraight[] = {{22, -36}, {2, -50},  {-22, -36}, {-22, -12}, {0, -2},
                                  {20, -18}, {22, -40}, {22, -40},  {18, 10},   {14, 50}};
constexpr Mark kNineTailed[] = {{20, -34}, {0, -50},  {-22, -32}, {-14, -6}, {8, -4},
                                {22, -30}, {22, -30}, {22, 16},   {4, 48},   {-22, 42}};
constexpr Mark kNineLeaning[] = {{18, -30}, {2, -48},  {-20, -30}, {-12, -6}, {8, -10},
                                 {20, -44}, {20, -44}, {10, 4},    {-2, 50}};

/// One way of writing a digit, and how often it is met among the digit's ways.
struct Variant {
  std::span<const Mark> marks;
  float share;
};
constexpr Variant kZeros[] = {{kZeroRound, 0.5f}, {kZeroNarrow, 0.25f}, {kZeroOpen, 0.25f}};
constexpr Variant kOnes[] = {{kOnePlain, 0.4f}, {kOneLeaning, 0.2f}, {kOneFlag, 0.25f}, {kOneSerif, 0.15f}};
constexpr Variant kTwos[] = {{kTwoAngular, 0.4f}, {kTwoLooped, 0.35f}, {kTwoWide, 0.25f}};
constexpr Variant kThrees[] = {{kThreePointed, 0.4f}, {kThreeFlat, 0.25f}, {kThreeLooped, 0.35f}};
constexpr Variant kFours[] = {{kFourOpen, 0.4f}, {kFourClosed, 0.35f}, {kFourCurved, 0.25f}};
constexpr Variant kFives[] = {{kFiveTwoStrokes, 0.4f}, {kFiveOneStroke, 0.35f}, {kFiveCurved, 0.25f}};
constexpr Variant kSixes[] = {{kSixCurved, 0.4f}, {kSixStraight, 0.3f}, {kSixHooked, 0.3f}};
constexpr Variant kSevens[] = {{kSevenPlain, 0.35f}, {kSevenBar, 0.25f}, {kSevenSerif, 0.15f}, {kSevenCurved, 0.25f}};
constexpr Variant kEights[] = {{kEightCrossed, 0.4f}, {kEightTwoRings, 0.3f}, {kEightOpen, 0.3f}};
constexpr Variant kNines[] = {{kNineStraight, 0.4f}, {kNineTailed, 0.3f}, {kNineLeaning, 0.3f}};
constexpr std::span<const Variant> kDigits[] = {kZeros, kOnes,  kTwos,   kThrees, kFours,
                                                kFives, kSixes, kSevens, kEights, kNines};

// --- How much hands differ -------------------------------------------------------------------------------------------

constexpr size_t kSide = 28, kPixels = kSide * kSide, kClasses = std::size(kDigits);
constexpr float kHeight = 19;      ///< pixels of an average digit
constexpr float kJitter = 0.038f;  ///< deviation of a mark, in heights
constexpr float kTurn = 0.26f;     ///< largest tangent of the rotation
constexpr float kShear = 0.4f;     ///< largest slant
constexpr float kStretch = 0.18f;  ///< sizes are 1 plus or minus this, and again for the width alone
constexpr float kShift = 2.2f;     ///< largest move of the middle, in pixels
constexpr float kElastic = 3.6f;   ///< largest coefficient of the displacement field, in pixels
constexpr float kThinnest = 0.75f, kThickest = 1.75f;  ///< half of the stroke's width, in pixels
constexpr float kFaintest = 0.5f;                      ///< ink is this much to 1 of white
constexpr float kNoise = 36;                           ///< largest deviation of a pixel's noise, of 255
constexpr int kSteps = 5;                              ///< straight pieces between two marks

// --- Random numbers --------------------------------------------------------------------------------------------------

/// The stream of one sample.
struct Random {
  uint64_t key, at = 0;
  float uniform() { return uniform24(key, at++); }
  /// Uniform in [-1, 1).
  float symmetric() { return uniform() * 2 - 1; }
  float between(float low, float high) { return low + (high - low) * uniform(); }
  /// About normal with deviation 1: the sum of four uniform numbers, whose variances are 1/12 each.
  float normal() {
    float sum = -2;  // one by one: compilers differ in which call of a sum comes first
    for (int i = 0; i < 4; ++i) sum += uniform();
    return sum * 1.7320508f;
  }
};

// --- Drawing ---------------------------------------------------------------------------------------------------------

struct Point {
  float x, y;
};

/// Moves points as if the paper were rubber: a field of random displacements, smoothed (Simard, Steinkraus, Platt,
/// "Best practices for convolutional neural networks applied to visual document analysis", ICDAR 2003). The smoothing
/// is that of a cubic B-spline, whose weights are close to a Gaussian of 0.58 knot spacings, here 4 pixels as in the
/// paper; the pen's path is moved instead of the pixels.
class Rubber {
 public:
  Rubber(Random& random, float strength) {
    for (Point& knot : knots_) knot = {strength * random.symmetric(), strength * random.symmetric()};
  }

  Point moved(Point p) const {
    std::array<float, 4> wx, wy;
    const size_t x = weights(p.x, wx), y = weights(p.y, wy);
    Point sum = p;
    for (size_t j = 0; j < 4; ++j) {
      for (size_t i = 0; i < 4; ++i) {
        const float w = wx[i] * wy[j];
        const Point& knot = knots_[(y + j) * kKnots + x + i];
        sum.x += w * knot.x;
        sum.y += w * knot.y;
      }
    }
    return sum;
  }

 private:
  static constexpr size_t kKnots = 7;
  static constexpr float kSpacing = 7;  ///< four intervals of it are the picture's side

  /// The four cubic B-splines that reach a place, and which is the first.
  static size_t weights(float place, std::array<float, 4>& w) {
    const float at = std::clamp(place / kSpacing, 0.0f, 3.999f);
    const auto cell = static_cast<size_t>(at);
    const float t = at - static_cast<float>(cell), u = 1 - t;
    w = {u * u * u / 6, (3 * t * t * t - 6 * t * t + 4) / 6, (3 * u * u * u - 6 * u * u + 4) / 6, t * t * t / 6};
    return cell;
  }

  std::array<Point, kKnots * kKnots> knots_;
};

/// For each pixel how far it is from the pen's path, squared; far away it stays what it was.
class Paper {
 public:
  explicit Paper(float reach) : reach_(reach) { far_.fill(reach * reach); }

  void line(Point a, Point b) {
    const float dx = b.x - a.x, dy = b.y - a.y;
    const float length2 = dx * dx + dy * dy;
    const float inverse = length2 > 0 ? 1 / length2 : 0;
    const size_t left = first(std::min(a.x, b.x)), right = last(std::max(a.x, b.x));
    const size_t top = first(std::min(a.y, b.y)), bottom = last(std::max(a.y, b.y));
    for (size_t y = top; y < bottom; ++y) {
      const float py = static_cast<float>(y) + 0.5f - a.y;
      for (size_t x = left; x < right; ++x) {
        const float px = static_cast<float>(x) + 0.5f - a.x;
        const float t = std::clamp((px * dx + py * dy) * inverse, 0.0f, 1.0f);
        const float ex = px - t * dx, ey = py - t * dy;
        far_[y * kSide + x] = std::min(far_[y * kSide + x], ex * ex + ey * ey);
      }
    }
  }

  float distance(size_t pixel) const { return std::sqrt(far_[pixel]); }

 private:
  size_t first(float low) const {
    return static_cast<size_t>(std::clamp(low - reach_, 0.0f, static_cast<float>(kSide)));
  }
  size_t last(float high) const {
    return static_cast<size_t>(std::clamp(high + reach_ + 1, 0.0f, static_cast<float>(kSide)));
  }

  float reach_;
  std::array<float, kPixels> far_;
};

/// The curve of Catmull and Rom (1974) from b to c, a and d being the marks around them.
Point between(Point a, Point b, Point c, Point d, float t) {
  const auto blend = [t](float p, float q, float r, float s) {
    return 0.5f * (2 * q + t * ((r - p) + t * ((2 * p - 5 * q + 4 * r - s) + t * (3 * q - p - 3 * r + s))));
  };
  return {blend(a.x, b.x, c.x, d.x), blend(a.y, b.y, c.y, d.y)};
}

/// From marks to places on the paper: rotation, slant, size and shift.
struct Affine {
  float xx, xy, yx, yy, x, y;
  Point operator()(Point p) const { return {xx * p.x + xy * p.y + x, yx * p.x + yy * p.y + y}; }
};

Affine random_affine(Random& random) {
  const float tangent = kTurn * random.symmetric();
  const float cosine = 1 / std::sqrt(1 + tangent * tangent), sine = tangent * cosine;
  const float shear = kShear * random.symmetric();
  const float tall = kHeight * (1 + kStretch * random.symmetric());
  const float wide = tall * (1 + kStretch * random.symmetric());
  // Rotation times shear times scale.
  return {.xx = cosine * wide,
          .xy = (cosine * -shear - sine) * tall,
          .yx = sine * wide,
          .yy = (sine * -shear + cosine) * tall,
          .x = kSide * 0.5f + kShift * random.symmetric(),
          .y = kSide * 0.5f + kShift * random.symmetric()};
}

/// Draws one stroke, whose marks end where the pen is lifted.
void draw(std::span<const Mark> marks, Random& random, const Affine& affine, const Rubber& rubber, Paper& paper) {
  constexpr size_t kMostMarks = 16;
  std::array<Point, kMostMarks> points;
  const size_t count = std::min(marks.size(), kMostMarks);
  for (size_t i = 0; i < count; ++i) {
    if (i && marks[i].x == marks[i - 1].x && marks[i].y == marks[i - 1].y) {
      points[i] = points[i - 1];
      continue;
    }
    points[i] = {static_cast<float>(marks[i].x) * 0.01f + kJitter * random.normal(),
                 static_cast<float>(marks[i].y) * 0.01f + kJitter * random.normal()};
  }
  Point last = rubber.moved(affine(points[0]));
  for (size_t i = 0; i + 1 < count; ++i) {
    if (marks[i].x == marks[i + 1].x && marks[i].y == marks[i + 1].y) continue;  // a corner
    const Point before = points[i ? i - 1 : 0], after = points[std::min(i + 2, count - 1)];
    for (int step = 1; step <= kSteps; ++step) {
      const float t = static_cast<float>(step) / kSteps;
      const Point next = rubber.moved(affine(between(before, points[i], points[i + 1], after, t)));
      paper.line(last, next);
      last = next;
    }
  }
}

/// The class of a sample: each ten samples have each class once, in an order of their own.
size_t class_of(uint64_t key, size_t index) {
  std::array<uint8_t, kClasses> order;
  for (size_t i = 0; i < kClasses; ++i) order[i] = static_cast<uint8_t>(i);
  Random random{mix64(key, index / kClasses)};
  for (size_t i = kClasses - 1; i > 0; --i) {
    std::swap(order[i], order[static_cast<size_t>(random.uniform() * static_cast<float>(i + 1))]);
  }
  return order[index % kClasses];
}

void draw_digit(uint64_t key, size_t index, size_t digit, std::span<uint8_t> pixels) {
  Random random{mix64(key, index)};
  const std::span<const Variant> variants = kDigits[digit];
  size_t which = 0;
  for (float pick = random.uniform(); which + 1 < variants.size() && pick >= variants[which].share; ++which) {
    pick -= variants[which].share;
  }
  const Affine affine = random_affine(random);
  const Rubber rubber(random, kElastic * random.uniform());
  const float radius = random.between(kThinnest, kThickest);
  const float soft = random.between(0.5f, 0.9f);  // the edge is this wide on either side

  Paper paper(radius + soft);
  const std::span<const Mark> marks = variants[which].marks;
  for (size_t start = 0; start < marks.size();) {
    size_t end = start;
    while (end < marks.size() && marks[end].x != kLift.x) ++end;
    draw(marks.subspan(start, end - start), random, affine, rubber, paper);
    start = end + 1;
  }

  const float ink = 255 * random.between(kFaintest, 1);
  const float noise = kNoise * random.uniform() * (1.0f / 255);
  for (size_t i = 0; i < kPixels; i += 4) {
    uint64_t bits = mix64(random.key, (uint64_t{1} << 32) + i);  // a stream beside the one above
    for (size_t j = i; j < i + 4; ++j, bits >>= 16) {
      const float cover = std::clamp((radius + soft - paper.distance(j)) / (2 * soft), 0.0f, 1.0f);
      // The sum of two uniform bytes less its mean: a triangular distribution.
      const float grain = static_cast<float>(bits & 255) + static_cast<float>((bits >> 8) & 255) - 255;
      pixels[j] = static_cast<uint8_t>(std::clamp(ink * cover + noise * grain + 0.5f, 0.0f, 255.0f));
    }
  }
}

/// Samples up to this many are kept once drawn (a byte each pixel: 51 MB); of more, each is drawn whenever it is read.
constexpr size_t kMostKept = 65536;
constexpr size_t kMostDigits = 1000000;

/// Digits that were drawn already. Shared by the copies of one dataset, which all live in one thread.
struct Drawn {
  std::vector<uint8_t> pixels;
  std::vector<bool> known;
};

std::vector<std::string> digit_names() { return {"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}; }

}  // namespace

Dataset digits(uint64_t seed, size_t n) {
  Dataset dataset;
  dataset.name = "digits:seed=" + std::to_string(seed) + ",n=" + std::to_string(n);
  if (n < 1 || n > kMostDigits) {
    fail(ErrorCode::BadData, dataset.name, "expected 1 to " + std::to_string(kMostDigits) + " digits");
  }
  dataset.shape = {kSide, kSide};
  dataset.layout = SampleLayout::Hw;
  dataset.dtype = DType::UInt8;
  dataset.size = n;
  dataset.test_from = n - n / 6;
  dataset.classes = kClasses;
  dataset.class_names = digit_names();
  const uint64_t order = Context(seed).random_key("digits.classes"), hand = Context(seed).random_key("digits.hand");
  dataset.labels.resize(n);
  for (size_t i = 0; i < n; ++i) dataset.labels[i] = static_cast<int32_t>(class_of(order, i));

  auto drawn = std::make_shared<Drawn>();
  dataset.read = [drawn, order, hand, n](std::span<const uint32_t> indices) {
    Tensor batch = Tensor::allocate(DType::UInt8, {indices.size(), kSide, kSide});
    const std::span<uint8_t> out = batch.write<uint8_t>();
    if (n <= kMostKept && drawn->pixels.empty()) {
      drawn->pixels.resize(n * kPixels);
      drawn->known.resize(n);
    }
    for (size_t i = 0; i < indices.size(); ++i) {
      const size_t index = indices[i];
      if (index >= n) {
        fail(ErrorCode::BadData, "sample " + std::to_string(index),
             "there is no such sample: the dataset has " + std::to_string(n));
      }
      const std::span<uint8_t> pixels = out.subspan(i * kPixels, kPixels);
      if (n > kMostKept) {
        draw_digit(hand, index, class_of(order, index), pixels);
        continue;
      }
      const std::span<uint8_t> kept = std::span(drawn->pixels).subspan(index * kPixels, kPixels);
      if (!drawn->known[index]) {
        draw_digit(hand, index, class_of(order, index), kept);
        drawn->known[index] = true;
      }
      std::copy(kept.begin(), kept.end(), pixels.begin());
    }
    return batch;
  };
  return dataset;
}

Dataset linear_data(uint64_t seed, size_t n, size_t inputs) {
  const std::string name =
      "linear:seed=" + std::to_string(seed) + ",n=" + std::to_string(n) + ",inputs=" + std::to_string(inputs);
  constexpr size_t kMostNumbers = size_t{1} << 27;  // half a gigabyte
  if (n < 1 || inputs < 1 || inputs > kMostNumbers || n > kMostNumbers / inputs) {
    fail(ErrorCode::BadData, name,
         "expected at least one point of at least one input, and at most 2^27 numbers in all");
  }
  constexpr float kNoiseDeviation = 0.1f;
  Random random{Context(seed).random_key("linear")};
  std::vector<float> weight(inputs);
  for (float& w : weight) w = random.normal();
  const float bias = random.normal();

  Tensor samples = Tensor::allocate(DType::Float32, {n, inputs}), targets = Tensor::allocate(DType::Float32, {n, 1});
  const std::span<float> x = samples.write<float>(), y = targets.write<float>();
  for (size_t i = 0; i < n; ++i) {
    float sum = bias;
    for (size_t j = 0; j < inputs; ++j) {
      x[i * inputs + j] = random.normal();
      sum += x[i * inputs + j] * weight[j];
    }
    y[i] = sum + kNoiseDeviation * random.normal();
  }
  Dataset dataset = in_memory(name, std::move(samples), SampleLayout::Features, {});
  dataset.targets = std::move(targets);
  check(dataset);
  return dataset;
}

}  // namespace nibble
