// Tables of text for people: columns as wide as they need, and as few as say something.
#pragma once

#include <string>
#include <vector>

namespace photon {

class TextTable {
 public:
  enum class Align { left, right };
  struct Column {
    std::string header;
    Align align = Align::right;
    bool factor_out = false;  // a column of one value everywhere becomes a line above the table
    std::vector<std::string> cells{};
  };

  void add(Column column);  ///< every column has the same number of cells, at least one
  /// The table with a line for each row, factored-out columns first; ends with a new line.
  std::string text() const;

 private:
  std::vector<Column> columns_;
};

/// A number with about three digits that mean something: 12345, 123, 12.3, 1.23, 0.0123.
std::string short_number(double value);

}  // namespace photon
