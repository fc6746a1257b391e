#include "base/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <utility>

namespace photon {

void TextTable::add(Column column) {
  assert(!column.cells.empty() && (columns_.empty() || column.cells.size() == columns_.front().cells.size()));
  columns_.push_back(std::move(column));
}

std::string TextTable::text() const {
  std::string above;
  std::vector<const Column*> shown;
  for (const Column& c : columns_) {
    const bool constant = std::ranges::all_of(c.cells, [&](const auto& cell) { return cell == c.cells.front(); });
    if (c.factor_out && constant && c.cells.size() > 1)
      above += (above.empty() ? "" : ", ") + c.header + ' ' + c.cells.front();
    else
      shown.push_back(&c);
  }
  if (!above.empty()) above += '\n';
  std::vector<std::string> lines(columns_.empty() ? 0 : columns_.front().cells.size() + 1);
  for (const Column* c : shown) {
    std::size_t width = c->header.size();
    for (const std::string& cell : c->cells) width = std::max(width, cell.size());
    for (std::size_t i = 0; i < lines.size(); ++i) {
      const std::string& cell = i == 0 ? c->header : c->cells[i - 1];
      lines[i] += (lines[i].empty() ? "" : "  ") +
                  (c->align == Align::left ? fmt::format("{:<{}}", cell, width) : fmt::format("{:>{}}", cell, width));
    }
  }
  std::string text = above;
  for (std::string& line : lines) {
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
  return text;
}

std::string short_number(double value) {
  const double size = std::abs(value);
  return size >= 99.95 ? fmt::format("{:.0f}", value) : fmt::format("{:.3g}", value);
}

}  // namespace photon
