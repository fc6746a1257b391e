// SentencePiece tokenizers: train, encode, decode.  Llama tokenizer.model files work as they are.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace photon {

/// Immutable after construction; encode and decode may be called from several threads.
class Tokenizer {
 public:
  /// @throws InputError if the file is missing or no SentencePiece model.
  explicit Tokenizer(const std::filesystem::path& path);
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;
  ~Tokenizer();

  std::int64_t vocab_size() const;
  std::int64_t bos_token_id() const;                              // -1 if the model has none
  std::int64_t eos_token_id() const;                              // -1 if the model has none
  const std::string& hash() const;                                // SHA-256 of the model file
  std::vector<std::int32_t> encode(std::string_view text) const;  // no bos or eos added
  /// @throws InputError naming the first id outside the vocabulary.
  std::string decode(std::span<const std::int32_t> tokens) const;
  /// Bytes of one token as it appears in running text: "▁" is a space, byte tokens are their byte, control tokens "".
  std::string piece(std::int32_t token) const;
  /// The same at the beginning of a text: without the space that encode() puts there.
  std::string first_piece(std::int32_t token) const;
  /// A token as the model file writes it: "▁the", "<0x0A>", "</s>".
  std::string name(std::int32_t token) const;

 private:
  void check(std::int32_t token) const;  // is in the vocabulary
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct TokenizerTraining {
  std::vector<std::filesystem::path>
      inputs;                    // text files; documents end with a line "<|endoftext|>", which is not text
  std::filesystem::path output;  // tokenizer.model, written atomically
  std::int64_t vocab_size = 4096;
  std::int64_t max_sentences = 1'000'000;
  std::uint64_t seed = 0;
};
/// Trains a byte-fallback BPE like Llama's: unk 0, bos 1, eos 2, identity normalisation, digits split.
void train_tokenizer(const TokenizerTraining& options);

}  // namespace photon
