// photon shard: text files to a training shard.
#include "text/shard.h"

#include <fmt/format.h>

#include <iostream>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli/commands.h"

namespace photon {

void add_shard(Command app) {
  struct Options {
    ShardOptions shard;
    bool json = false;
  };
  Command command = app.subcommand("shard", "Tokenise text files into a training shard");
  auto options = std::make_shared<Options>();
  auto& shard = options->shard;
  command.option("inputs", shard.inputs, "UTF-8 text files; documents end with a line <|endoftext|>").required();
  command.option("-t,--tokenizer", shard.tokenizer, "SentencePiece model file").required();
  command.option("-o,--output", shard.output, "shard to write").required();
  command.option("--max-tokens", shard.max_tokens, "stop after the document that reaches this many tokens; 0: no limit")
      .range(0, std::numeric_limits<std::int64_t>::max());
  command.flag("--json", options->json, "print the report as JSON");
  command.footer("Example: photon shard stories.txt -t tokenizer.model -o train.shard");
  command.runs([options] {
    const ShardReport report = write_shard(options->shard);
    const double bytes_per_token = static_cast<double>(report.text_bytes) / static_cast<double>(report.tokens);
    if (options->json) {
      std::cout << nlohmann::json{{"documents", report.documents},
                                  {"tokens", report.tokens},
                                  {"text_bytes", report.text_bytes},
                                  {"bytes_per_token", bytes_per_token}}
                       .dump()
                << '\n';
    } else {
      std::cout << fmt::format("{}: {} documents, {} tokens, {} bytes of text, {:.3f} bytes/token\n",
                               options->shard.output.string(), report.documents, report.tokens, report.text_bytes,
                               bytes_per_token);
    }
  });
}

}  // namespace photon
