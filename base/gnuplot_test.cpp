#include "base/gnuplot.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <regex>

namespace photon {
namespace {

// Where the script puts the names, from that of the first label on.
std::vector<double> heights(const std::string& script) {
  std::vector<double> found;
  const std::regex place(R"(set label '[^']*' at graph [\d.]+, graph ([\d.]+))");
  for (auto at = std::sregex_iterator(script.begin(), script.end(), place); at != std::sregex_iterator(); ++at)
    found.push_back(std::stod((*at)[1]));
  return found;
}

std::vector<EndLabel> ending_at(const std::vector<double>& places) {
  std::vector<EndLabel> labels;
  for (const double y : places) labels.push_back({.y = y, .text = "a", .colour = gnuplot_colour(0)});
  return labels;
}

TEST(EndLabels, StayWhereTheirLinesEndIfThereIsRoom) {
  EXPECT_EQ(heights(gnuplot_end_labels(ending_at({0.9, 0.1, 0.5}))), (std::vector{0.9, 0.1, 0.5}));
}

TEST(EndLabels, KeepTheOrderOfTheLinesAndCoverNoOther) {
  for (const auto& ends : {std::vector{0.5, 0.501, 0.499, 0.52, 0.1}, std::vector{1.0, 1.0, 1.0}, std::vector{0.0, 0.0},
                           std::vector{0.99, 0.98, 0.97, 0.89, 0.02, 0.01, 0.0}, std::vector(60, 0.5)}) {
    const std::vector<double> placed = heights(gnuplot_end_labels(ending_at(ends)));
    ASSERT_EQ(placed.size(), ends.size());
    for (std::size_t i = 0; i < ends.size(); ++i) {
      EXPECT_GE(placed[i], 0);
      EXPECT_LE(placed[i], 1);
      for (std::size_t j = 0; j < ends.size(); ++j)
        EXPECT_TRUE(ends[i] >= ends[j] || placed[i] < placed[j]) << ends[i] << " and " << ends[j];
    }
    std::vector<double> sorted = placed;
    std::ranges::sort(sorted);
    for (std::size_t i = 1; i < sorted.size(); ++i)
      EXPECT_GE(sorted[i] - sorted[i - 1], std::min(0.0449, 0.99 / static_cast<double>(sorted.size() - 1)));
  }
}

TEST(Colours, TheTransformersIsItsAlone) {
  for (std::size_t i = 1; i < 20; ++i) EXPECT_NE(gnuplot_colour(i), gnuplot_colour(0));
}

}  // namespace
}  // namespace photon
