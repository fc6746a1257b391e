// Walks the protobuf fields of a SentencePiece ModelProto without interpreting more than three of them.
#include "text/sentencepiece_model.h"

#include <fmt/format.h>

#include <cstdint>
#include <optional>
#include <set>

#include "base/error.h"

namespace photon {
namespace {

struct Field {
  std::uint64_t number = 0;
  std::string_view bytes;  // of a length-delimited field
};

std::optional<std::uint64_t> take_varint(std::string_view& rest) {
  std::uint64_t value = 0;
  for (int shift = 0; shift < 64 && !rest.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(rest.front());
    rest.remove_prefix(1);
    value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
    if ((byte & 0x80) == 0) return value;
  }
  return std::nullopt;
}

std::optional<std::string_view> take_bytes(std::string_view& rest, std::uint64_t n) {
  if (n > rest.size()) return std::nullopt;
  const auto bytes = rest.substr(0, n);
  rest.remove_prefix(n);
  return bytes;
}

// The next field of a message; nothing if the bytes are no protobuf.
std::optional<Field> take_field(std::string_view& rest) {
  const auto key = take_varint(rest);
  if (!key) return std::nullopt;
  Field field{*key >> 3, {}};
  switch (*key & 7) {
    case 0:
      return take_varint(rest) ? std::optional(field) : std::nullopt;
    case 1:
      return take_bytes(rest, 8) ? std::optional(field) : std::nullopt;
    case 5:
      return take_bytes(rest, 4) ? std::optional(field) : std::nullopt;
    case 2: {
      const auto length = take_varint(rest);
      const auto bytes = length ? take_bytes(rest, *length) : std::nullopt;
      if (!bytes) return std::nullopt;
      field.bytes = *bytes;
      return field;
    }
    default:
      return std::nullopt;
  }
}

}  // namespace

void check_sentencepiece_model(std::string_view file, const std::filesystem::path& path) {
  constexpr std::uint64_t pieces = 1, trainer_spec = 2, normalizer_spec = 3, denormalizer_spec = 5;
  constexpr std::uint64_t precompiled_charsmap = 2;  // in both normalizer messages
  const auto fail = [&](const char* what) { throw InputError(fmt::format("{}: {}", path.string(), what)); };
  std::set<std::uint64_t> found;
  while (!file.empty()) {
    const auto field = take_field(file);
    if (!field) return fail("no SentencePiece model, or cut short or damaged");
    found.insert(field->number);
    if (field->number != normalizer_spec && field->number != denormalizer_spec) continue;
    for (std::string_view rest = field->bytes; !rest.empty();) {
      const auto inner = take_field(rest);
      if (!inner) return fail("damaged normalizer_spec");
      if (inner->number == precompiled_charsmap && !inner->bytes.empty())
        return fail("normalizer_spec rewrites text; only models with identity normalisation are supported");
    }
  }
  if (!found.contains(pieces)) return fail("no SentencePiece model: it has no pieces");
  if (!found.contains(trainer_spec) || !found.contains(normalizer_spec))
    return fail("trainer_spec or normalizer_spec is missing; the file was cut short");
}

}  // namespace photon
