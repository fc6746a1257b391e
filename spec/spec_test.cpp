// Properties of spec/spec.h: what is refused, with which words, and what a model's tensors are.
#include "spec/spec.h"

#include <fmt/ranges.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/folder_testing.h"
#include "spec/tensor_names.h"

namespace photon {
namespace {

using nlohmann::json;
using enum Span::Kind;

// L = 3, C = (3,5,2), every span that fits, grouped queries, odd heads, D_0 and E_1 unlike the rest.
Spec odd_spec() {
  Spec spec;
  spec.vocab_size = 50, spec.d_embed = 6, spec.norm_eps = 1e-6, spec.bos_token_id = 0, spec.eos_token_id = 49;
  spec.levels = {
      {3, 2, Chunker::concat, {18, 1, 4, 2, 5, 7, 10000.0, {window, 6}}, {10, 2, 2, 1, 52, 9, 500.0, {stream, 11}}},
      {5, 4, Chunker::linear, {24, 2, 6, 3, 3, 8, 10000.0, {block, 2}}, {18, 1, 4, 2, 5, 7, 1e6, {chunk, 0}}},
      {2, 1, Chunker::linear, {12, 3, 1, 1, 7, 5, 0.1, {global, 0}}, {24, 1, 2, 2, 4, 3, 10000.0, {chunk, 0}}}};
  return spec;
}

// The same with biases, a norm before a chunker, a second table and no start latent.
Spec exact_spec() {
  Spec spec = odd_spec();
  spec.decoder_embedding = true, spec.learned_start = false;
  for (LevelSpec& level : spec.levels) level.converter_bias = true;
  spec.levels[1].chunker_bias = spec.levels[2].chunker_bias = spec.levels[1].chunker_norm = true;
  return spec;
}

Spec vanilla_spec() {
  Spec spec;
  spec.vocab_size = 40, spec.d_embed = 8, spec.tie_embeddings = true;
  spec.trunk = {8, 2, 2, 1, 3, 5, 10000.0, {}};
  return spec;
}

// The problems that a text is refused with; empty if it is accepted.
std::vector<std::string> refusals(const std::string& text) {
  try {
    parse_spec(text, "here/config.json");
    return {};
  } catch (const SpecError& e) {
    const std::string message = e.what();
    EXPECT_TRUE(message.starts_with("here/config.json: not a model, ")) << message;
    std::vector<std::string> lines;
    for (std::size_t at = message.find("\n  "); at != std::string::npos;) {
      const std::size_t next = message.find("\n  ", at + 3);
      lines.push_back(message.substr(at + 3, next == std::string::npos ? next : next - at - 3));
      at = next;
    }
    EXPECT_FALSE(lines.empty()) << message;
    return lines;
  }
}

struct BadInput {
  std::string patch;                  // RFC 6902 operations on the config of odd_spec() or vanilla_spec()
  std::vector<const char*> problems;  // exactly these, each found in its own line
};

void expect_problems(const Spec& spec, const std::vector<BadInput>& cases) {
  const json config = json::parse(to_json(spec));
  for (const BadInput& c : cases) {
    auto lines = refusals(config.patch(json::parse(c.patch)).dump());
    EXPECT_EQ(lines.size(), c.problems.size()) << c.patch << "\n" << json(lines).dump(1);
    for (const std::string problem : c.problems) {
      const auto found = std::find_if(lines.begin(), lines.end(),
                                      [&](const std::string& line) { return line.find(problem) != std::string::npos; });
      EXPECT_NE(found, lines.end()) << c.patch << "\nlacks: " << problem << "\n" << json(lines).dump(1);
      if (found != lines.end()) lines.erase(found);
    }
  }
}

TEST(Spec, EveryWrongValueIsNamedOnceWithItsPlace) {
  expect_problems(
      odd_spec(),
      {
          {R"([])", {}},
          // types
          {R"([{"op":"replace","path":"/vocab_size","value":"50"}])", {"vocab_size is a string, must be an integer"}},
          {R"([{"op":"replace","path":"/vocab_size","value":50.0}])", {"vocab_size is 50.0, must be an integer"}},
          {R"([{"op":"replace","path":"/levels/1/chunk_size","value":true}])", {"level 2: chunk_size is a boolean"}},
          {R"([{"op":"replace","path":"/levels/1/decoder/n_heads","value":null}])",
           {"level 2 decoder: n_heads is null"}},
          {R"([{"op":"replace","path":"/tie_embeddings","value":0}])", {"tie_embeddings is a number, must be true or"}},
          {R"([{"op":"replace","path":"/norm_eps","value":"tiny"}])", {"norm_eps is a string, must be a number"}},
          {R"([{"op":"replace","path":"/levels","value":{}}])", {"levels is an object, must be a list"}},
          {R"([{"op":"replace","path":"/levels/1","value":7}])", {"level 2: is a number, must be an object"}},
          {R"([{"op":"replace","path":"/levels/1/encoder","value":[]}])", {"level 2: encoder is a list, must be an"}},
          {R"([{"op":"replace","path":"/levels/0/encoder/span","value":"global"}])",
           {"level 1 encoder: span is a string, must be an object"}},
          // words
          {R"([{"op":"replace","path":"/format","value":"gguf"}])", {"format is \"gguf\", must be \"photon-lm\""}},
          {R"([{"op":"replace","path":"/version","value":2}])", {"version is 2, this program reads version 1"}},
          {R"([{"op":"replace","path":"/levels/0/chunker","value":"conv"}])",
           {"level 1: chunker is \"conv\", must be one of \"concat\", \"linear\""}},
          {R"([{"op":"replace","path":"/levels/0/encoder/span/kind","value":"local"}])",
           {"level 1 encoder span: kind is \"local\", must be one of"}},
          // keys
          {R"([{"op":"remove","path":"/d_embed"}])", {"d_embed is missing"}},
          {R"([{"op":"remove","path":"/levels/2/encoder"}])", {"level 3: encoder is missing"}},
          {R"([{"op":"remove","path":"/levels/2/encoder/rope_theta"}])", {"level 3 encoder: rope_theta is missing"}},
          {R"([{"op":"remove","path":"/levels/0/encoder/span/size"}])", {"level 1 encoder span: size is missing"}},
          {R"([{"op":"add","path":"/levels/2/encoder/span/size","value":4}])",
           {"level 3 encoder span: unknown key \"size\""}},
          {R"([{"op":"add","path":"/hidden_size","value":4}])", {"unknown key \"hidden_size\""}},
          {R"([{"op":"add","path":"/levels/1/decoder/bias","value":false}])",
           {"level 2 decoder: unknown key \"bias\""}},
          // sizes
          {R"([{"op":"replace","path":"/vocab_size","value":0}])", {"vocab_size is 0"}},
          {R"([{"op":"replace","path":"/vocab_size","value":1000000000000}])", {"vocab_size is 1000000000000"}},
          {R"([{"op":"replace","path":"/d_embed","value":18446744073709551615}])", {"d_embed is 18446744073709551615"}},
          {R"([{"op":"replace","path":"/d_embed","value":1180591620717411303424}])", {"d_embed is 1.18"}},
          {R"([{"op":"replace","path":"/levels/0/chunk_size","value":1}])", {"level 1: chunk_size is 1"}},
          {R"([{"op":"replace","path":"/levels/0/converter_len","value":0}])", {"level 1: converter_len is 0"}},
          {R"([{"op":"replace","path":"/levels/2/decoder/n_layers","value":-1}])", {"level 3 decoder: n_layers is -1"}},
          {R"([{"op":"replace","path":"/levels/2/decoder/head_dim","value":0}])", {"level 3 decoder: head_dim is 0"}},
          {R"([{"op":"replace","path":"/levels/0/encoder/span/size","value":0}])", {"level 1 encoder span: size is 0"}},
          {R"([{"op":"replace","path":"/levels/0/decoder/span/size","value":-3}])",
           {"level 1 decoder span: size is -3"}},
          {R"([{"op":"replace","path":"/norm_eps","value":0}])", {"norm_eps is 0"}},
          {R"([{"op":"replace","path":"/levels/0/decoder/rope_theta","value":-1.5}])",
           {"level 1 decoder: rope_theta is -1.5"}},
          {R"([{"op":"replace","path":"/bos_token_id","value":50}])", {"bos_token_id is 50, must be 0 to 49"}},
          {R"([{"op":"replace","path":"/eos_token_id","value":-1}])", {"eos_token_id is -1"}},
          // relations
          {R"([{"op":"replace","path":"/levels/1/encoder/n_kv_heads","value":4}])",
           {"level 2 encoder: n_heads 6 is not a multiple of n_kv_heads 4"}},
          {R"([{"op":"replace","path":"/d_embed","value":7}])", {"level 1: chunker \"concat\" needs"}},
          {R"([{"op":"replace","path":"/levels/2/decoder/d_model","value":25}])",
           {"level 3 decoder: d_model 25 differs from the level 2 encoder's 24"}},
          {R"([{"op":"replace","path":"/tie_embeddings","value":true}])",
           {"tie_embeddings needs d_embed 6 to equal the level 1 decoder's d_model 10"}},
          {R"([{"op":"replace","path":"/levels/2/encoder/span","value":{"kind":"window","size":4}}])",
           {"level 3 encoder: span window(4) does not fit here, use global (it is the top encoder)"}},
          {R"([{"op":"replace","path":"/levels/0/encoder/span","value":{"kind":"chunk"}}])",
           {"level 1 encoder: span chunk does not fit here, use global, window or block"}},
          {R"([{"op":"replace","path":"/levels/1/decoder/span","value":{"kind":"global"}}])",
           {"level 2 decoder: span global does not fit here, use chunk or stream"}},
          {R"([{"op":"replace","path":"/levels","value":[]}])", {"neither levels nor a trunk"}},
          {R"([{"op":"copy","from":"/levels/2/encoder","path":"/trunk"}])",
           {"both levels and a trunk", "trunk: d_model 12 differs from d_embed 6"}},
          // products
          {R"([{"op":"replace","path":"/levels/1/chunk_size","value":65536}])",
           {"level 2: one unit covers 196608 tokens"}},
          {R"([{"op":"replace","path":"/levels/2/encoder/n_heads","value":1048576}])",
           {"level 3 encoder: n_heads 1048576 x head_dim 7 is above"}},
          {R"([{"op":"replace","path":"/levels/2/encoder/d_ff","value":16777216},
               {"op":"replace","path":"/levels/2/encoder/d_model","value":16777216}])",
           {"the model would have 2.53e+15 parameters"}},
          // together
          {R"([{"op":"replace","path":"/format","value":7},{"op":"remove","path":"/levels/1/decoder/d_ff"},
               {"op":"replace","path":"/levels/1/encoder/n_kv_heads","value":4},
               {"op":"replace","path":"/levels/0/chunker","value":"linear"},{"op":"add","path":"/x","value":1}])",
           {"format is a number", "level 2 decoder: d_ff is missing", "level 2 encoder: n_heads 6",
            "unknown key \"x\""}},
      });
}

