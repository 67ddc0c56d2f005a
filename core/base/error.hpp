// The one exception type of the project, and the words for what can go wrong.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace nibble {

enum class ErrorCode {
  BadFile,      ///< the bytes are not what their format says
  Unsupported,  ///< valid, but not something Nibble can do
  BadRecipe,    ///< a recipe that cannot be run
  BadData,      ///< values or shapes that do not fit together
  OutOfMemory,  ///< the need was estimated, or an allocation failed
  Cancelled,    ///< the caller asked to stop
};

/// "bad-file", "unsupported", ...: the spelling used in JSON and TypeScript.
std::string_view to_string(ErrorCode code);

/// Thrown for everything the user's input or machine causes. `where` is a path into the input: "steps[2].bits",
/// "conv1.weight", "byte 1042". The message says what was expected, what was found, and a way out.
class Error : public std::runtime_error {
 public:
  Error(ErrorCode error_code, std::string error_where, std::string error_message);
  ErrorCode code;
  std::string where;
  std::string message;
};

[[noreturn]] void fail(ErrorCode code, std::string where, std::string message);

/// The candidate nearest to `word` by edit distance, or "" where none is within half of its length.
std::string nearest_word(std::string_view word, std::initializer_list<std::string_view> candidates);

}  // namespace nibble
