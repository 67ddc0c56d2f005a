// JSON that comes from outside: recipes and file headers.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "core/base/error.hpp"

namespace nibble {

/// Objects keep the order of their keys.
using Json = nlohmann::ordered_json;

/// Parses untrusted text. Throws Error{code, where} for text that is not JSON, that nests deeper than 16, or that names
/// a key twice in one object (the usual reading, in which the last one silently wins, hides mistakes).
Json parse_json(std::string_view text, ErrorCode code, std::string_view where);

}  // namespace nibble