TEST(Spec, KeysOfThePapersGeometryAreRefusedWhereTheySayNothing) {
  expect_problems(
      exact_spec(),
      {
          {R"([])", {}},
          {R"([{"op":"replace","path":"/levels/0/converter_bias","value":1}])",
           {"level 1: converter_bias is a number, must be true or false"}},
          {R"([{"op":"replace","path":"/levels/2/converter_bias","value":null}])",
           {"level 3: converter_bias is null, must be true or false"}},
          {R"([{"op":"replace","path":"/decoder_embedding","value":"yes"}])", {"decoder_embedding is a string"}},
          {R"([{"op":"replace","path":"/learned_start","value":[]}])", {"learned_start is a list"}},
          {R"([{"op":"add","path":"/levels/0/chunker_bias","value":true},
               {"op":"add","path":"/levels/0/chunker_norm","value":true}])",
           {"level 1: chunker_bias needs chunker \"linear\"", "level 1: chunker_norm needs chunker \"linear\""}},
          {R"([{"op":"replace","path":"/levels/1/chunker","value":"conv"}])", {"level 2: chunker is \"conv\""}},
          {R"([{"op":"remove","path":"/levels/2/converter_bias"}])",
           {"level 3: learned_start false needs converter_bias here"}},
          {R"([{"op":"remove","path":"/levels/1/converter_bias"}])", {}},
          {R"([{"op":"replace","path":"/tie_embeddings","value":true}])",
           {"tie_embeddings needs d_embed 6 to equal the level 1 decoder's d_model 10; the head is tied to "
            "embed.weight"}},
          // together
          {R"([{"op":"replace","path":"/tie_embeddings","value":true},{"op":"add","path":"/levels/0/chunker_norm","value":true},
               {"op":"replace","path":"/levels/1/chunker_bias","value":"no"},
               {"op":"replace","path":"/levels/2/converter_bias","value":false}])",
           {"tie_embeddings needs d_embed", "level 1: chunker_norm needs", "level 2: chunker_bias is a string",
            "level 3: learned_start false needs"}},
      });
  Spec vanilla = vanilla_spec();
  vanilla.decoder_embedding = true, vanilla.learned_start = false;
  EXPECT_EQ(problems(vanilla), (std::vector<std::string>{"decoder_embedding needs a level: a trunk has no decoder",
                                                         "learned_start false needs a level: a trunk starts with "
                                                         "bos_token_id"}));
}

