// Properties of the ready-made configs: every one is a model, of the size that its name says.
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "spec/accounting.h"

namespace photon {
namespace {

std::map<std::string, Spec> configs() {
  std::map<std::string, Spec> specs;
  for (const std::filesystem::path folder : {PHOTON_SOURCE_DIR "/configs", PHOTON_SOURCE_DIR "/study/configs"})
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
      if (entry.path().extension() == ".json")
        specs.emplace(entry.path().lexically_relative(folder).replace_extension().string(), load_spec(entry.path()));
  return specs;
}

TEST(Configs, EveryFileIsAModelThatRoundTrips) {
  const auto all = configs();
  EXPECT_TRUE(all.contains("photon-600m"));
  EXPECT_TRUE(all.contains("4m-long/vanilla")) << "the study's";
  for (const auto& [name, spec] : all) EXPECT_EQ(parse_spec(to_json(spec), name), spec) << name;
}

TEST(Configs, LargePairsAreOfTheSizeThatTheyAreNamedFor) {
  const auto all = configs();
  for (const auto& [size, parameters] : {std::pair{"600m", 600e6}, {"900m", 900e6}, {"1.2b", 1200e6}}) {
    const auto photon = static_cast<double>(count_parameters(all.at(std::string("photon-") + size)).total);
    const auto vanilla = static_cast<double>(count_parameters(all.at(std::string("vanilla-") + size)).total);
    EXPECT_NEAR(photon / parameters, 1, 0.03) << size;
    EXPECT_NEAR(vanilla / parameters, 1, 0.03) << size;
    EXPECT_NEAR(photon / vanilla, 1, 0.03) << size;
  }
}

TEST(Configs, ThoseOfThePaperHaveItsParametersToTheDigit) {
  const auto all = configs();
  const std::map<std::string, std::int64_t> totals{
      {"vanilla-600m", 610'915'968}, {"vanilla-900m", 867'114'752}, {"vanilla-1.2b", 1'184'657'280},
      {"block-600m", 629'770'752},   {"block-900m", 887'878'656},   {"block-1.2b", 1'207'395'840},
      {"photon-600m", 646'399'104},  {"photon-900m", 907'162'368},  {"photon-1.2b", 1'229'531'520}};
  for (const auto& [name, total] : totals) EXPECT_EQ(count_parameters(all.at("paper/" + name)).total, total) << name;
  EXPECT_EQ(all.at("paper/vanilla-600m"), all.at("vanilla-600m"));

  Spec wide = all.at("paper/photon-600m-c2x2");  // the same but for its chunks and what they make of d_embed
  EXPECT_EQ(wide.d_embed, 832);
  EXPECT_EQ(wide.group_tokens(), 4);
  wide.d_embed = 416;
  for (LevelSpec& level : wide.levels) level.chunk_size = 4;
  EXPECT_EQ(wide, all.at("paper/photon-600m"));
}

TEST(Configs, SmallModelsFitALaptop) {
  for (const auto& [name, spec] : configs())
    if (name.ends_with("-8m") || name.ends_with("-8m-paper") || name.ends_with("-tiny")) {
      EXPECT_EQ(spec.vocab_size, 4096) << name;
      EXPECT_LT(count_parameters(spec).total, 10'000'000) << name;
    }
}

}  // namespace
}  // namespace photon
