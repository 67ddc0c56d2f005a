// Reading an object of the user's JSON: every key by one line that knows its type, range and default, every mistake
// told with its place.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <string_view>
#include <utility>

#include "core/base/json.hpp"

namespace nibble {

template <class Enum>
using Words = std::initializer_list<std::pair<std::string_view, Enum>>;

template <class Enum>
std::string_view word_of(const Words<Enum>& words, Enum value) {
  return std::find_if(words.begin(), words.end(), [&](const auto& word) { return word.second == value; })->first;
}

inline Json number_json(double value) {
  return value == std::floor(value) && std::abs(value) < 1e15 ? Json(static_cast<int64_t>(value)) : Json(value);
}

inline std::string number_text(double value) {
  const Json json =
      value == std::floor(value) && std::abs(value) <= 0x1p53 ? Json(static_cast<int64_t>(value)) : Json(value);
  return json.dump();
}

/// What a value looks like in a message: short.
inline std::string shown(const Json& value) {
  const std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  return text.size() <= 40 ? text : text.substr(0, 40) + "...";
}

/// One object, where it stands, and what kind of error its mistakes are.
class Object {
 public:
  Object(const Json& json, std::string where, std::initializer_list<std::string_view> keys,
         ErrorCode code = ErrorCode::BadRecipe)
      : json_(json), where_(std::move(where)), code_(code) {
    if (!json.is_object())
      bad(where_.empty() ? code_ == ErrorCode::BadRecipe ? "recipe" : "options" : where_,
          "expected an object, got " + shown(json));
    for (const auto& [key, value] : json.items()) {
      if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
      const std::string nearest = nearest_word(key, keys);
      std::string all;
      for (const std::string_view valid : keys) all += (all.empty() ? "" : ", ") + std::string(valid);
      bad(at(key),
          "unknown key" + (nearest.empty() ? "" : ", did you mean \"" + nearest + "\"?") + " (known: " + all + ")");
    }
  }

  [[noreturn]] void bad(const std::string& where, const std::string& message) const { fail(code_, where, message); }

  std::string at(std::string_view key) const {
    return where_.empty() ? std::string(key) : where_ + "." + std::string(key);
  }
  bool has(std::string_view key) const { return json_.contains(key); }
  const Json& operator[](std::string_view key) const { return json_.at(std::string(key)); }

  double number(std::string_view key, double lowest, double highest, double otherwise) const {
    if (!has(key)) return otherwise;
    const Json& value = (*this)[key];
    if (!value.is_number() || !(value.get<double>() >= lowest && value.get<double>() <= highest)) {
      bad(at(key),
          "expected a number from " + number_text(lowest) + " to " + number_text(highest) + ", got " + shown(value));
    }
    return value.get<double>();
  }

  int64_t integer(std::string_view key, int64_t lowest, int64_t highest, int64_t otherwise) const {
    if (!has(key)) return otherwise;
    const double value = number(key, static_cast<double>(lowest), static_cast<double>(highest), 0);
    if (value != std::floor(value)) bad(at(key), "expected a whole number, got " + shown((*this)[key]));
    return static_cast<int64_t>(value);
  }

  bool boolean(std::string_view key, bool otherwise) const {
    if (!has(key)) return otherwise;
    if (!(*this)[key].is_boolean()) bad(at(key), "expected true or false, got " + shown((*this)[key]));
    return (*this)[key].get<bool>();
  }

  template <class Enum>
  Enum choice(std::string_view key, const Words<Enum>& words, Enum otherwise) const {
    if (!has(key)) return otherwise;
    const Json& value = (*this)[key];
    std::string all;
    for (const auto& [word, meaning] : words) {
      if (value.is_string() && value.get<std::string>() == word) return meaning;
      all += (all.empty() ? "\"" : ", \"") + std::string(word) + "\"";
    }
    bad(at(key), "expected one of " + all + ", got " + shown(value));
  }

 private:
  const Json& json_;
  std::string where_;
  ErrorCode code_;
};

}  // namespace nibble