TEST(Spec, AKeyThatIsAbsentMeansWhatOlderFoldersMean) {
  for (const Spec& spec : {odd_spec(), vanilla_spec()}) {
    const std::string text = to_json(spec);
    for (const char* key : {"converter_bias", "chunker_bias", "chunker_norm", "decoder_embedding", "learned_start"})
      EXPECT_EQ(text.find(key), std::string::npos) << key;
  }
}

TEST(Spec, TensorsOfThePapersGeometry) {
  std::map<std::string, std::vector<std::int64_t>> shapes, before;
  for (const TensorSpec& t : tensors(exact_spec())) EXPECT_TRUE(shapes.emplace(t.name, t.shape).second) << t.name;
  for (const TensorSpec& t : tensors(odd_spec())) before.emplace(t.name, t.shape);
  using Shape = std::vector<std::int64_t>;
  const std::map<std::string, Shape> added{
      {"levels.1.converter.bias", {2 * 10}}, {"levels.2.converter.bias", {4 * 18}},
      {"levels.3.converter.bias", {24}},     {"levels.2.chunker.bias", {24}},
      {"levels.3.chunker.bias", {12}},       {"levels.2.chunker.norm.weight", {5 * 18}},
      {"decoder_embed.weight", {50, 10}}};
  for (const auto& [name, shape] : added) {
    ASSERT_TRUE(shapes.contains(name)) << name;
    EXPECT_EQ(shapes.at(name), shape) << name;
    shapes.erase(name);
  }
  EXPECT_EQ(before.erase("levels.1.content_proj.weight") + before.erase("start.weight"), 2u);
  EXPECT_EQ(shapes, before);
}

