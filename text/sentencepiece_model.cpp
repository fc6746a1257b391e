// Walks the protobuf fields of a SentencePiece ModelProto without interpreting more than it must.
#include "text/sentencepiece_model.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/file.h"

namespace photon {
namespace {

constexpr std::uint64_t pieces_field = 1, trainer_spec = 2, normalizer_spec = 3, denormalizer_spec = 5;

struct Field {
  std::uint64_t number = 0;
  std::uint64_t value = 0;  // of a varint
  std::string_view bytes;   // of a length-delimited field or a fixed number
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
  Field field{*key >> 3, 0, {}};
  const auto with_bytes = [&](std::optional<std::uint64_t> n) {
    const auto bytes = n ? take_bytes(rest, *n) : std::nullopt;
    field.bytes = bytes.value_or(std::string_view());
    return bytes ? std::optional(field) : std::nullopt;
  };
  switch (*key & 7) {
    case 0: {
      const auto value = take_varint(rest);
      field.value = value.value_or(0);
      return value ? std::optional(field) : std::nullopt;
    }
    case 1:
      return with_bytes(8);
    case 2:
      return with_bytes(take_varint(rest));
    case 5:
      return with_bytes(4);
    default:
      return std::nullopt;
  }
}

// Calls visit(field) for each field of a message; false if its bytes are no protobuf.
template <class Visit>
bool for_each_field(std::string_view message, Visit visit) {
  while (!message.empty()) {
    const auto field = take_field(message);
    if (!field) return false;
    visit(*field);
  }
  return true;
}

std::optional<SentencePieceVocabulary::Piece> parse_piece(std::string_view message) {
  SentencePieceVocabulary::Piece piece;
  const bool whole = for_each_field(message, [&](const Field& field) {
    if (field.number == 1) piece.text = field.bytes;
    if (field.number == 2 && field.bytes.size() == sizeof piece.score)
      std::memcpy(&piece.score, field.bytes.data(), sizeof piece.score);
    if (field.number == 3) piece.type = SentencePieceVocabulary::Type{static_cast<std::int32_t>(field.value)};
  });
  const bool known =
      piece.type >= SentencePieceVocabulary::Type::normal && piece.type <= SentencePieceVocabulary::Type::byte;
  return whole && known ? std::optional(std::move(piece)) : std::nullopt;
}

}  // namespace

void check_sentencepiece_model(std::string_view file, const std::filesystem::path& path) {
  constexpr std::uint64_t precompiled_charsmap = 2;  // in both normalizer messages
  const auto fail = [&](const char* what) { throw InputError(fmt::format("{}: {}", path.string(), what)); };
  std::set<std::uint64_t> found;
  const bool whole = for_each_field(file, [&](const Field& field) {
    found.insert(field.number);
    if (field.number != normalizer_spec && field.number != denormalizer_spec) return;
    bool rewrites = false;
    if (!for_each_field(field.bytes, [&](const Field& inner) {
          rewrites = rewrites || (inner.number == precompiled_charsmap && !inner.bytes.empty());
        }))
      fail("damaged normalizer_spec");
    if (rewrites) fail("normalizer_spec rewrites text; only models with identity normalisation are supported");
  });
  if (!whole) fail("no SentencePiece model, or cut short or damaged");
  if (!found.contains(pieces_field)) fail("no SentencePiece model: it has no pieces");
  if (!found.contains(trainer_spec) || !found.contains(normalizer_spec))
    fail("trainer_spec or normalizer_spec is missing; the file was cut short");
}

SentencePieceVocabulary read_sentencepiece_vocabulary(const std::filesystem::path& path) {
  constexpr std::uint64_t bpe = 2;
  const std::string file = read_text(path);
  check_sentencepiece_model(file, path);
  SentencePieceVocabulary vocabulary;
  const auto damaged = [&](const std::string& what) {
    throw InputError(fmt::format("{}: {} is damaged", path.string(), what));
  };
  for_each_field(file, [&](const Field& field) {
    if (field.number == pieces_field) {
      auto piece = parse_piece(field.bytes);
      if (!piece) damaged(fmt::format("piece {}", vocabulary.pieces.size()));
      vocabulary.pieces.push_back(*std::move(piece));
    } else if (field.number == trainer_spec) {
      if (!for_each_field(field.bytes, [&](const Field& inner) {
            if (inner.number == 3) vocabulary.is_bpe = inner.value == bpe;
            if (inner.number == 24) vocabulary.spaces_end_pieces = inner.value != 0;
          }))
        damaged("trainer_spec");
    } else if (field.number == normalizer_spec) {
      for_each_field(field.bytes, [&](const Field& inner) {  // whole, or the check had refused it
        if (inner.number == 3) vocabulary.adds_space = inner.value != 0;
        if (inner.number == 4) vocabulary.removes_extra_spaces = inner.value != 0;
      });
    }
  });
  return vocabulary;
}

}  // namespace photon
