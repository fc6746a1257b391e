// photon export: a vanilla model and its tokenizer for other engines.
#include <fmt/format.h>

#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "cli/commands.h"
#include "text/sentencepiece_model.h"
#include "weights/llama_gguf.h"
#include "weights/model_folder.h"

namespace photon {
namespace {

struct ExportArguments {
  std::string folder, gguf, dtype;
  std::int64_t context_length = 8192;
};

GgufMetadata no_tokenizer() { return {{"tokenizer.ggml.model", "none"}}; }

// @throws InputError for a tokenizer that GGUF's "llama" would split in another way.
GgufMetadata tokenizer_metadata(const std::filesystem::path& path, const Spec& spec) {
  const SentencePieceVocabulary vocabulary = read_sentencepiece_vocabulary(path);
  const auto refuse = [&](const std::string& why) { throw InputError(fmt::format("{}: {}", path.string(), why)); };
  const auto n_pieces = static_cast<std::int64_t>(vocabulary.pieces.size());
  if (n_pieces != spec.vocab_size)
    refuse(fmt::format("has {} pieces, config.json says vocab_size {}; is it another model's tokenizer?", n_pieces,
                       spec.vocab_size));
  if (!vocabulary.is_bpe) refuse("is no BPE; GGUF's llama tokenizer would split text differently");
  if (vocabulary.removes_extra_spaces || vocabulary.spaces_end_pieces)
    refuse("rewrites spaces (remove_extra_whitespaces or treat_whitespace_as_suffix); GGUF's llama tokenizer cannot");

  std::vector<std::string> tokens;
  std::vector<float> scores;
  std::vector<std::int32_t> types;
  std::optional<std::uint32_t> unknown;
  for (const auto& [text, score, type] : vocabulary.pieces) {
    if (type == SentencePieceVocabulary::Type::unknown) unknown = static_cast<std::uint32_t>(tokens.size());
    tokens.push_back(text);
    scores.push_back(score);
    types.push_back(static_cast<std::int32_t>(type));  // GGUF took SentencePiece's numbers
  }
  GgufMetadata metadata = {
      {"tokenizer.ggml.model", "llama"},
      {"tokenizer.ggml.pre", "default"},
      {"tokenizer.ggml.tokens", std::move(tokens)},
      {"tokenizer.ggml.scores", std::move(scores)},
      {"tokenizer.ggml.token_type", std::move(types)},
      {"tokenizer.ggml.bos_token_id", static_cast<std::uint32_t>(spec.bos_token_id)},
      {"tokenizer.ggml.eos_token_id", static_cast<std::uint32_t>(spec.eos_token_id)},
      {"tokenizer.ggml.add_bos_token", true},
      {"tokenizer.ggml.add_eos_token", false},
      {"tokenizer.ggml.add_space_prefix", vocabulary.adds_space},
  };
  if (unknown) metadata.emplace_back("tokenizer.ggml.unknown_token_id", *unknown);
  return metadata;
}

void run_export(const ExportArguments& arguments) {
  const ModelFolder folder = open_model_folder(arguments.folder, /*check_finite=*/true);
  const auto path = std::filesystem::absolute(arguments.folder).lexically_normal();
  const std::string name = (path.has_filename() ? path : path.parent_path()).filename().string();
  const std::optional<DType> dtype =
      arguments.dtype.empty() ? std::nullopt : std::optional(parse_dtype(arguments.dtype));
  LlamaGguf gguf = llama_gguf(folder.spec, FolderSource(folder), name, dtype, arguments.context_length);
  const GgufMetadata tokenizer = folder.tokenizer ? tokenizer_metadata(*folder.tokenizer, folder.spec) : no_tokenizer();
  gguf.metadata.insert(gguf.metadata.end(), tokenizer.begin(), tokenizer.end());
  write_gguf(arguments.gguf, gguf.metadata, gguf.tensors);
  fmt::print("{}: {} tensors, {} bytes, {}\n", arguments.gguf, gguf.tensors.size(),
             std::filesystem::file_size(arguments.gguf),
             folder.tokenizer ? "with the tokenizer" : "without a tokenizer");
}

}  // namespace

void add_export(Command app) {
  auto arguments = std::make_shared<ExportArguments>();
  Command command = app.subcommand("export", "Write a vanilla model for other engines");
  command.option("folder", arguments->folder, "Model folder without levels").required();
  command.option("--gguf", arguments->gguf, "GGUF file to write, for llama.cpp").required();
  command.option("--dtype", arguments->dtype, "Type of the matrices (default: as stored)").one_of({"f32", "bf16"});
  command
      .option("--context-length", arguments->context_length,
              "Longest context that the file announces; the model itself has no limit")
      .range(1, std::int64_t{std::numeric_limits<std::int32_t>::max()});
  command.footer("Example: photon export models/vanilla-stories --gguf vanilla-stories.gguf");
  command.runs([arguments] { run_export(*arguments); });
}

}  // namespace photon