TEST(Spec, AVanillaModelNeedsATrunkThatFitsItsEmbedding) {
  expect_problems(
      vanilla_spec(),
      {
          {R"([])", {}},
          {R"([{"op":"remove","path":"/levels"}])", {}},
          {R"([{"op":"remove","path":"/trunk"}])", {"neither levels nor a trunk"}},
          {R"([{"op":"replace","path":"/trunk","value":null}])", {"trunk is null, must be an object"}},
          {R"([{"op":"replace","path":"/trunk/n_heads","value":2.5}])", {"trunk: n_heads is 2.5, must be an integer"}},
          {R"([{"op":"replace","path":"/trunk/d_model","value":9},
               {"op":"replace","path":"/tie_embeddings","value":false}])",
           {"trunk: d_model 9 differs from d_embed 8"}},
          {R"([{"op":"replace","path":"/trunk/span","value":{"kind":"window","size":4}}])", {}},
          {R"([{"op":"replace","path":"/trunk/span","value":{"kind":"block","size":4}}])",
           {"trunk: span block(4) does not fit here, use global or window"}},
      });
}

TEST(Spec, SomeBlocksOfAWindowedTrunkMaySeeEverything) {
  const auto with = [](const char* span, const char* layers) {
    return fmt::format(R"([{{"op":"replace","path":"/trunk/span","value":{}}},
                           {{"op":"add","path":"/trunk/global_layers","value":{}}}])",
                       span, layers);
  };
  const char* const window = R"({"kind":"window","size":4})";
  const std::int64_t n = vanilla_spec().trunk->n_layers;
  ASSERT_EQ(n, 2);
  expect_problems(vanilla_spec(),
                  {
                      {with(window, "[1]"), {}},
                      {with(R"({"kind":"global"})", "[1]"),
                       {"trunk: global_layers needs span window, which it is an exception to: span is global"}},
                      {with(window, "[]"), {"trunk: global_layers names no block; leave it out if all have the span"}},
                      {with(window, "[0, 1]"), {"trunk: global_layers names every block; use span global"}},
                      {with(window, "[2]"), {"trunk: global_layers names block 2, the stack has blocks 0 to 1"}},
                      {with(window, "[1, 1]"),
                       {"trunk: global_layers [1, 1] must ascend, each block once", "global_layers names every block"}},
                      {with(window, "[0.5]"), {"trunk: global_layers is [0.5], must be a list of integers"}},
                      {with(window, "true"), {"trunk: global_layers is true, must be a list of integers"}},
                  });
  expect_problems(odd_spec(),
                  {{R"([{"op":"add","path":"/levels/0/encoder/global_layers","value":[0]}])",
                    {"level 1 encoder: global_layers does not fit here: a trunk with a window may have it"}}});
}

