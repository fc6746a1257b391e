// Tokenizer over libsentencepiece.
#include "text/tokenizer.h"

#include <fmt/format.h>
#include <sentencepiece_processor.h>

#include <algorithm>
#include <charconv>
#include <utility>

#include "base/error.h"
#include "base/file.h"
#include "text/sentencepiece_model.h"
#include "text/text_stream.h"
#include "text/utf8.h"

namespace photon {
namespace {

constexpr std::string_view meta_space = "\xE2\x96\x81";  // "▁", SentencePiece's space
constexpr std::size_t segment_bytes = 1 << 16;

std::string with_spaces(std::string_view piece) {
  std::string text;
  for (auto at = piece.find(meta_space); at != std::string_view::npos; at = piece.find(meta_space)) {
    text.append(piece.substr(0, at)).append(" ");
    piece.remove_prefix(at + meta_space.size());
  }
  return text.append(piece);
}

// The byte of a piece "<0xNN>".
std::string byte_of(const std::string& piece, const std::filesystem::path& path) {
  unsigned value = 256;
  if (piece.size() == 6 && piece.starts_with("<0x") && piece.ends_with(">"))
    std::from_chars(piece.data() + 3, piece.data() + 5, value, 16);
  if (value > 255) throw InputError(fmt::format("{}: byte piece '{}' is not <0x00> to <0xFF>", path.string(), piece));
  return std::string(1, static_cast<char>(value));
}

}  // namespace

struct Tokenizer::Impl {
  sentencepiece::SentencePieceProcessor model;
  std::string hash;
  std::vector<std::string> pieces;         // bytes in running text, by id
  std::vector<char> begins_with_space;     // by id
  bool adds_space = false;                 // encode() puts a space before the text, decode() drops it again
  bool splits_at_newline = false;          // encode(a + "\nb") = encode(a) ++ encode("\nb") without its first tokens:
  std::vector<std::int32_t> dummy_prefix;  // these
  bool splits_at_space = false;  // encode(a + " b") = encode(a) ++ encode("b"), with a space in front as it has to be

  std::vector<std::int32_t> encode(std::string_view text) const {
    std::vector<int> ids;
    if (const auto status = model.Encode(text, &ids); !status.ok())
      throw InputError(fmt::format("the tokenizer cannot encode this text: {}", status.ToString()));
    return ids;
  }

  std::string text_of(std::span<const std::int32_t> ids) const {
    std::string text;
    for (const auto id : ids) text += pieces[static_cast<std::size_t>(id)];
    return text;
  }

  // What the model does with spaces and newlines is asked of the model itself.  A text may be cut before newlines,
  // which bounds the memory of encoding a book, if spaces are kept, no piece holds a newline beside other bytes, and
  // "\n" is one token after the prefix.
  void probe() {
    const auto letter = encode("a"), newline = encode("\n");
    adds_space = !letter.empty() && begins_with_space[static_cast<std::size_t>(letter.front())] != 0;
    if (newline.empty() || text_of({&newline.back(), 1}) != "\n") return;
    dummy_prefix.assign(newline.begin(), newline.end() - 1);
    const std::string prefix = text_of(dummy_prefix);
    splits_at_newline = prefix == (adds_space ? " " : "") && text_of(encode("  a  ")) == prefix + "  a  " &&
                        std::none_of(pieces.begin(), pieces.end(), [](const std::string& piece) {
                          return piece.size() > 1 && piece.find('\n') != std::string::npos;
                        });
    splits_at_space = splits_at_newline;
    for (int id = 0; id < model.GetPieceSize(); ++id) {
      const std::string& piece = pieces[static_cast<std::size_t>(id)];
      const bool space_inside = piece.find(' ', std::min(piece.find_first_not_of(' '), piece.size())) != piece.npos;
      if (space_inside && !model.IsUnknown(id)) splits_at_space = false;  // no text is encoded as what unk is shown as
    }
  }

  // Where a long text is cut: before a newline, or before a space between two words.
  std::size_t cut(std::string_view text) const {
    const auto in_word = [&](std::size_t i) { return text[i] != ' ' && text[i] != '\n'; };
    for (std::size_t i = segment_bytes; splits_at_newline && i + 1 < text.size(); ++i)
      if (text[i] == '\n' || (splits_at_space && text[i] == ' ' && in_word(i - 1) && in_word(i + 1))) return i;
    return text.size();
  }
};

Tokenizer::Tokenizer(const std::filesystem::path& path) : impl_(std::make_unique<Impl>()) {
  const std::string file = read_text(path);
  check_sentencepiece_model(file, path);
  auto& model = impl_->model;
  if (const auto status = model.LoadFromSerializedProto(file); !status.ok())
    throw InputError(fmt::format("{}: no usable SentencePiece model: {}", path.string(), status.ToString()));
  impl_->hash = sha256(std::as_bytes(std::span(file)));
  for (int id = 0; id < model.GetPieceSize(); ++id) {
    const std::string& piece = model.IdToPiece(id);
    impl_->begins_with_space.push_back(piece.starts_with(meta_space));
    if (model.IsByte(id)) {
      impl_->pieces.push_back(byte_of(piece, path));
    } else if (model.IsControl(id)) {
      impl_->pieces.emplace_back();
    } else {
      impl_->pieces.push_back(model.IsUnknown(id) ? model.DecodeIds({id}) : with_spaces(piece));
    }
  }
  impl_->probe();
}

Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

std::int64_t Tokenizer::vocab_size() const { return static_cast<std::int64_t>(impl_->pieces.size()); }
std::int64_t Tokenizer::bos_token_id() const { return impl_->model.bos_id(); }
std::int64_t Tokenizer::eos_token_id() const { return impl_->model.eos_id(); }
const std::string& Tokenizer::hash() const { return impl_->hash; }

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
  std::string repaired;
  if (!is_valid_utf8(text)) {
    Utf8Stream stream;
    repaired = stream.push(text);
    repaired += stream.finish();
    text = repaired;
  }
  std::vector<std::int32_t> tokens;
  std::size_t n_added = 0;  // tokens that stand for no part of the text
  do {
    const std::size_t end = impl_->cut(text);
    const auto ids = impl_->encode(text.substr(0, end));
    tokens.insert(tokens.end(), ids.begin() + static_cast<std::ptrdiff_t>(n_added), ids.end());
    text.remove_prefix(end);
    n_added = impl_->dummy_prefix.size();
    if (impl_->adds_space && text.starts_with(' ')) {  // the one that encode() puts there is this one
      text.remove_prefix(1);
      n_added = 0;
    }
  } while (!text.empty());
  return tokens;
}

std::string Tokenizer::decode(std::span<const std::int32_t> tokens) const {
  TextStream stream(this, {});
  std::string text;
  for (const std::int32_t token : tokens) text += stream.add(token);
  return text + stream.finish();
}

std::string Tokenizer::piece(std::int32_t token) const {
  check(token);
  return impl_->pieces[static_cast<std::size_t>(token)];
}

std::string Tokenizer::first_piece(std::int32_t token) const {
  check(token);
  const auto i = static_cast<std::size_t>(token);
  return impl_->pieces[i].substr(impl_->adds_space && impl_->begins_with_space[i] != 0 ? 1 : 0);
}

std::string Tokenizer::name(std::int32_t token) const {
  check(token);
  return impl_->model.IdToPiece(token);
}

void Tokenizer::check(std::int32_t token) const {
  if (token < 0 || token >= vocab_size())
    throw InputError(fmt::format("token id {} is outside the vocabulary of {}", token, vocab_size()));
}

}  // namespace photon
