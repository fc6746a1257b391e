#include "base/gnuplot.h"

#include <fmt/format.h>

#include <array>

#include "base/child.h"
#include "base/file.h"

namespace photon {

std::string gnuplot_head(std::string_view title, std::string_view name) {
  return fmt::format(
      "# {0}; draw with: gnuplot {1}.gp\n"
      "set terminal svg size 900,540 font 'sans-serif,14' background '#ffffff'\n"
      "set output '{1}.svg'\n"
      "set border 3 lc rgb '#666666'\nset tics nomirror textcolor rgb '#333333'\n"
      "set grid lc rgb '#d8d8d8' lw 1\nset key outside above horizontal center samplen 2 spacing 1.3\n",
      title, name);
}

std::string_view gnuplot_colour(std::size_t i) {
  constexpr std::array<std::string_view, 6> colours{"'#d1495b'", "'#2a9d63'", "'#8a5fbf'",
                                                    "'#e08e0b'", "'#00798c'", "'#5f5f5f'"};
  return colours[i % colours.size()];
}

std::string gnuplot_text(std::string_view text) {
  std::string safe(text);
  std::erase_if(safe, [](char c) { return c == '\'' || c == '\n' || c == '\\'; });
  return '\'' + safe + '\'';
}

bool have_gnuplot() { return run_program({"gnuplot", "--version"}, ".").has_value(); }

bool draw_with_gnuplot(const std::filesystem::path& folder, std::string_view name, std::string_view script) {
  const std::string file = std::string(name) + ".gp";
  write_atomically(folder / file, script);
  return run_program({"gnuplot", file}, folder).has_value();
}

}  // namespace photon