TEST(Spec, TextThatIsNoObjectIsRefused) {
  for (const char* text :
       {"", "null", "[]", "7", "{", "{}x", "\xff", "{\"format\":\"\xff\"}", "{\"version\":1e999}", "{\"a\":NaN}"})
    EXPECT_FALSE(refusals(text).empty()) << text;
}

TEST(Spec, DepthBombsAreRefused) {
  for (const char* open : {"[", "{\"a\":", "{\"levels\":["}) {
    std::string text;
    for (int i = 0; i < 100000; ++i) text += open;
    const auto lines = refusals(text);
    ASSERT_EQ(lines.size(), 1u);
    EXPECT_NE(lines[0].find("nested deeper"), std::string::npos) << lines[0];
  }
}

TEST(Spec, DuplicateKeysAreNamedWithTheirPlace) {
  std::string text = to_json(odd_spec());
  const auto insert_after = [&](const std::string& marker, std::size_t from, const std::string& addition) {
    const std::size_t at = text.find(marker, from);
    ASSERT_NE(at, std::string::npos);
    text.insert(at + marker.size(), addition);
  };
  const std::size_t level_2 = text.find("\"chunk_size\": 5");
  insert_after("\"decoder\": {", level_2, "\"d_ff\": 7,");
  insert_after("\"span\": {", level_2, "\"size\": 2,");
  insert_after("{", 0, "\"version\": 1,");
  EXPECT_EQ(refusals(text),
            (std::vector<std::string>{"\"version\" is given twice", "level 2 encoder span: \"size\" is given twice",
                                      "level 2 decoder: \"d_ff\" is given twice"}));
}

TEST(Spec, AtMostEightLevels) {
  Spec spec = odd_spec();
  spec.levels.assign(9, spec.levels.back());
  for (const auto& lines : {refusals(to_json(spec)), problems(spec)}) {
    ASSERT_EQ(lines.size(), 1u);
    EXPECT_EQ(lines[0], "9 levels, at most 8 are possible");
  }
}

TEST(Spec, SpecsBuiltInCodeAreHeldToTheSameRules) {
  EXPECT_TRUE(problems(odd_spec()).empty());
  EXPECT_TRUE(problems(vanilla_spec()).empty());
  EXPECT_FALSE(problems(Spec{}).empty());
  for (const double bad : {0.0, -1.0, std::numeric_limits<double>::infinity(), std::nan("")}) {
    Spec spec = odd_spec();
    spec.norm_eps = bad;
    EXPECT_EQ(problems(spec).size(), 1u) << bad;
  }
  Spec spec = odd_spec();
  spec.levels[2].encoder.span.size = 3;
  EXPECT_EQ(problems(spec).size(), 1u);
}

