// Trains a byte-fallback BPE with libsentencepiece: the same lines, options and seed give the same file.
#include <fmt/format.h>
#include <sentencepiece_trainer.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <string>
#include <unordered_map>

#include "base/error.h"
#include "base/file.h"
#include "base/random.h"
#include "text/documents.h"
#include "text/tokenizer.h"

namespace photon {
namespace {

constexpr std::int64_t smallest_vocabulary = 3 + 256 + 1;  // unk, bos, eos; the bytes; at least one character
constexpr std::int64_t largest_vocabulary = 1'000'000;
constexpr std::size_t longest_sentence = 4192;  // SentencePiece's own limit: it drops longer lines, so they are cut

// A uniform sample of at most max_sentences lines (reservoir sampling).
class Sample {
 public:
  Sample(std::int64_t max_sentences, std::uint64_t seed) : max_sentences_(max_sentences), random_(seed) {}

  void add_document(std::string_view document) {
    while (!document.empty()) {
      const auto end = std::min(document.find('\n'), document.size());
      add_line(document.substr(0, end));
      document.remove_prefix(std::min(end + 1, document.size()));
    }
  }
  const std::vector<std::string_view>& sentences() const { return sentences_; }
  std::int64_t seen() const { return seen_; }

 private:
  void add_line(std::string_view line) {
    while (line.size() > longest_sentence) {
      std::size_t end = line.rfind(' ', longest_sentence);
      if (end == std::string_view::npos || end == 0)  // no word ends: cut between two characters
        for (end = longest_sentence; (static_cast<unsigned char>(line[end]) & 0xC0) == 0x80;) --end;
      add(line.substr(0, end));
      line.remove_prefix(end);
    }
    if (!line.empty()) add(line);
  }
  void add(std::string_view sentence) {
    ++seen_;
    if (static_cast<std::int64_t>(sentences_.size()) < max_sentences_) {
      sentences_.push_back(sentence);
    } else if (const std::int64_t place = random_.below(seen_); place < max_sentences_) {
      sentences_[static_cast<std::size_t>(place)] = sentence;
    }
  }

  std::int64_t max_sentences_, seen_ = 0;
  Random random_;
  std::vector<std::string_view> sentences_;
};

class Sentences : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::vector<std::string_view>& sentences) : sentences_(sentences) { load(); }
  bool done() const override { return next_ >= sentences_.size(); }
  void Next() override { ++next_, load(); }
  const std::string& value() const override { return value_; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  void load() {
    if (!done()) value_ = sentences_[next_];
  }
  const std::vector<std::string_view>& sentences_;
  std::size_t next_ = 0;
  std::string value_;
};

// "Internal: src/x.cc(604) [condition] Vocabulary size is too high" without the place in the library, and without its
// advice about options of another program.
std::string reason(const sentencepiece::util::Status& status) {
  std::string text = status.ToString();
  if (const auto bracket = text.rfind("] "); bracket != std::string::npos) text.erase(0, bracket + 2);
  return text.substr(0, text.find(" or decrease character_coverage"));
}

}  // namespace

void train_tokenizer(const TokenizerTraining& options) {
  if (options.vocab_size < smallest_vocabulary || options.vocab_size > largest_vocabulary)
    throw InputError(fmt::format("vocabulary size {}: a byte-fallback tokenizer has {} to {} pieces",
                                 options.vocab_size, smallest_vocabulary, largest_vocabulary));
  if (options.max_sentences < 1) throw InputError("max_sentences must be at least 1");
  if (options.inputs.empty()) throw InputError("no text files to train a tokenizer on");

  std::vector<MappedFile> files;
  Sample sample(options.max_sentences, options.seed);
  for (const auto& path : options.inputs) {
    files.emplace_back(path);
    for (const std::string_view document : documents(files.back())) sample.add_document(document);
    spdlog::info("tokenizer: read {} ({} lines so far)", path.string(), sample.seen());
  }
  if (sample.seen() == 0) throw InputError("the text files hold no text to train a tokenizer on");

  spdlog::info("tokenizer: training {} pieces on {} of {} lines", options.vocab_size, sample.sentences().size(),
               sample.seen());
  const std::unordered_map<std::string, std::string> arguments = {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(options.vocab_size)},
      {"byte_fallback", "true"},
      {"split_digits", "true"},
      {"normalization_rule_name", "identity"},
      {"remove_extra_whitespaces", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"add_dummy_prefix", "true"},
      {"character_coverage", "0.9999"},
      {"max_sentence_length", std::to_string(longest_sentence)},
      {"unk_id", "0"},
      {"bos_id", "1"},
      {"eos_id", "2"},
      {"pad_id", "-1"},
      {"num_threads", "1"},
      {"minloglevel", "2"},
  };
  Sentences sentences(sample.sentences());
  std::string model;
  if (const auto status = sentencepiece::SentencePieceTrainer::Train(arguments, &sentences, &model); !status.ok())
    throw InputError(fmt::format("cannot train a tokenizer of {} pieces on {} lines: {}", options.vocab_size,
                                 sample.sentences().size(), reason(status)));
  write_atomically(options.output, model);
  spdlog::info("tokenizer: wrote {}", options.output.string());
}

}  // namespace photon
