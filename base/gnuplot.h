// Figures as SVG: the look that they share, and gnuplot, run as a program, that draws them.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace photon {

/// The beginning of every script: draws NAME.svg, 900 by 540, key above the picture.  `title` is a comment for readers.
std::string gnuplot_head(std::string_view title, std::string_view name);
/// The i-th of a few colours that can be told apart, as '#rrggbb' in quotes.
std::string_view gnuplot_colour(std::size_t i);
/// A text in quotes, without what would end it; not to be interpreted: pass `noenhanced` with it.
std::string gnuplot_text(std::string_view text);

/// Whether there is a gnuplot to run.
bool have_gnuplot();
/// Writes FOLDER/NAME.gp and draws FOLDER/NAME.svg.  False if gnuplot is not installed or fails: then the script can be
/// drawn elsewhere.  @throws InputError if the script cannot be written.
bool draw_with_gnuplot(const std::filesystem::path& folder, std::string_view name, std::string_view script);

}  // namespace photon
