// What an algorithm may ask of its caller: report progress, learn that it should stop, draw random numbers.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace nibble {

/// Where a long call stands. `fraction` is of the whole call, 0 to 1.
struct Progress {
  std::string_view phase;  ///< "prune", "quantize", "report"
  std::string_view item;   ///< the weight being worked on
  double fraction = 0;
};

/// 64 well-mixed bits of a key and a counter (the finaliser of SplitMix64: Steele, Lea, Flood, "Fast splittable
/// pseudorandom number generators", OOPSLA 2014). Counter based: element i of a stream needs no element before it.
constexpr uint64_t mix64(uint64_t key, uint64_t counter) {
  uint64_t z = key + (counter + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/// Uniform in [0, 1) in steps of 2^-24, exact in float.
constexpr float uniform24(uint64_t key, uint64_t counter) {
  return static_cast<float>(mix64(key, counter) >> 40) * 0x1p-24f;
}

class Context {
 public:
  using Listener = std::function<bool(const Progress&)>;

  explicit Context(uint64_t seed = 0, Listener listener = {});

  /// Called about once per weight. Throws Error{Cancelled} when the listener returns false.
  void tick(const Progress& progress) const;

  /// The key of the random stream for one use, from the seed and the use's name alone: excluding
  /// a weight does not shift the numbers of the others.
  uint64_t random_key(std::string_view use) const;

 private:
  uint64_t seed_;
  Listener listener_;
};

}  // namespace nibble
