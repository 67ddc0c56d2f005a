#include "core/base/json.hpp"

#include <set>
#include <string>
#include <vector>

namespace nibble {

namespace {

constexpr int kDeepest = 16;

// Counts brackets outside of strings before the parser, which recurses when it frees a value, is asked to follow them.
bool nests_too_deep(std::string_view text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
    } else if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kDeepest) return true;
    } else if (c == '}' || c == ']') {
      --depth;
    }
  }
  return false;
}

}  // namespace

Json parse_json(std::string_view text, ErrorCode code, std::string_view where) {
  if (nests_too_deep(text)) fail(code, std::string(where), "nested deeper than " + std::to_string(kDeepest));
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
      fail(code, std::string(where), "names \"" + parsed.get<std::string>() + "\" twice");
    }
    return true;
  };
  try {
    return Json::parse(text, watch);
  } catch (const nlohmann::json::parse_error& error) {
    fail(code, std::string(where), "not valid JSON at byte " + std::to_string(error.byte));
  } catch (const nlohmann::json::exception& error) {
    fail(code, std::string(where), std::string("not valid JSON: ") + error.what());
  }
}

}  // namespace nibble
