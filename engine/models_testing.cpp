#include "engine/models_testing.h"

#include <unistd.h>
#include <atomic>
#include <stdexcept>

#include "base/random.h"

namespace photon {
namespace {

StackSpec stack(std::int64_t d_model, std::int64_t n_layers, std::int64_t n_heads, std::int64_t n_kv_heads,
                std::int64_t head_dim, Span span) {
  return {.d_model = d_model,
          .n_layers = n_layers,
          .n_heads = n_heads,
          .n_kv_heads = n_kv_heads,
          .head_dim = head_dim,
          .d_ff = d_model + 3,
          .rope_theta = 10000.0,
          .span = span};
}

LevelSpec level(std::int64_t C, std::int64_t R, Chunker chunker, StackSpec encoder, StackSpec decoder) {
  return {.chunk_size = C, .converter_len = R, .chunker = chunker, .encoder = encoder, .decoder = decoder};
}

Spec model(std::int64_t d_embed, std::vector<LevelSpec> levels) {
  return {.vocab_size = 37, .d_embed = d_embed, .levels = std::move(levels), .trunk = std::nullopt};
}

Spec tiny_spec_of(const std::vector<NamedSpec>& specs, const std::string& name) {
  for (const NamedSpec& s : specs)
    if (s.name == name) return s.spec;
  throw std::out_of_range(name);
}

}  // namespace

std::vector<NamedSpec> tiny_specs() {
  using enum Span::Kind;
  using enum Chunker;
  const Span all{global, 0}, own{chunk, 0};
  std::vector<NamedSpec> specs;

  Spec vanilla{.vocab_size = 37, .d_embed = 12, .levels = {}, .trunk = stack(12, 2, 4, 2, 5, all)};
  specs.push_back({"vanilla", vanilla});
  vanilla.tie_embeddings = true;
  vanilla.trunk = stack(12, 1, 1, 1, 52, all);
  specs.push_back({"vanilla_tied", vanilla});
  vanilla.trunk->n_layers = 3;
  vanilla.trunk->span = {window, 2};
  specs.push_back({"vanilla_window", vanilla});

  specs.push_back({"block", model(4, {level(4, 4, concat, stack(16, 2, 2, 1, 8, all), stack(12, 2, 2, 2, 7, own))})});
  specs.push_back(
      {"block_stream", model(8, {level(3, 2, linear, stack(10, 1, 2, 2, 5, all), stack(8, 3, 2, 1, 6, {stream, 9}))})});
  Spec tied = model(8, {level(2, 1, linear, stack(10, 1, 1, 1, 9, all), stack(8, 1, 2, 1, 6, own))});
  tied.tie_embeddings = true;
  specs.push_back({"block_tied", tied});

  specs.push_back({"paper", model(4, {level(4, 4, concat, stack(16, 1, 1, 1, 52, all), stack(16, 2, 1, 1, 52, own)),
                                      level(4, 4, linear, stack(16, 2, 2, 2, 8, all), stack(16, 1, 2, 1, 8, own))})});
  specs.push_back(
      {"window_stream",
       model(6, {level(4, 1, linear, stack(12, 2, 2, 1, 6, {window, 3}), stack(10, 2, 3, 1, 5, {stream, 7})),
                 level(2, 2, linear, stack(14, 1, 2, 2, 7, all), stack(12, 2, 2, 2, 6, {stream, 5}))})});
  specs.push_back(
      {"window_mixed",
       model(6, {level(4, 2, linear, stack(12, 2, 2, 1, 6, {window, 5}), stack(10, 2, 3, 1, 5, {stream, 20})),
                 level(4, 1, linear, stack(14, 1, 2, 2, 7, all), stack(12, 2, 2, 2, 6, own))})});
  specs.push_back(
      {"block_spans", model(6, {level(4, 4, linear, stack(12, 2, 2, 2, 5, {block, 4}), stack(6, 2, 2, 2, 3, own)),
                                level(4, 1, linear, stack(14, 2, 2, 1, 6, all), stack(12, 1, 2, 2, 6, {stream, 1}))})});
  specs.push_back(
      {"three", model(8, {level(3, 2, linear, stack(10, 2, 2, 1, 5, {block, 5}), stack(9, 2, 2, 2, 5, {stream, 8})),
                          level(5, 1, linear, stack(11, 2, 1, 1, 7, {window, 2}), stack(10, 2, 2, 1, 4, own)),
                          level(2, 4, linear, stack(12, 1, 2, 2, 6, all), stack(11, 1, 2, 2, 5, {stream, 6}))})});
  specs.push_back(
      {"three_chunk", model(5, {level(2, 2, concat, stack(10, 1, 2, 2, 5, all), stack(10, 2, 2, 1, 6, own)),
                                level(3, 1, linear, stack(9, 1, 1, 1, 7, all), stack(10, 1, 2, 1, 5, {stream, 4})),
                                level(2, 2, concat, stack(18, 1, 2, 1, 5, all), stack(9, 2, 1, 1, 9, own))})});

  // The paper's own geometry: biases, a norm before the chunker, a second table; then each key by itself.
  LevelSpec first = level(4, 2, concat, stack(16, 1, 2, 2, 8, all), stack(16, 2, 2, 2, 8, own));
  LevelSpec second = level(4, 2, linear, stack(16, 2, 2, 2, 8, all), stack(16, 1, 2, 2, 8, own));
  first.converter_bias = second.converter_bias = second.chunker_bias = second.chunker_norm = true;
  Spec paper = model(4, {first, second});
  paper.decoder_embedding = true, paper.learned_start = false;
  specs.push_back({"paper_exact", paper});
  Spec blocks = model(4, {level(4, 2, concat, stack(16, 2, 2, 1, 8, all), stack(12, 2, 2, 2, 7, own))});
  blocks.levels[0].converter_bias = blocks.decoder_embedding = true, blocks.learned_start = false;
  specs.push_back({"block_exact", blocks});
  Spec two_tables = model(8, {level(3, 2, linear, stack(10, 1, 2, 2, 5, all), stack(8, 3, 2, 1, 6, {stream, 9}))});
  two_tables.decoder_embedding = two_tables.tie_embeddings = two_tables.levels[0].chunker_norm = true;
  specs.push_back({"block_two_tables", two_tables});
  Spec streams = model(6, {level(4, 2, linear, stack(12, 2, 2, 1, 6, {window, 5}), stack(10, 2, 3, 1, 5, {stream, 20})),
                           level(2, 1, linear, stack(14, 1, 2, 2, 7, all), stack(12, 2, 2, 2, 6, own))});
  streams.decoder_embedding = streams.levels[0].chunker_bias = streams.levels[1].converter_bias = true;
  specs.push_back({"stream_two_tables", streams});
  Spec three = model(8, {level(3, 2, linear, stack(10, 2, 2, 1, 5, {block, 5}), stack(9, 2, 2, 2, 5, own)),
                         level(5, 1, linear, stack(11, 2, 1, 1, 7, {window, 2}), stack(10, 2, 2, 1, 4, {stream, 6})),
                         level(2, 4, linear, stack(12, 1, 2, 2, 6, all), stack(11, 1, 2, 2, 5, own))});
  three.decoder_embedding = true, three.learned_start = false;
  for (LevelSpec& l : three.levels) l.converter_bias = l.chunker_bias = true;
  three.levels[0].chunker_norm = three.levels[2].chunker_norm = true;
  specs.push_back({"three_exact", three});
  Spec projected = model(5, {level(2, 1, concat, stack(10, 1, 2, 2, 5, all), stack(10, 2, 2, 1, 6, own)),
                             level(3, 2, linear, stack(9, 1, 1, 1, 7, all), stack(10, 1, 2, 1, 5, own))});
  projected.levels[0].converter_bias = projected.levels[1].chunker_norm = true;
  specs.push_back({"bias_and_projection", projected});

  // Memory of text and of units, beside every span; contexts longer than a group, several kv heads, first and last
  // block.
  const auto remember = [](StackSpec& s, std::vector<MemorySpec> memory) { s.memory = std::move(memory); };
  const MemorySpec text{.kind = MemorySpec::Kind::text, .context = 2, .n_kv_heads = 1, .layers = {0}, .recency = true};
  const MemorySpec of_units{.kind = MemorySpec::Kind::units, .n_kv_heads = 1, .layers = {1}};
  Spec remembering{.vocab_size = 37, .d_embed = 12, .levels = {}, .trunk = stack(12, 2, 4, 2, 5, {window, 3})};
  remember(*remembering.trunk, {{.context = 3, .n_kv_heads = 2, .layers = {0, 1}, .recency = true}});
  specs.push_back({"window_text", remembering});
  remembering.trunk = stack(12, 2, 2, 1, 7, all);
  remember(*remembering.trunk, {{.context = 1, .n_kv_heads = 1, .layers = {1}}});
  specs.push_back({"vanilla_text", remembering});
  Spec some_global{.vocab_size = 37, .d_embed = 12, .levels = {}, .trunk = stack(12, 4, 4, 2, 5, {window, 3})};
  some_global.trunk->global_layers = {1, 3};
  specs.push_back({"window_global", some_global});
  some_global.trunk->global_layers = {0};
  remember(*some_global.trunk, {{.context = 2, .n_kv_heads = 2, .layers = {0, 2}, .recency = true}});
  specs.push_back({"window_global_text", some_global});
  Spec block_text = tiny_spec_of(specs, "block_stream");
  remember(block_text.levels[0].decoder, {{.context = 4, .n_kv_heads = 2, .layers = {0, 2}, .recency = true}});
  specs.push_back({"block_text", block_text});
  Spec paper_text = tiny_spec_of(specs, "paper_exact");
  remember(paper_text.levels[0].decoder, {text, of_units});
  specs.push_back({"paper_text_units", paper_text});
  Spec stream_text = tiny_spec_of(specs, "stream_two_tables");
  remember(stream_text.levels[0].decoder, {{.context = 2, .n_kv_heads = 3, .layers = {1}}});
  specs.push_back({"stream_text", stream_text});
  Spec stream_units = tiny_spec_of(specs, "window_stream");
  MemorySpec rotated = of_units;
  rotated.rope = true, rotated.layers = {0, 1}, rotated.n_kv_heads = 3;
  remember(stream_units.levels[0].decoder, {rotated});
  specs.push_back({"stream_units", stream_units});
  Spec three_text = tiny_spec_of(specs, "three");
  remember(three_text.levels[0].decoder, {of_units, text});
  specs.push_back({"three_units_text", three_text});
  return specs;
}

Spec tiny_spec(const std::string& name) { return tiny_spec_of(tiny_specs(), name); }

TestModel::TestModel(const Spec& spec, std::uint64_t seed, DType dtype) {
  static std::atomic<int> count{0};
  path_ = std::filesystem::temp_directory_path() /
          ("photon_engine_test_" + std::to_string(getpid()) + "_" + std::to_string(count++));
  std::filesystem::remove_all(path_);
  init_model_folder(spec, path_, {.seed = seed, .shake = true, .dtype = dtype});
}

TestModel::~TestModel() {
  std::error_code ignored;  // a temporary folder that stays behind fails no test
  std::filesystem::remove_all(path_, ignored);
}

std::vector<std::int32_t> random_tokens(std::int64_t n, std::int64_t vocab_size, std::uint64_t seed) {
  Random random(seed);
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < n; ++i) tokens.push_back(static_cast<std::int32_t>(random.below(vocab_size)));
  return tokens;
}

}  // namespace photon
