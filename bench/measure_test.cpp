#include "bench/measure.h"

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"
#include "engine/models_testing.h"

namespace photon {
namespace {

constexpr std::uint64_t bench_seed = 7;

ModelBench bench_of(const Spec& spec, std::uint64_t seed_of_run = bench_seed) {
  return ModelBench(random_model(spec, {.weights = DType::f32, .kv = DType::f32}, seed_of_run), seed_of_run);
}

class Decoding : public testing::TestWithParam<NamedSpec> {};

TEST_P(Decoding, CountsTokensAndHoldsTheKvBytesOfTheAccounting) {
  const Spec& spec = GetParam().spec;
  ModelBench bench = bench_of(spec);
  const std::int64_t group = whole_groups(spec, 1);
  for (const Protocol protocol : {Protocol::hiergen, Protocol::recgen})
    for (const std::int64_t groups_before : {0, 2}) {
      if (protocol == Protocol::recgen && spec.n_levels() < 1) continue;
      const Workload workload{
          .protocol = protocol, .streams = 3, .context = groups_before * group, .tokens = 2 * group};
      const Sample sample = bench.decode(workload);
      EXPECT_EQ(sample.tokens, 3 * 2 * group);
      EXPECT_EQ(sample.kv_bytes,
                3 * kv_bytes_allocated(spec, protocol, workload.context + workload.tokens, DType::f32));
      EXPECT_GT(sample.seconds, 0);
      EXPECT_GT(sample.kv.bytes_read, 0);
      EXPECT_GT(sample.kv.bytes_written, 0);
      EXPECT_GT(sample.work.weight_bytes_read, 0);
      EXPECT_EQ(sample.logits_hash.size(), 16u);
    }
}

TEST_P(Decoding, IsTheSameInEverySampleAndOtherwiseForAnotherSeed) {
  const Workload workload{.streams = 2, .context = 2 * whole_groups(GetParam().spec, 1), .tokens = 4};
  ModelBench bench = bench_of(GetParam().spec), other = bench_of(GetParam().spec, bench_seed + 1);
  const std::string hash = bench.decode(workload).logits_hash;
  EXPECT_EQ(bench.decode(workload).logits_hash, hash);
  EXPECT_NE(other.decode(workload).logits_hash, hash);
}

// Prompts are made from shorter ones, in any order of asking.
TEST_P(Decoding, DoesNotDependOnOtherPrompts) {
  ModelBench alone = bench_of(GetParam().spec), among_others = bench_of(GetParam().spec);
  const Workload workload{.streams = 1, .context = 33, .tokens = 4};
  for (const std::int64_t context : {50, 5, 20}) among_others.prepare({.context = context});
  EXPECT_EQ(among_others.decode(workload).logits_hash, alone.decode(workload).logits_hash);
}

INSTANTIATE_TEST_SUITE_P(TinySpecs, Decoding, testing::ValuesIn(tiny_specs()),
                         [](const auto& spec) { return spec.param.name; });

TEST(ModelBench, StreamsShareNoPage) {
  ModelBench bench = bench_of(tiny_spec("vanilla"));
  const Workload workload{.streams = 4, .context = 100, .tokens = 1};
  const Sample sample = bench.decode(workload);
  EXPECT_GE(bench.pool().peak_bytes(), sample.kv_bytes);
  // Beside them there is no more than the prompt, whose pages but the last one the first stream shares.
  EXPECT_LE(bench.pool().bytes_in_use(), sample.kv_bytes / 4);
}

// The streams of one sample see the same prompt, but for the staggered ones, which have seen more of it.
TEST(ModelBench, StaggeredStreamsStandAtDifferentPlacesOfAGroup) {
  const Spec spec = tiny_spec("paper");
  ModelBench bench = bench_of(spec);
  const auto kv_bytes = [&](std::int64_t T) { return kv_bytes_allocated(spec, Protocol::hiergen, T, DType::f32); };
  const std::int64_t group = whole_groups(spec, 1);
  ASSERT_EQ(group, 16);
  // Four streams, 0, 4, 8 and 12 tokens further; level 1 fills its pages of 16 units at 64 · i.
  const Workload workload{.streams = 4, .context = 48, .tokens = 16, .phases = Phases::staggered};
  EXPECT_EQ(bench.decode(workload).kv_bytes, kv_bytes(64) + kv_bytes(68) + kv_bytes(72) + kv_bytes(76));
  ASSERT_NE(kv_bytes(64), kv_bytes(68));
}

TEST(ModelBench, PrefillGoesOnFromTheContext) {
  for (const NamedSpec& named : tiny_specs()) {
    ModelBench bench = bench_of(named.spec);
    const Sample whole = bench.prefill({.context = 0, .tokens = 37});
    const Sample rest = bench.prefill({.streams = 2, .context = 20, .tokens = 17});
    EXPECT_EQ(whole.tokens, 37);
    EXPECT_EQ(rest.tokens, 2 * 17);
    EXPECT_EQ(whole.kv_bytes, kv_bytes_allocated(named.spec, Protocol::hiergen, 37, DType::f32)) << named.name;
    EXPECT_EQ(rest.kv_bytes, 2 * whole.kv_bytes) << named.name;
    EXPECT_EQ(rest.logits_hash, whole.logits_hash) << named.name;  // of the token after 37
  }
}

TEST(ModelBench, PrefillUnderRecgenGivesTheLowerEncodersCachesBack) {
  const Spec spec = tiny_spec("paper");
  ModelBench bench = bench_of(spec);
  EXPECT_EQ(bench.prefill({.protocol = Protocol::recgen, .context = 16, .tokens = 16}).kv_bytes,
            kv_bytes_allocated(spec, Protocol::recgen, 32, DType::f32));
}

TEST(ModelBench, TellsWhereTheTimeGoesOnlyWhenAsked) {
  ModelBench bench = bench_of(tiny_spec("paper"));
  EXPECT_TRUE(bench.decode({.tokens = 16}).profile.empty());
  const Sample sample = bench.decode({.tokens = 16}, /*with_profile=*/true);
  double total = 0;
  for (const double seconds : sample.profile) total += seconds;
  EXPECT_GT(total, 0);
  EXPECT_LE(total, sample.seconds);
}

TEST(Phases, HaveNames) {
  for (const Phases phases : {Phases::aligned, Phases::staggered}) EXPECT_EQ(parse_phases(to_string(phases)), phases);
  EXPECT_THROW(parse_phases("mixed"), InputError);
}

}  // namespace
}  // namespace photon
