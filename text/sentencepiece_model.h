// SentencePiece model files as such: a check before the library reads one, and the vocabulary for other formats.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace photon {

/// Refuses what libsentencepiece would take and then misread: files cut between two fields (its defaults stand in for
/// what is missing), and models that rewrite the text, whose normalisation tables the library follows unchecked.
/// @throws InputError naming the file and what it lacks.
void check_sentencepiece_model(std::string_view file, const std::filesystem::path& path);

/// The pieces of a model by id, and how it treats spaces.
struct SentencePieceVocabulary {
  enum class Type : std::int32_t { normal = 1, unknown, control, user_defined, unused, byte };  // as in the file
  struct Piece {
    std::string text;  // "▁" for a space
    float score = 0;   // BPE: the higher, the earlier it is merged
    Type type = Type::normal;
  };
  std::vector<Piece> pieces;
  bool is_bpe = false;
  bool adds_space = true;  // a text is encoded as if a space preceded it
  bool removes_extra_spaces = true;
  bool spaces_end_pieces = false;  // "a▁" instead of "▁a"
};
/// @throws InputError naming the file if it is no model that check_sentencepiece_model() passes.
SentencePieceVocabulary read_sentencepiece_vocabulary(const std::filesystem::path& path);

}  // namespace photon
