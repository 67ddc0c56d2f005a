#include "core/base/error.hpp"

#include <algorithm>
#include <vector>

namespace nibble {

std::string_view to_string(ErrorCode code) {
  switch (code) {
    case ErrorCode::BadFile: return "bad-file";
    case ErrorCode::Unsupported: return "unsupported";
    case ErrorCode::BadRecipe: return "bad-recipe";
    case ErrorCode::BadData: return "bad-data";
    case ErrorCode::OutOfMemory: return "out-of-memory";
    case ErrorCode::Cancelled: return "cancelled";
  }
  return "unknown";
}

Error::Error(ErrorCode error_code, std::string error_where, std::string error_message)
    : std::runtime_error(error_where.empty() ? error_message : error_where + ": " + error_message),
      code(error_code),
      where(std::move(error_where)),
      message(std::move(error_message)) {}

void fail(ErrorCode code, std::string where, std::string message) {
  throw Error(code, std::move(where), std::move(message));
}

namespace {

// Levenshtein distance with one row of the table.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t substituted = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({substituted, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

std::string nearest_word(std::string_view word, std::initializer_list<std::string_view> candidates) {
  std::string_view best;
  size_t best_distance = word.size() / 2 + 1;
  if (word.size() > 64) return "";
  for (std::string_view candidate : candidates) {
    const size_t distance = edit_distance(word, candidate);
    if (distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return std::string(best);
}

}  // namespace nibble
