// Figures as SVG: the look that they share, and gnuplot, run as a program, that draws them.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace photon {

/// The beginning of every script: draws NAME.svg, 900 by 540, key above the picture.  `title` is a comment for readers.
std::string gnuplot_head(std::string_view title, std::string_view name);
/// The i-th of a few colours that can be told apart, as '#rrggbb' in quotes.  0 is the Transformer's, in every figure.
std::string_view gnuplot_colour(std::size_t i);
/// A text in quotes, without what would end it; not to be interpreted: pass `noenhanced` with it.
std::string gnuplot_text(std::string_view text);

/// The name of a line beside its right end, where a key would be far away.
struct EndLabel {
  double x = 1, y = 0;  // where the line ends, as shares of the plot's width and height
  std::string text;
  std::string_view colour;
};
/// Writes the names right of the plot instead of a key, from top to bottom as the lines end and none over another, each
/// with a thin line to its end.  Both axes need a range, for the shares to mean something.
std::string gnuplot_end_labels(const std::vector<EndLabel>& labels);

/// Whether there is a gnuplot to run.
bool have_gnuplot();
/// Writes FOLDER/NAME.gp and draws FOLDER/NAME.svg.  False if gnuplot is not installed or fails: then the script can be
/// drawn elsewhere.  @throws InputError if the script cannot be written.
bool draw_with_gnuplot(const std::filesystem::path& folder, std::string_view name, std::string_view script);

}  // namespace photon
