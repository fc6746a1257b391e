// Properties of the vocabulary that is read from a SentencePiece file: it is what the library itself says.
#include "text/sentencepiece_model.h"

#include <gtest/gtest.h>
#include <sentencepiece_processor.h>

#include <string>

#include "base/error.h"
#include "base/file.h"
#include "text/tokenizer_testing.h"

namespace photon {
namespace {

using testing_support::TemporaryFolder;
using testing_support::tokenizer_path;
using Type = SentencePieceVocabulary::Type;

TEST(SentencePieceModel, PiecesScoresAndTypesAreTheLibrarys) {
  sentencepiece::SentencePieceProcessor library;
  ASSERT_TRUE(library.Load(tokenizer_path().string()).ok());
  const auto vocabulary = read_sentencepiece_vocabulary(tokenizer_path());
  ASSERT_EQ(std::ssize(vocabulary.pieces), library.GetPieceSize());
  for (int id = 0; id < library.GetPieceSize(); ++id) {
    const auto& [text, score, type] = vocabulary.pieces[static_cast<std::size_t>(id)];
    EXPECT_EQ(text, library.IdToPiece(id));
    EXPECT_EQ(score, library.GetScore(id)) << id;
    EXPECT_EQ(type == Type::unknown, library.IsUnknown(id)) << id;
    EXPECT_EQ(type == Type::control, library.IsControl(id)) << id;
    EXPECT_EQ(type == Type::byte, library.IsByte(id)) << id;
    EXPECT_EQ(type == Type::unused, library.IsUnused(id)) << id;
  }
}

// A field of a message whose number is below 16.
std::string field(int number, const std::string& bytes) {
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())} + bytes;
}
std::string varint(int number, char value) {  // numbers of two bytes, too
  const std::string key =
      number < 16 ? std::string{static_cast<char>(number << 3)}
                  : std::string{static_cast<char>((number << 3 & 0x7F) | 0x80), static_cast<char>(number >> 4)};
  return key + value;
}

TEST(SentencePieceModel, AlgorithmAndTreatmentOfSpacesAreThoseOfTheFile) {
  const auto ours = read_sentencepiece_vocabulary(tokenizer_path());
  EXPECT_TRUE(ours.is_bpe);
  EXPECT_TRUE(ours.adds_space);
  EXPECT_FALSE(ours.removes_extra_spaces);
  EXPECT_FALSE(ours.spaces_end_pieces);

  const TemporaryFolder folder;
  const std::string piece = field(1, field(1, "a"));
  const auto read = [&](const std::string& bytes) {
    return read_sentencepiece_vocabulary(folder.write("model", bytes));
  };
  const auto bare = read(piece + field(2, "") + field(3, ""));  // the format's defaults
  EXPECT_FALSE(bare.is_bpe);
  EXPECT_TRUE(bare.adds_space);
  EXPECT_TRUE(bare.removes_extra_spaces);
  EXPECT_EQ(bare.pieces.at(0).type, Type::normal);
  EXPECT_EQ(bare.pieces.at(0).score, 0);
  const auto other = read(piece + field(2, varint(3, 2) + varint(24, 1)) + field(3, varint(3, 0) + varint(4, 0)));
  EXPECT_TRUE(other.is_bpe);
  EXPECT_FALSE(other.adds_space);
  EXPECT_FALSE(other.removes_extra_spaces);
  EXPECT_TRUE(other.spaces_end_pieces);
}

TEST(SentencePieceModel, DamagedPiecesAndSpecsAreNamed) {
  const TemporaryFolder folder;
  const auto message = [&](const std::string& bytes) -> std::string {
    try {
      read_sentencepiece_vocabulary(folder.write("model", bytes));
    } catch (const InputError& e) {
      return e.what();
    }
    return "read";
  };
  const std::string piece = field(1, field(1, "a")), rest = field(2, "") + field(3, "");
  EXPECT_EQ(message(piece + rest), "read");
  EXPECT_NE(message(piece +
                    field(1,
                          "\x0A\x05"
                          "a") +
                    rest)
                .find("model: piece 1 is damaged"),
            std::string::npos);
  EXPECT_NE(message(piece + field(1, varint(3, 9)) + rest).find("model: piece 1 is damaged"), std::string::npos);
  EXPECT_NE(message(piece + field(2, "\x18") + field(3, "")).find("trainer_spec is damaged"), std::string::npos);
  EXPECT_NE(message(piece + field(2, "") + field(3, "\x18")).find("damaged normalizer_spec"), std::string::npos);
  EXPECT_NE(message("\xFF").find("no SentencePiece model"), std::string::npos);
}

}  // namespace
}  // namespace photon