TEST(Spec, TextRoundTrips) {
  for (const Spec& spec : {odd_spec(), exact_spec(), vanilla_spec()})
    EXPECT_EQ(parse_spec(to_json(spec), "text"), spec);
}

TEST(Spec, AFolderStandsForItsConfig) {
  const testing_support::TemporaryFolder folder;
  EXPECT_THROW(load_spec(folder.path()), InputError);
  write_atomically(folder / "config.json", to_json(odd_spec()));
  EXPECT_EQ(load_spec(folder.path()), odd_spec());
  EXPECT_EQ(load_spec(folder / "config.json"), odd_spec());
}

TEST(Spec, DerivedWidths) {
  const Spec spec = odd_spec();
  EXPECT_EQ(spec.chunk_tokens(0), 1);
  EXPECT_EQ(spec.chunk_tokens(2), 15);
  EXPECT_EQ(spec.chunk_tokens(3), 30);
  EXPECT_EQ(spec.group_tokens(), 30);
  EXPECT_EQ(vanilla_spec().group_tokens(), 1);
  EXPECT_EQ(spec.width(0), 6);
  EXPECT_EQ(spec.width(3), 12);
  EXPECT_EQ(spec.cond_width(1), 18);  // E_2
  EXPECT_EQ(spec.cond_width(2), 24);  // E_3
  EXPECT_EQ(spec.cond_width(3), 12);  // D_3
  EXPECT_EQ(spec.head_width(), 10);
  EXPECT_EQ(vanilla_spec().head_width(), 8);
}

TEST(Spec, TensorsOfALevelModel) {
  std::map<std::string, std::vector<std::int64_t>> shapes;
  for (const TensorSpec& t : tensors(odd_spec())) EXPECT_TRUE(shapes.emplace(t.name, t.shape).second) << t.name;
  using Shape = std::vector<std::int64_t>;
  EXPECT_EQ(shapes.at("embed.weight"), (Shape{50, 6}));
  EXPECT_FALSE(shapes.contains("levels.1.chunker.weight"));  // concat
  EXPECT_EQ(shapes.at("levels.2.chunker.weight"), (Shape{24, 5 * 18}));
  EXPECT_EQ(shapes.at("levels.3.chunker.weight"), (Shape{12, 2 * 24}));
  EXPECT_EQ(shapes.at("levels.1.converter.weight"), (Shape{2 * 10, 18}));
  EXPECT_EQ(shapes.at("levels.2.converter.weight"), (Shape{4 * 18, 24}));
  EXPECT_EQ(shapes.at("levels.3.converter.weight"), (Shape{1 * 24, 12}));
  EXPECT_EQ(shapes.at("levels.1.content_proj.weight"), (Shape{10, 6}));
  EXPECT_FALSE(shapes.contains("levels.2.content_proj.weight"));  // D_1 = E_2
  EXPECT_EQ(shapes.at("levels.1.decoder.layers.1.attn.q.weight"), (Shape{104, 10}));
  EXPECT_EQ(shapes.at("levels.1.decoder.layers.1.attn.k.weight"), (Shape{52, 10}));
  EXPECT_EQ(shapes.at("levels.1.decoder.layers.1.attn.v.weight"), (Shape{52, 10}));
  EXPECT_EQ(shapes.at("levels.1.decoder.layers.1.attn.o.weight"), (Shape{10, 104}));
  EXPECT_EQ(shapes.at("levels.2.encoder.layers.1.mlp.gate.weight"), (Shape{8, 24}));
  EXPECT_EQ(shapes.at("levels.2.encoder.layers.1.mlp.up.weight"), (Shape{8, 24}));
  EXPECT_EQ(shapes.at("levels.2.encoder.layers.1.mlp.down.weight"), (Shape{24, 8}));
  EXPECT_EQ(shapes.at("levels.2.encoder.layers.1.attn_norm.weight"), (Shape{24}));
  EXPECT_EQ(shapes.at("levels.2.encoder.layers.1.mlp_norm.weight"), (Shape{24}));
  EXPECT_EQ(shapes.at("levels.3.encoder.norm.weight"), (Shape{12}));
  EXPECT_EQ(shapes.at("start.weight"), (Shape{12}));
  EXPECT_EQ(shapes.at("lm_head.weight"), (Shape{50, 10}));
  // embed, start, lm_head, 2 chunkers, 3 converters, 1 projection, 6 final norms, 9 tensors in each of 10 layers
  EXPECT_EQ(shapes.size(), 3u + 2 + 3 + 1 + 6 + 9 * 10);
}

