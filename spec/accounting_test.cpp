// Properties of spec/accounting.h: the reference table, counts from first principles, and bounds on odd specs.
#include "spec/accounting.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>

namespace photon {
namespace {

using enum Span::Kind;
using enum Protocol;

Spec config(const std::string& name) { return load_spec(PHOTON_SOURCE_DIR "/configs/" + name + ".json"); }

// L = 3, C = (3,5,2), grouped queries, D_0 and E_1 unlike the rest; spans by choice.
Spec odd_spec(Span encoder_1, Span encoder_2, Span decoders) {
  Spec spec;
  spec.vocab_size = 50, spec.d_embed = 6;
  spec.levels = {{3, 2, Chunker::concat, {18, 1, 4, 2, 5, 7, 1e4, encoder_1}, {10, 2, 2, 1, 52, 9, 1e4, decoders}},
                 {5, 4, Chunker::linear, {24, 2, 6, 3, 3, 8, 1e4, encoder_2}, {18, 1, 4, 2, 5, 7, 1e4, decoders}},
                 {2, 1, Chunker::linear, {12, 3, 1, 1, 7, 5, 1e4, {global, 0}}, {24, 1, 2, 2, 4, 3, 1e4, decoders}}};
  EXPECT_TRUE(problems(spec).empty());
  return spec;
}
// With biases, norms and a second table.
Spec exact_spec(Span decoders) {
  Spec spec = odd_spec({window, 6}, {global, 0}, decoders);
  spec.decoder_embedding = true, spec.learned_start = false;
  for (LevelSpec& level : spec.levels) level.converter_bias = true;
  spec.levels[1].chunker_bias = spec.levels[2].chunker_bias = spec.levels[2].chunker_norm = true;
  EXPECT_TRUE(problems(spec).empty());
  return spec;
}
Spec windowed_vanilla(std::int64_t size) {
  Spec spec = config("vanilla-8m");
  spec.trunk->span = {window, size};
  return spec;
}
std::vector<Spec> odd_specs() {
  std::vector<Spec> specs{config("vanilla-8m"), windowed_vanilla(50), config("block-8m")};
  for (const Span encoder : {Span{global, 0}, Span{window, 6}, Span{block, 5}})
    for (const Span decoder : {Span{chunk, 0}, Span{stream, 11}}) specs.push_back(odd_spec(encoder, encoder, decoder));
  specs.push_back(odd_spec({window, 6}, {global, 0}, {chunk, 0}));
  for (const Span decoder : {Span{chunk, 0}, Span{stream, 11}}) specs.push_back(exact_spec(decoder));
  specs.push_back(config("paper/block-600m"));
  return specs;
}

std::string megabytes(double bytes) { return fmt::format("{:.4g} MB", bytes / 1e6); }
std::string millions(double n) { return fmt::format("{:.1f} M", n / 1e6); }

TEST(Accounting, ReproducesTheReferenceTable) {
  const Spec vanilla = config("vanilla-600m"), block_transformer = config("block-600m"), photon = config("photon-600m");
  EXPECT_EQ(count_parameters(vanilla).total, 610'915'968);
  EXPECT_EQ(count_parameters(block_transformer).total, 582'751'104);
  EXPECT_EQ(count_parameters(photon).total, 604'905'600);

  EXPECT_EQ(kv_bytes_per_token(vanilla, hiergen, DType::bf16), 106'496);
  EXPECT_EQ(kv_bytes_per_token(block_transformer, hiergen, DType::bf16), 13'312);
  EXPECT_EQ(kv_bytes_per_token(photon, hiergen, DType::bf16), 8'320);
  EXPECT_EQ(kv_bytes_per_token(photon, recgen, DType::bf16), 1'664);
  EXPECT_EQ(106'496 / 13'312.0, 8);
  EXPECT_EQ(106'496 / 8'320.0, 12.8);
  EXPECT_EQ(106'496 / 1'664.0, 64);

  const std::int64_t T = 2048;
  const double read = kv_bytes_read(vanilla, hiergen, T, DType::bf16).growing;
  const double block_read = kv_bytes_read(block_transformer, hiergen, T, DType::bf16).growing;
  const double hiergen_read = kv_bytes_read(photon, hiergen, T, DType::bf16).growing;
  const double recgen_read = kv_bytes_read(photon, recgen, T, DType::bf16).growing;
  EXPECT_EQ(read, 218'103'808);
  EXPECT_EQ(block_read, 6'815'744);
  EXPECT_EQ(hiergen_read, 3'620'864);
  EXPECT_EQ(recgen_read, 212'992);
  EXPECT_EQ(megabytes(read), "218.1 MB");
  EXPECT_EQ(fmt::format("{:.1f} {:.2f} {:.3f}", block_read / 1e6, hiergen_read / 1e6, recgen_read / 1e6),
            "6.8 3.62 0.213");
  EXPECT_EQ(read / block_read, 32);
  EXPECT_EQ(fmt::format("{:.1f}", read / hiergen_read), "60.2");
  EXPECT_EQ(read / recgen_read, 1024);

  const double weights = weights_read_per_token(vanilla, hiergen);
  const double hiergen_weights = weights_read_per_token(photon, hiergen);
  const double recgen_weights = weights_read_per_token(photon, recgen);
  EXPECT_EQ(millions(weights), "557.7 M");
  EXPECT_EQ(millions(hiergen_weights), "254.4 M");
  EXPECT_EQ(millions(recgen_weights), "86.3 M");
  EXPECT_EQ(fmt::format("{:.2f} {:.2f}", weights / hiergen_weights, weights / recgen_weights), "2.19 6.46");

  EXPECT_EQ(fmt::format("{:.1f}", prefill_flops(vanilla, T).matmul / prefill_flops(photon, T).matmul), "12.6");
}

TEST(Accounting, ThePapersModelsHaveTheReferenceCachesAndNearlyItsTraffic) {
  for (const char* name : {"vanilla-600m", "block-600m", "photon-600m"})
    for (const Protocol protocol : {hiergen, recgen}) {
      const Spec paper = config(std::string("paper/") + name), ours = config(name);
      EXPECT_EQ(kv_bytes_per_token(paper, protocol, DType::bf16), kv_bytes_per_token(ours, protocol, DType::bf16));
      EXPECT_EQ(kv_bytes_read(paper, protocol, 2048, DType::bf16).growing,
                kv_bytes_read(ours, protocol, 2048, DType::bf16).growing);
    }
  // R = 2: a chunk costs five positions in a decoder.
  const Spec paper = config("paper/photon-600m");
  EXPECT_EQ(kv_bytes_constant(paper, hiergen, DType::bf16), 2 * 5 * 4 * 4 * 1664);
  EXPECT_EQ(matching_vanilla(paper).n_levels(), 0);
  EXPECT_TRUE(problems(matching_vanilla(paper)).empty());
}

TEST(Accounting, TheVanillaModelOfEqualSizeIsTheReferenceOne) {
  EXPECT_EQ(matching_vanilla(config("photon-600m")), config("vanilla-600m"));
  EXPECT_EQ(matching_vanilla(config("vanilla-8m")), config("vanilla-8m"));
  EXPECT_EQ(matching_vanilla(windowed_vanilla(64)), config("vanilla-8m"));
  for (const Spec& spec : odd_specs()) {
    const Spec vanilla = matching_vanilla(spec);
    EXPECT_TRUE(problems(vanilla).empty());
    // No other number of layers comes nearer.
    const auto distance = [&](std::int64_t layers) {
      Spec other = vanilla;
      other.trunk->n_layers = layers;
      return std::abs(count_parameters(other).total - count_parameters(spec).total);
    };
    const std::int64_t layers = vanilla.trunk->n_layers;
    EXPECT_LE(distance(layers), distance(layers + 1));
    if (layers > 1) {
      EXPECT_LE(distance(layers), distance(layers - 1));
    }
  }
}

TEST(Accounting, PartsAddUpToTheTotal) {
  for (const Spec& spec : odd_specs()) {
    const Parameters count = count_parameters(spec);
    std::int64_t sum = count.embedding + count.head, elements = 0;
    for (const auto& [part, n] : count.parts) sum += n;
    for (const TensorSpec& tensor : tensors(spec)) {
      std::int64_t n = 1;
      for (const std::int64_t size : tensor.shape) n *= size;
      elements += n;
    }
    EXPECT_EQ(sum, count.total);
    EXPECT_EQ(elements, count.total);
  }
  const auto parts = count_parameters(odd_spec({window, 6}, {block, 5}, {chunk, 0})).parts;
  std::vector<std::string> names;
  for (const auto& [part, n] : parts) names.push_back(part);
  EXPECT_EQ(names, (std::vector<std::string>{"level 1 encoder", "level 2 chunker", "level 2 encoder", "level 3 chunker",
                                             "level 3 encoder", "start", "level 3 converter", "level 3 decoder",
                                             "level 2 converter", "level 2 decoder", "level 1 converter",
                                             "level 1 content_proj", "level 1 decoder"}));
  names.clear();
  for (const auto& [part, n] : count_parameters(config("paper/photon-600m")).parts) {
    names.push_back(part);
    if (part.ends_with("converter")) {
      EXPECT_EQ(n, 5'541'120);
    }
    if (part == "level 2 chunker") {
      EXPECT_EQ(n, 11'083'904);
    }
  }
  EXPECT_EQ(names,
            (std::vector<std::string>{"level 1 encoder", "level 2 chunker", "level 2 encoder", "level 2 converter",
                                      "level 2 decoder", "level 1 converter", "decoder_embed", "level 1 decoder"}));
}

// How often a generation schedule touches a tensor in one top-level group: rows that it multiplies, times it is read.
struct Use {
  std::int64_t rows = 0, reads = 0;
};
// Walks docs/architecture.md §3 step by step for one top-level group, keyed by the tensor's prefix.
std::map<std::string, Use> schedule(const Spec& spec, Protocol protocol) {
  std::map<std::string, Use> uses;
  const auto touch = [&](const std::string& prefix, std::int64_t rows) {
    uses[prefix].rows += rows, uses[prefix].reads += 1;
  };
  if (spec.trunk) {
    touch("trunk.", 1);
    touch("lm_head.", 1);
    return uses;
  }
  const std::int64_t L = spec.n_levels(), top = spec.group_tokens();
  for (std::int64_t l = 1; l <= L; ++l) {
    const LevelSpec& level = spec.level(l);
    const std::string prefix = fmt::format("levels.{}.", l);
    const std::int64_t groups = top / spec.chunk_tokens(l);
    const bool is_stream = level.decoder.span.kind == stream;
    for (std::int64_t g = 0; g < groups; ++g)
      if (protocol == hiergen || l == L) touch(prefix + "chunker.", 1), touch(prefix + "encoder.", 1);
    const std::int64_t at_once = protocol == recgen && !is_stream ? groups : 1;
    for (std::int64_t g = 0; g < groups; g += at_once) {
      touch(prefix + "converter.", at_once);
      for (std::int64_t slot = 1; slot <= level.chunk_size; ++slot) {
        // The first step takes the prefix; in a stream also the last content of the group before.
        const std::int64_t prefix_rows = slot == 1 ? level.converter_len : 0;
        const std::int64_t content_rows = slot > 1 || is_stream ? 1 : 0;
        touch(prefix + "decoder.", at_once * (prefix_rows + content_rows));
        if (content_rows > 0) touch(prefix + "content_proj.", at_once);
        if (l == 1) touch("lm_head.", at_once);
      }
    }
  }
  return uses;
}

TEST(Accounting, WorkAndWeightTrafficFollowTheScheduleTensorByTensor) {
  for (const Spec& spec : odd_specs())
    for (const Protocol protocol : {hiergen, recgen}) {
      const auto uses = schedule(spec, protocol);
      double flops = 0, reads = 0;
      for (const TensorSpec& tensor : tensors(spec)) {
        double elements = 1;
        for (const std::int64_t n : tensor.shape) elements *= static_cast<double>(n);
        for (const auto& [prefix, use] : uses) {
          if (!tensor.name.starts_with(prefix)) continue;
          if (tensor.shape.size() == 2) flops += 2 * elements * static_cast<double>(use.rows);
          if (prefix != "levels.1.content_proj.") reads += elements * static_cast<double>(use.reads);
        }
      }
      const auto tokens = static_cast<double>(spec.group_tokens());
      EXPECT_NEAR(decode_flops(spec, protocol, 1000).matmul, flops / tokens, 1e-9 * flops) << to_json(spec);
      EXPECT_NEAR(weights_read_per_token(spec, protocol), reads / tokens, 1e-9 * reads) << to_json(spec);
      if (protocol == hiergen) {
        EXPECT_EQ(training_flops(spec, 1000).matmul, decode_flops(spec, hiergen, 1000).matmul);
      }
    }
}

// Mean attended positions of a stack's rows, counted one by one over a sequence of T tokens.
double counted_attention_flops(const Spec& spec, std::int64_t T) {
  double flops = 0;
  const auto row = [&](const StackSpec& s, std::int64_t positions) {
    flops += 4.0 * static_cast<double>(s.n_layers * s.n_heads * s.head_dim * positions);
  };
  const auto encoder_row = [&](const StackSpec& s, std::int64_t i) {
    row(s, s.span.kind == window ? std::min(i + 1, s.span.size) : s.span.kind == block ? i % s.span.size + 1 : i + 1);
  };
  if (spec.trunk)
    for (std::int64_t i = 0; i < T; ++i) encoder_row(*spec.trunk, i);
  for (std::int64_t l = 1; l <= spec.n_levels(); ++l) {
    const LevelSpec& level = spec.level(l);
    const Span decoder = level.decoder.span;
    const std::int64_t M = T / spec.chunk_tokens(l);
    for (std::int64_t i = 0; i < M; ++i) encoder_row(level.encoder, i);
    const std::int64_t rows = level.converter_len + level.chunk_size - (decoder.kind == chunk ? 1 : 0);
    for (std::int64_t i = 0; i < M * rows; ++i)
      row(level.decoder, decoder.kind == chunk ? i % rows + 1 : std::min(i + 1, decoder.size));
  }
  return flops / static_cast<double>(T);
}

TEST(Accounting, AttentionOfATrainingSequenceIsCountedRowByRow) {
  for (const Spec& spec : odd_specs())
    for (const std::int64_t T : {60, 2400}) {  // whole groups of every spec; within and far beyond the spans
      const double counted = counted_attention_flops(spec, T);
      EXPECT_NEAR(training_flops(spec, T).attention, counted, 1e-9 * counted) << to_json(spec);
    }
}

TEST(Accounting, CachesOfAKnownModelToTheByte) {
  const Spec spec = odd_spec({window, 6}, {global, 0}, {chunk, 0});
  // Bytes a position in f32: 8·layers·kv_heads·head_dim.
  const std::int64_t enc_1 = 8 * 1 * 2 * 5, enc_2 = 8 * 2 * 3 * 3, enc_3 = 8 * 3 * 1 * 7;
  const std::int64_t dec_1 = 8 * 2 * 1 * 52, dec_2 = 8 * 1 * 2 * 5, dec_3 = 8 * 1 * 2 * 4;
  EXPECT_EQ(kv_bytes_constant(spec, hiergen, DType::f32), 6 * enc_1 + 4 * dec_1 + 8 * dec_2 + 2 * dec_3);
  EXPECT_EQ(kv_bytes_constant(spec, recgen, DType::f32), 10 * 4 * dec_1 + 2 * 8 * dec_2 + 2 * dec_3);
  // 489 tokens are 32 units of level 2, two whole pages, and 16 of level 3; 495 and 510 begin a further page.
  EXPECT_EQ(units_held(spec, 2, 489), 32);
  EXPECT_EQ(kv_bytes_allocated(spec, hiergen, 489, DType::f32),
            kv_bytes_constant(spec, hiergen, DType::f32) + 32 * enc_2 + 16 * enc_3);
  EXPECT_EQ(kv_bytes_allocated(spec, hiergen, 495, DType::f32),
            kv_bytes_constant(spec, hiergen, DType::f32) + 48 * enc_2 + 16 * enc_3);
  EXPECT_EQ(kv_bytes_allocated(spec, recgen, 510, DType::f32),
            kv_bytes_constant(spec, recgen, DType::f32) + 32 * enc_3);
  EXPECT_EQ(kv_bytes_allocated(spec, recgen, 0, DType::f32), kv_bytes_constant(spec, recgen, DType::f32));
  EXPECT_EQ(kv_bytes_allocated(spec, hiergen, 495, DType::bf16) * 2,
            kv_bytes_allocated(spec, hiergen, 495, DType::f32));

  const Spec streams = odd_spec({block, 5}, {block, 2}, {stream, 11});
  EXPECT_EQ(kv_bytes_constant(streams, hiergen, DType::f32), 5 * enc_1 + 2 * enc_2 + 11 * (dec_1 + dec_2 + dec_3));
  EXPECT_EQ(kv_bytes_constant(streams, recgen, DType::f32), 11 * (dec_1 + dec_2 + dec_3));

  const Spec vanilla = config("vanilla-8m");  // the bos takes a position
  EXPECT_EQ(kv_bytes_allocated(vanilla, hiergen, 15, DType::bf16), 16 * 8192);
  EXPECT_EQ(kv_bytes_allocated(vanilla, hiergen, 16, DType::bf16), 32 * 8192);
  const Spec windowed = windowed_vanilla(50);  // a ring, whole from the start
  EXPECT_EQ(kv_bytes_per_token(windowed, hiergen, DType::bf16), 0);
  for (const std::int64_t T : {0, 49, 50, 5000}) {
    EXPECT_EQ(kv_bytes_allocated(windowed, hiergen, T, DType::bf16), 50 * 8192);
    EXPECT_EQ(kv_bytes_filled(windowed, hiergen, T, DType::bf16), 0);
    EXPECT_EQ(kv_bytes_read(windowed, hiergen, T, DType::bf16).total(),
              static_cast<double>(std::min<std::int64_t>(T, 50)) * 8192);
  }
}

TEST(Accounting, ContinuationsShareWhatTheirPromptHasFilled) {
  const Spec spec = odd_spec({window, 6}, {global, 0}, {chunk, 0});
  const std::int64_t enc_2 = 8 * 2 * 3 * 3, enc_3 = 8 * 3 * 1 * 7;
  const std::int64_t exact = kv_bytes_constant(spec, hiergen, DType::f32);
  const std::int64_t recursive = kv_bytes_constant(spec, recgen, DType::f32);
  EXPECT_EQ(kv_bytes_filled(spec, hiergen, 479, DType::f32), 16 * enc_2);  // 31 units of level 2, 15 of level 3
  EXPECT_EQ(kv_bytes_filled(spec, hiergen, 480, DType::f32), 32 * enc_2 + 16 * enc_3);
  EXPECT_EQ(kv_bytes_filled(spec, recgen, 480, DType::f32), 16 * enc_3);
  const auto at_most = [&](Protocol protocol, std::int64_t n_prompt, std::int64_t n_tokens, std::int64_t n) {
    return kv_bytes_at_most(spec, protocol, n_prompt, n_tokens, n, DType::f32);
  };
  EXPECT_EQ(at_most(hiergen, 479, 16, 1), kv_bytes_allocated(spec, hiergen, 495, DType::f32));
  // 33 units of level 2, 16 of level 3: each has its own last page, and of the prompt's the one that was not full.
  EXPECT_EQ(at_most(hiergen, 479, 16, 5), 16 * enc_2 + 5 * (exact + 32 * enc_2 + 16 * enc_3));
  // Tokens 480 … 510 are whole groups; level 2 goes on to 480 only.
  EXPECT_EQ(at_most(recgen, 479, 16, 5), 16 * enc_2 + 5 * (std::max(exact, recursive) + 16 * enc_2 + 32 * enc_3));
  EXPECT_EQ(at_most(hiergen, 479, 16, std::int64_t{1} << 60), std::numeric_limits<std::int64_t>::max());
}

TEST(Accounting, AllocationGrowsWithTheContextAndNeverByMoreThanAPageAStack) {
  for (const Spec& spec : odd_specs())
    for (const Protocol protocol : {hiergen, recgen}) {
      const auto constant = static_cast<double>(kv_bytes_constant(spec, protocol, DType::bf16));
      std::int64_t before = 0;
      for (std::int64_t T = 0; T < 1000; T += 7) {
        const std::int64_t now = kv_bytes_allocated(spec, protocol, T, DType::bf16);
        EXPECT_GE(now, before);
        before = now;
        const double used = constant + kv_bytes_per_token(spec, protocol, DType::bf16) * static_cast<double>(T);
        double page = 0;
        if (spec.trunk)
          page += static_cast<double>((kv_page_units + 1) * kv_bytes_per_position(*spec.trunk, DType::bf16));
        for (std::int64_t l = 1; l <= spec.n_levels(); ++l)
          page += static_cast<double>(kv_page_units * kv_bytes_per_position(spec.level(l).encoder, DType::bf16));
        EXPECT_NEAR(static_cast<double>(now), used, page) << T;
      }
    }
}

TEST(Accounting, TheLargestCachesStayWithinInt64) {
  const StackSpec widest{1, max_layers, 1 << 20, 1 << 20, 1, 1, 1e4, {}};
  Spec spec;
  spec.vocab_size = 3, spec.d_embed = 1;
  spec.levels.assign(max_levels, {4, 1024, Chunker::linear, widest, widest});
  for (LevelSpec& level : spec.levels) {
    level.decoder.span = {chunk, 0};
    if (&level != &spec.levels.back()) level.encoder.span = {window, 1 << 24};
  }
  ASSERT_EQ(problems(spec), std::vector<std::string>{});
  EXPECT_GT(kv_bytes_allocated(spec, hiergen, max_context, DType::f32), 7 * (std::int64_t{1} << 57));  // seven windows
  EXPECT_GT(kv_bytes_allocated(spec, recgen, max_context, DType::f32), std::int64_t{1} << 57);  // thousands of chunks
  const Spec vanilla = matching_vanilla(spec);
  EXPECT_EQ(vanilla.trunk->n_layers, max_layers);
  EXPECT_EQ(static_cast<double>(kv_bytes_allocated(vanilla, hiergen, max_context - 1, DType::f32)), 0x1p26 * 0x1p33);
}

TEST(Accounting, RecgenNeverCostsMoreThanHiergenExceptInConstantMemory) {
  for (const Spec& spec : odd_specs()) {
    const std::int64_t T = 3000;
    EXPECT_LE(kv_bytes_per_token(spec, recgen, DType::bf16), kv_bytes_per_token(spec, hiergen, DType::bf16));
    EXPECT_LE(kv_bytes_read(spec, recgen, T, DType::bf16).total(),
              kv_bytes_read(spec, hiergen, T, DType::bf16).total());
    EXPECT_LE(weights_read_per_token(spec, recgen), weights_read_per_token(spec, hiergen));
    EXPECT_LE(decode_flops(spec, recgen, T).total(), decode_flops(spec, hiergen, T).total());
    if (spec.n_levels() <= 1) {  // where the two are one
      EXPECT_EQ(kv_bytes_allocated(spec, recgen, T, DType::bf16), kv_bytes_allocated(spec, hiergen, T, DType::bf16));
      EXPECT_EQ(weights_read_per_token(spec, recgen), weights_read_per_token(spec, hiergen));
    }
  }
}

TEST(Accounting, BoundedSpansBelowTheTopGiveHiergenTheMemoryGrowthOfRecgen) {
  const Spec bounded = odd_spec({window, 6}, {block, 5}, {stream, 11});
  EXPECT_EQ(kv_bytes_per_token(bounded, hiergen, DType::bf16), kv_bytes_per_token(bounded, recgen, DType::bf16));
  EXPECT_EQ(kv_bytes_read(bounded, hiergen, 9000, DType::bf16).growing,
            kv_bytes_read(bounded, recgen, 9000, DType::bf16).growing);
  EXPECT_EQ(kv_bytes_read(bounded, hiergen, 9000, DType::bf16).bounded,
            kv_bytes_read(bounded, hiergen, 90000, DType::bf16).bounded);
}

TEST(Accounting, ProtocolsParseAsTheyPrint) {
  for (const Protocol protocol : {hiergen, recgen}) EXPECT_EQ(parse_protocol(to_string(protocol)), protocol);
  EXPECT_THROW(parse_protocol("RecGen"), InputError);
}

}  // namespace
}  // namespace photon
