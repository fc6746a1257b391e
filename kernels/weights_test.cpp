// Where pack_panel() puts every input of every output.
#include "kernels/weights.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/kernels_testing.h"

namespace photon {
namespace {

using testing_support::random_floats;

const std::vector<std::int64_t> row_sizes{1, 2, 15, 31, 32, 33, 52, 416};

struct Row {
  Row(DType t, const std::vector<float>& x)
      : type(t),
        k(std::ssize(x)),
        values(static_cast<std::size_t>(quantized_row_bytes(t, k)), std::byte{0x5a}),
        scales(static_cast<std::size_t>(quant_groups(k)), to_bf16(NAN)) {
    quantize_row(type, x, values, scales);
  }
  std::vector<float> back() const {
    std::vector<float> out(static_cast<std::size_t>(k), NAN);
    dequantize_row(type, view(), out);
    return out;
  }
  QuantizedRow view() const { return {values.data(), scales.data()}; }
  DType type;
  std::int64_t k;
  std::vector<std::byte> values;
  std::vector<bf16> scales;
};

// Read back by the layout that weights.h documents.

struct Panel {
  Panel(DType t, std::int64_t inputs)
      : type(t), k(inputs), bytes(static_cast<std::size_t>(panel_bytes(t, inputs)), std::byte{0x5a}) {}
  template <class T>
  T as(std::int64_t index, std::int64_t offset = 0) const {
    T value;
    std::memcpy(&value, bytes.data() + offset + index * static_cast<std::int64_t>(sizeof(T)), sizeof(T));
    return value;
  }
  float at(std::int64_t o, std::int64_t i) const {
    const std::int64_t g = i / 32, in_group = i % 32;
    switch (type) {
      case DType::f32:
        return as<float>(i * 16 + o);
      case DType::bf16:
        return to_float(as<bf16>((i / 2 * 16 + o) * 2 + i % 2));
      case DType::int8: {
        const int q = as<std::uint8_t>(((g * 8 + in_group / 4) * 16 + o) * 4 + in_group % 4) - 128;
        return static_cast<float>(q) * to_float(as<bf16>(g * 16 + o, quant_groups(k) * 512));
      }
      case DType::int4: {
        const std::int64_t in_half = in_group % 16;
        const int both = as<std::uint8_t>(((g * 4 + in_half / 4) * 16 + o) * 4 + in_half % 4);
        const int q = (in_group < 16 ? both & 15 : both >> 4) - 8;
        return static_cast<float>(q) * to_float(as<bf16>(g * 16 + o, quant_groups(k) * 256));
      }
    }
    return NAN;
  }
  DType type;
  std::int64_t k;
  std::vector<std::byte> bytes;
};

TEST(PackPanel, EveryInputOfEveryOutputIsWhereTheLayoutSaysAndAbsentOnesAreZero) {
  for (const auto type : {DType::f32, DType::bf16, DType::int8, DType::int4})
    for (const auto k : row_sizes)
      for (const std::size_t n_rows : {1u, 3u, 16u}) {
        std::vector<std::vector<float>> rows;
        std::vector<Row> rounded;
        std::array<const float*, panel_outputs> floats{};
        std::array<QuantizedRow, panel_outputs> views{};
        for (std::size_t o = 0; o < n_rows; ++o) {
          rows.push_back(random_floats(k, o + 1));
          if (type == DType::int8 || type == DType::int4) {
            rounded.emplace_back(type, rows.back());
            rows.back() = rounded.back().back();
          } else if (type == DType::bf16) {
            for (float& value : rows.back()) value = to_float(to_bf16(value));
          }
        }
        for (std::size_t o = 0; o < n_rows; ++o) {
          floats[o] = rows[o].data();
          if (!rounded.empty()) views[o] = rounded[o].view();
        }
        Panel panel(type, k);
        if (rounded.empty())
          pack_panel(type, floats, k, panel.bytes.data());
        else
          pack_panel(type, views, k, panel.bytes.data());
        const std::int64_t padded = type == DType::f32    ? k
                                    : type == DType::bf16 ? (k + 1) / 2 * 2
                                                          : quant_groups(k) * quant_group;
        for (std::int64_t o = 0; o < panel_outputs; ++o)
          for (std::int64_t i = 0; i < padded; ++i) {
            const bool present = static_cast<std::size_t>(o) < n_rows && i < k;
            ASSERT_EQ(panel.at(o, i), present ? rows[static_cast<std::size_t>(o)][static_cast<std::size_t>(i)] : 0.0f)
                << to_string(type) << " k " << k << " rows " << n_rows << " at " << o << ", " << i;
          }
      }
}

TEST(PackPanel, RoundsToBf16) {
  const std::vector<float> row{1.00390625f, 1.01171875f, -1e-40f};  // ties; a denormal
  Panel panel(DType::bf16, 3);
  pack_panel(DType::bf16, std::array<const float*, panel_outputs>{row.data()}, 3, panel.bytes.data());
  for (std::int64_t i = 0; i < 3; ++i) EXPECT_EQ(panel.at(0, i), to_float(to_bf16(row[static_cast<std::size_t>(i)])));
}

TEST(PackedWeight, CountsPanelsAndBytes) {
  const PackedWeight plain{.type = DType::int8, .outputs = 33, .k = 33};
  EXPECT_EQ(plain.n_panels(), 3);
  EXPECT_EQ(plain.bytes(), 3 * 2 * (512 + 32));
  const PackedWeight gated{.type = DType::f32, .outputs = 40, .k = 5, .gated = true};  // 20 + 20
  EXPECT_EQ(gated.n_panels(), 4);
  for (const auto type : {DType::f32, DType::bf16, DType::int8, DType::int4})
    for (const auto k : row_sizes) EXPECT_EQ(panel_bytes(type, k) % 64, 0);
}

}  // namespace
}  // namespace photon
