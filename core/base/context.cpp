#include "core/base/context.hpp"

#include "core/base/error.hpp"

namespace nibble {

Context::Context(uint64_t seed, Listener listener) : seed_(seed), listener_(std::move(listener)) {}

void Context::tick(const Progress& progress) const {
  if (listener_ && !listener_(progress)) fail(ErrorCode::Cancelled, std::string(progress.item), "stopped on request");
}

uint64_t Context::random_key(std::string_view use) const {
  uint64_t key = mix64(seed_, use.size());
  for (char c : use) key = mix64(key, static_cast<unsigned char>(c));
  return key;
}

}  // namespace nibble
