#include "base/gnuplot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "base/child.h"
#include "base/file.h"

namespace photon {
namespace {

// Heights 0 to 1, moved as little as keeps neighbours `gap` apart, in their order.  Those that push each other move
// together, to where they are nearest to what each of them wants.
std::vector<double> apart(const std::vector<double>& wanted, double gap) {
  struct Group {
    double begin = 0;  // of its lowest member
    std::vector<std::size_t> members;
  };
  std::vector<std::size_t> order(wanted.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return wanted[i]; });
  std::vector<Group> groups;
  for (const std::size_t i : order) {
    groups.push_back({std::clamp(wanted[i], 0.0, 1.0), {i}});
    while (groups.size() > 1) {
      Group &below = groups[groups.size() - 2], &above = groups.back();
      const auto n = static_cast<double>(below.members.size()), m = static_cast<double>(above.members.size());
      if (below.begin + gap * n <= above.begin) break;
      const double room = std::max(0.0, 1 - gap * (n + m - 1));
      below.begin = std::clamp((n * below.begin + m * (above.begin - gap * n)) / (n + m), 0.0, room);
      below.members.insert(below.members.end(), above.members.begin(), above.members.end());
      groups.pop_back();
    }
  }
  std::vector<double> placed(wanted.size());
  for (const Group& group : groups)
    for (std::size_t k = 0; k < group.members.size(); ++k)
      placed[group.members[k]] = group.begin + gap * static_cast<double>(k);
  return placed;
}

}  // namespace

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
  constexpr std::array<std::string_view, 7> colours{"'#222222'", "'#d1495b'", "'#2a9d63'", "'#8a5fbf'",
                                                    "'#e08e0b'", "'#00798c'", "'#8c5a2b'"};
  return i == 0 ? colours[0] : colours[1 + (i - 1) % (colours.size() - 1)];
}

std::string gnuplot_text(std::string_view text) {
  std::string safe(text);
  std::erase_if(safe, [](char c) { return c == '\'' || c == '\n' || c == '\\'; });
  return '\'' + safe + '\'';
}

std::string gnuplot_end_labels(const std::vector<EndLabel>& labels) {
  if (labels.empty()) return "unset key\n";
  std::vector<double> wanted;
  std::size_t longest = 0;
  for (const EndLabel& label : labels) {
    wanted.push_back(label.y);
    longest = std::max(longest, label.text.size());
  }
  const double line = 0.045;  // of text, as a share of the plot's height
  const std::vector<double> placed =
      apart(wanted, std::min(line, 1 / std::max(1.0, static_cast<double>(labels.size()) - 1)));
  std::string script = fmt::format("unset key\nset rmargin {}\n", 3 + longest * 3 / 4);
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const EndLabel& label = labels[i];
    script += fmt::format(
        "set arrow from graph {0:.4f}, graph {1:.4f} to graph 1.02, graph {2:.4f} nohead lw 0.6 lc rgb {3}\n"
        "set label {4} at graph 1.025, graph {2:.4f} noenhanced tc rgb {3}\n",
        label.x, label.y, placed[i], label.colour, gnuplot_text(label.text));
  }
  return script;
}

bool have_gnuplot() { return run_program({"gnuplot", "--version"}, ".").has_value(); }

bool draw_with_gnuplot(const std::filesystem::path& folder, std::string_view name, std::string_view script) {
  const std::string file = std::string(name) + ".gp";
  write_atomically(folder / file, script);
  return run_program({"gnuplot", file}, folder).has_value();
}

}  // namespace photon