TEST(Spec, TensorsOfAVanillaModel) {
  const auto list = tensors(vanilla_spec());
  EXPECT_EQ(list.size(), 1u + 2 * 9 + 1);  // tied: no lm_head
  EXPECT_EQ(list[3], (TensorSpec{"trunk.layers.0.attn.k.weight", {3, 8}}));
  EXPECT_EQ(list.back(), (TensorSpec{"trunk.norm.weight", {8}}));
}

TEST(TensorNames, SayWhereTheirTensorsAre) {
  const auto expect = [](const char* name, std::int64_t level, const char* stack, const char* kind, const char* part) {
    const names::Place place = names::place_of(name);
    EXPECT_EQ(place.level, level) << name;
    EXPECT_EQ(place.stack, stack) << name;
    EXPECT_EQ(place.kind, kind) << name;
    EXPECT_EQ(names::part_of(name), part);
  };
  expect("embed.weight", 0, "", "embed", "embed");
  expect("levels.1.converter.weight", 1, "", "converter", "level 1 converter");
  expect("levels.12.encoder.layers.34.attn.q.weight", 12, "encoder", "attn.q", "level 12 encoder");
  expect("levels.1.decoder.layers.0.mlp_norm.weight", 1, "decoder", "mlp_norm", "level 1 decoder");
  expect("trunk.layers.3.mlp.down.weight_scale", 0, "trunk", "mlp.down", "trunk");
  expect("trunk.norm.weight", 0, "trunk", "norm", "trunk");
  for (const char* strange : {"", ".", "levels", "levels.", "levels.x.encoder.", "encoder.layers.", "trunk.layers"})
    names::place_of(strange);
}

// The list is checked above; here, that a name knows where the list has it from.
TEST(TensorNames, FindTheirStack) {
  const Spec spec = odd_spec();
  EXPECT_EQ(names::stack_of(names::place_of(names::Level(2).decoder.layer(1).o), spec), &spec.level(2).decoder);
  EXPECT_EQ(names::stack_of(names::place_of(names::Level(3).encoder.norm), spec), &spec.level(3).encoder);
  EXPECT_EQ(names::stack_of(names::place_of(names::Level(3).converter), spec), nullptr);
  EXPECT_EQ(names::stack_of(names::place_of(names::trunk().norm), spec), nullptr);
  EXPECT_EQ(names::stack_of(names::place_of("levels.4.encoder.norm.weight"), spec), nullptr);
  for (const TensorSpec& tensor : tensors(spec))
    EXPECT_EQ(names::is_norm(tensor.name), tensor.shape.size() == 1 && tensor.name != names::start) << tensor.name;
  for (const TensorSpec& tensor : tensors(exact_spec())) {
    EXPECT_EQ(names::is_norm(tensor.name) || names::is_bias(tensor.name), tensor.shape.size() == 1) << tensor.name;
    EXPECT_FALSE(names::is_norm(tensor.name) && names::is_bias(tensor.name)) << tensor.name;
  }
  EXPECT_EQ(names::part_of(names::Level(2).chunker_norm), "level 2 chunker");
  EXPECT_EQ(names::part_of(names::Level(2).chunker_bias), "level 2 chunker");
  EXPECT_EQ(names::part_of(names::decoder_embed), "decoder_embed");
}

Spec remembering() {
  Spec spec = odd_spec();
  spec.levels[0].decoder.memory = {{.context = 2, .n_kv_heads = 1, .layers = {0}, .recency = true},
                                   {.kind = MemorySpec::Kind::units, .n_kv_heads = 1, .layers = {0}}};
  return spec;
}

