// Properties of text/tokenizer.h, on a tokenizer trained here.
#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "text/tokenizer_testing.h"
#include "text/utf8.h"

namespace photon {
namespace {

using namespace std::string_literals;
using testing_support::repaired, testing_support::some_text;
using testing_support::TemporaryFolder;
using testing_support::tokenizer, testing_support::tokenizer_path;

std::string message_of(const auto& action) {
  try {
    action();
  } catch (const InputError& error) {
    return error.what();
  }
  return "no InputError";
}

TEST(Tokenizer, HasLlamasSpecialTokens) {
  EXPECT_EQ(tokenizer().vocab_size(), 400);
  EXPECT_EQ(tokenizer().bos_token_id(), 1);
  EXPECT_EQ(tokenizer().eos_token_id(), 2);
  EXPECT_EQ(tokenizer().piece(1), "");
  EXPECT_EQ(tokenizer().piece(2), "");
  EXPECT_EQ(tokenizer().hash(), sha256_file(tokenizer_path()));
}

TEST(Tokenizer, EveryBytePieceIsItsByte) {
  for (int byte = 0; byte < 256; ++byte)
    EXPECT_EQ(tokenizer().piece(3 + byte), std::string(1, static_cast<char>(byte)));
}

TEST(Tokenizer, DecodeReturnsWhatWasEncoded) {
  for (const std::string& text : {""s, " "s, "  "s, "a"s, " a"s, "a "s, "  two  spaces  "s, "\n"s, "\n\n"s, " \n "s,
                                  "line\n  next\n"s, "\ttab\r\n"s, "NUL \0 inside\0"s, "kalo mithe\xC3\xA9"s,
                                  "€ 🙂 漢字"s, "12345 3.14"s, "<0x41> <s> </s> <unk>"s})
    EXPECT_EQ(tokenizer().decode(tokenizer().encode(text)), text) << text;
}

TEST(Tokenizer, RandomCharactersRoundTripAndRandomBytesAreRepairedFirst) {
  Random random(3);
  for (int round = 0; round < 500; ++round) {
    std::string bytes;
    for (auto n = random.below(40); n > 0; --n) {
      static const std::string alphabet[] = {"a", " ", "\n", "the", "é", "€", "🙂", "\0"s, "7", "ka"};
      bytes += round % 2 == 0 ? alphabet[random.below(10)] : std::string(1, static_cast<char>(random.below(256)));
    }
    ASSERT_EQ(tokenizer().decode(tokenizer().encode(bytes)), repaired(bytes));
  }
}

TEST(Tokenizer, PiecesConcatenateToTheTextAfterOneSpace) {
  const std::string text = "kalo mi\nren 🙂 7";
  std::string pieces;
  for (const auto token : tokenizer().encode(text)) pieces += tokenizer().piece(token);
  EXPECT_EQ(pieces, " " + text);
}

TEST(Tokenizer, SpecialTokensAddNothingToTheText) {
  auto tokens = tokenizer().encode("ka lo");
  tokens.insert(tokens.begin(), 1);
  tokens.push_back(2);
  EXPECT_EQ(tokenizer().decode(tokens), "ka lo");
}

TEST(Tokenizer, DecodeGivesWholeCharactersForBytesThatAreNone) {
  const std::vector<std::int32_t> half_euro = {3 + 0xE2, 3 + 0x82};
  EXPECT_EQ(tokenizer().decode(half_euro), "\xEF\xBF\xBD");
}

TEST(Tokenizer, IdsOutsideTheVocabularyAreNamed) {
  for (const std::int32_t id : {-1, 400, INT32_MAX, INT32_MIN}) {
    const std::vector<std::int32_t> tokens = {5, id};
    EXPECT_NE(message_of([&] { tokenizer().decode(tokens); }).find(std::to_string(id)), std::string::npos);
    EXPECT_THROW(tokenizer().piece(id), InputError);
  }
}

TEST(Tokenizer, ALongTextIsEncodedAsInOnePieceAlthoughItIsCut) {
  // Lines joined by "\n" encode as the lines do, each after the first without the space put before it.
  const std::string text = some_text(5, 5000);  // three of the segments that encode() works in
  ASSERT_GT(text.size(), 150'000u);
  const auto prefix = tokenizer().encode("\n");
  ASSERT_EQ(prefix.back(), 3 + '\n');
  std::vector<std::int32_t> expected;
  for (std::size_t begin = 0; begin < text.size();) {
    const auto end = std::min(text.find('\n', begin + 1), text.size());
    const auto line = tokenizer().encode(std::string_view(text).substr(begin, end - begin));
    const auto skip = begin == 0 ? 0 : static_cast<std::ptrdiff_t>(prefix.size() - 1);
    expected.insert(expected.end(), line.begin() + skip, line.end());
    begin = end;
  }
  EXPECT_EQ(tokenizer().encode(text), expected);
  EXPECT_EQ(tokenizer().decode(expected), text);
}

TEST(Tokenizer, ALongLineIsEncodedAsItsWords) {
  std::string text = some_text(6, 5000);
  std::ranges::replace(text, '\n', ' ');
  text.pop_back();
  ASSERT_GT(text.size(), 150'000u);
  std::vector<std::int32_t> expected;
  for (std::size_t begin = 0; begin < text.size();) {
    const auto end = std::min(text.find(' ', begin), text.size());
    const auto word = tokenizer().encode(std::string_view(text).substr(begin, end - begin));
    expected.insert(expected.end(), word.begin(), word.end());
    begin = end + 1;
  }
  EXPECT_EQ(tokenizer().encode(text), expected);
  EXPECT_EQ(tokenizer().decode(expected), text);
}

TEST(Tokenizer, DecodeReturnsLongTextsWithAnySpaces) {
  Random random(7);
  for (int i = 0; i < 3; ++i) {
    std::string text;
    while (text.size() < 140'000)
      text += std::vector{"a", " ", "  ", "\n", "é", "the"}[static_cast<std::size_t>(random.below(6))];
    EXPECT_EQ(tokenizer().decode(tokenizer().encode(text)), text);
  }
}

TEST(Tokenizer, DamagedModelFilesAreRefusedByName) {
  const TemporaryFolder folder;
  const std::string good = read_text(tokenizer_path());
  const auto attempt = [&](const std::string& bytes) {
    const auto path = folder.write("damaged.model", bytes);
    return message_of([&] { Tokenizer{path}; });
  };
  Random random(4);
  const auto essential = static_cast<std::int64_t>(good.size()) - 2;  // then comes an empty denormalizer_spec
  for (int i = 0; i < 250; ++i) {
    const auto length = static_cast<std::size_t>(i < 50 ? essential - 1 - i : random.below(essential));
    EXPECT_NE(attempt(good.substr(0, length)).find("damaged.model"), std::string::npos) << "cut to " << length;
  }
  for (const std::string& bytes : {""s, "\n"s, "not a model"s, std::string(1000, '\0'), std::string(1000, '\xFF')})
    EXPECT_NE(attempt(bytes).find("damaged.model"), std::string::npos);
  for (int i = 0; i < 300; ++i) {  // a flipped bit may leave a model, which must then work
    std::string flipped = good;
    flipped[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(good.size())))] ^=
        static_cast<char>(1 << random.below(8));
    const auto path = folder.write("flipped.model", flipped);
    try {
      const Tokenizer model(path);
      model.decode(model.encode("ka lo\n  🙂\0\xFF"s));
    } catch (const InputError&) {
    }
  }
  EXPECT_THROW(Tokenizer{folder / "missing"}, InputError);
  EXPECT_THROW(Tokenizer{folder.path()}, InputError);
}

TEST(TokenizerTraining, IsAFunctionOfTextOptionsAndSeed) {
  const TemporaryFolder folder;
  const auto text = folder.write("text", some_text(2, 400));
  const auto trained = [&](std::uint64_t seed) {
    train_tokenizer({.inputs = {text}, .output = folder / "m", .vocab_size = 340, .max_sentences = 40, .seed = seed});
    return read_text(folder / "m");
  };
  const std::string first = trained(1);
  EXPECT_EQ(trained(1), first);
  EXPECT_NE(trained(2), first);
}

TEST(TokenizerTraining, DocumentEndsAreNotTextAndLongLinesAre) {
  const TemporaryFolder folder;
  std::string line;
  for (int i = 0; i < 3000; ++i) line += "zyx ";  // a line longer than SentencePiece takes
  std::string text = line + "\n";
  for (int i = 0; i < 50; ++i) text += some_text(7, 2) + "<|endoftext|>\n";
  train_tokenizer({.inputs = {folder.write("text", text)}, .output = folder / "m", .vocab_size = 320});
  const Tokenizer model(folder / "m");
  std::set<std::string> pieces;
  for (std::int32_t id = 0; id < 320; ++id) pieces.insert(model.piece(id));
  EXPECT_TRUE(pieces.contains(" zyx"));
  EXPECT_TRUE(std::none_of(pieces.begin(), pieces.end(), [](const std::string& piece) {
    return piece.find('|') != std::string::npos && piece != "|";
  }));
}

TEST(TokenizerTraining, WhatCannotBeTrainedIsOneClearError) {
  const TemporaryFolder folder;
  const auto small = folder.write("small", "hello world\n"), empty = folder.write("empty", "\n<|endoftext|>\n\n");
  const auto bad = folder.write("bad",
                                "good\nb\xFF"
                                "d\n"),
             inside = folder.write("inside", "one\nx <|endoftext|>\n");
  const auto attempt = [&](const std::filesystem::path& text, std::int64_t vocab_size) {
    return message_of([&] { train_tokenizer({.inputs = {text}, .output = folder / "m", .vocab_size = vocab_size}); });
  };
  const auto holds = [](const std::string& message, const std::string& part) {
    return message.find(part) != std::string::npos;
  };
  EXPECT_PRED2(holds, attempt(small, 4096), "too high (4096)");
  EXPECT_PRED2(holds, attempt(small, 260), "smaller than required");
  EXPECT_PRED2(holds, attempt(small, 100), "vocabulary size 100");
  EXPECT_PRED2(holds, attempt(small, std::int64_t{1} << 40), "vocabulary size");
  EXPECT_PRED2(holds, attempt(empty, 300), "no text");
  EXPECT_PRED2(holds, attempt(bad, 300), "bad: line 2 is not valid UTF-8");
  EXPECT_PRED2(holds, attempt(inside, 300), "inside: line 2 has <|endoftext|>");
  EXPECT_FALSE(std::filesystem::exists(folder / "m"));
}

}  // namespace
}  // namespace photon