TEST(Memory, RoundTripsAsOneObjectOrAListOfTwo) {
  Spec spec = remembering();
  EXPECT_EQ(problems(spec), std::vector<std::string>());
  EXPECT_EQ(parse_spec(to_json(spec), "config.json"), spec);
  spec.levels[0].decoder.memory.pop_back();
  EXPECT_EQ(parse_spec(to_json(spec), "config.json"), spec);
  EXPECT_NE(to_json(spec).find("\"memory\": {"), std::string::npos);
}

TEST(Memory, EveryProblemIsNamedWithItsPlaceAllAtOnce) {
  Spec spec = remembering();
  auto& memory = spec.levels[0].decoder.memory;
  const std::int64_t layers = spec.levels[0].decoder.n_layers, heads = spec.levels[0].decoder.n_heads;
  memory[0] = {.context = 0, .n_kv_heads = heads + 1, .layers = {layers}, .rope = true};
  memory[1] = {.kind = MemorySpec::Kind::text, .context = 65, .n_kv_heads = 0, .layers = {}};
  spec.levels[0].encoder.memory = {{.context = 1, .n_kv_heads = 1, .layers = {0}}};
  const auto found = problems(spec);
  const std::string all = fmt::format("{}", fmt::join(found, "\n"));
  for (const std::string& part :
       {std::string("level 1 decoder memory: context is 0, must be 1 to 64"),
        std::string("level 1 decoder memory: rope needs kind \"units\": keys of text know no positions"),
        fmt::format("n_kv_heads {} does not divide the stack's n_heads {}", heads + 1, heads),
        fmt::format("layers names block {}, the stack has blocks 0 to {}", layers, layers - 1),
        std::string("layers names no block"), std::string("may be given once of each kind"),
        std::string("level 1 encoder: memory does not fit here")})
    EXPECT_NE(all.find(part), std::string::npos) << part << " in\n" << all;
}

TEST(Memory, UnitsNeedALevelAndTextNoRope) {
  Spec spec = remembering();
  spec.trunk = spec.levels[0].decoder;
  spec.trunk->span = {};
  spec.levels.clear();
  spec.d_embed = spec.trunk->d_model;
  spec.trunk->memory = {{.kind = MemorySpec::Kind::units, .n_kv_heads = 1, .layers = {0}, .recency = true}};
  EXPECT_EQ(problems(spec),
            (std::vector<std::string>{"trunk memory: recency needs kind \"text\"",
                                      "trunk memory: kind \"units\" needs a level: a trunk has no units"}));
}

TEST(Memory, TensorsLieBesideTheStack) {
  const Spec spec = remembering();
  const StackSpec& s = spec.levels[0].decoder;
  std::map<std::string, std::vector<std::int64_t>> found;
  for (const TensorSpec& tensor : tensors(spec))
    if (tensor.name.find("memory") != std::string::npos) found[tensor.name] = tensor.shape;
  const std::int64_t E = spec.token_width(), D = spec.width(spec.n_levels()), h = s.head_dim;
  EXPECT_EQ(found,
            (std::map<std::string, std::vector<std::int64_t>>{{"levels.1.memory.text.norm.weight", {E}},
                                                              {"levels.1.memory.text.k.weight", {2 * h, E}},
                                                              {"levels.1.memory.text.v.weight", {h, E}},
                                                              {"levels.1.memory.text.offset.weight", {s.n_heads}},
                                                              {"levels.1.memory.text.recency.weight", {s.n_heads}},
                                                              {"levels.1.memory.units.norm.weight", {D}},
                                                              {"levels.1.memory.units.k.weight", {h, D}},
                                                              {"levels.1.memory.units.v.weight", {h, D}},
                                                              {"levels.1.memory.units.offset.weight", {s.n_heads}}}));
}

TEST(Spec, SpansPrintTheirSize) {
  EXPECT_EQ(to_string(Span{window, 16}), "window(16)");
  EXPECT_EQ(to_string(Span{block, 4}), "block(4)");
  EXPECT_EQ(to_string(Span{stream, 64}), "stream(64)");
  EXPECT_EQ(to_string(Span{chunk, 0}), "chunk");
  EXPECT_EQ(to_string(Span{}), "global");
}

}  // namespace
}  // namespace photon
