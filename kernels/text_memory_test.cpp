// Reading a text: every table against the equation in float64, over contexts, head counts, parts and both id widths.
#include "kernels/text_memory.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "base/bf16.h"
#include "kernels/kernels_testing.h"

namespace photon {
namespace {

using testing_support::EveryIsa;
using testing_support::random_floats;

constexpr std::int64_t page_tokens = 8;

struct Shape {
  std::int64_t V, context, h, heads, n, id_bytes;
  bool recency, shared;  // shared: all heads read one kv head
  DType type = DType::f32;
};

// A text of ids, and everything that reading it wants.
struct Reading {
  explicit Reading(const Shape& s, std::uint64_t seed) : shape(s) {
    Random random(seed);
    for (std::int64_t j = 0; j < s.n; ++j) {
      ids.push_back(static_cast<std::int32_t>(random.below(s.V)));
      if (j % page_tokens == 0) pages.emplace_back(page_tokens * s.id_bytes);
      std::memcpy(pages.back().data() + j % page_tokens * s.id_bytes, &ids.back(), s.id_bytes);
    }
    for (const auto& page : pages) page_data.push_back(page.data());
    for (const std::int32_t id : std::set(ids.begin(), ids.end())) occurring.push_back(id);
    for (std::int64_t d = 0; d <= s.n + 1; ++d)
      log_distances.push_back(static_cast<float>(std::log1p(static_cast<double>(d))));
    for (std::int64_t k = 0; k < text_heads; ++k) {
      scores.push_back(random_floats(s.context * s.V, seed + 10 + k, 2));
      values.push_back(random_floats(s.V * s.h, seed + 20 + k));
      rounded.emplace_back();
      for (float& value : values.back()) {
        rounded.back().push_back(to_bf16(value));
        if (s.type == DType::bf16) value = to_float(rounded.back().back());
      }
      out.push_back(std::vector<float>(s.h, testing_support::NaN));
    }
    table.assign(s.context * (s.V + 1) * text_heads, testing_support::NaN);  // nothing but what occurs may be read
    for (std::int64_t o = 0; o < s.context; ++o)
      std::fill_n(table.begin() + (o * (s.V + 1) + s.V) * text_heads, text_heads, 0.0f);
    weights.assign((s.V + 1) * text_heads, 0);
    weighed.resize(s.V);
  }

  TextCall call(std::int64_t first, std::int64_t last, std::int64_t predicted) {
    TextCall c{.vocab_size = shape.V,
               .context = shape.context,
               .head_dim = shape.h,
               .n_heads = shape.heads,
               .ids = occurring.data(),
               .n_ids = std::ssize(occurring),
               .score_stride = shape.V,
               .pages = page_data.data(),
               .page_tokens = page_tokens,
               .id_bytes = shape.id_bytes,
               .first = first,
               .last = last,
               .predicted = predicted,
               .log_distances = shape.recency ? log_distances.data() : nullptr,
               .type = shape.type,
               .table = table.data(),
               .weights = weights.data(),
               .weighed = weighed.data(),
               .top = top,
               .sum = sum};
    for (std::int64_t k = 0; k < shape.heads; ++k) {
      c.scores[k] = scores[k].data();
      c.rates[k] = shape.recency ? 0.3f + static_cast<float>(k) : 0.0f;
      const std::int64_t kv = shape.shared ? 0 : k;
      c.values[k] = shape.type == DType::f32 ? reinterpret_cast<const std::byte*>(values[kv].data())
                                             : reinterpret_cast<const std::byte*>(rounded[kv].data());
      c.out[k] = out[k].data();
    }
    return c;
  }

  void expect_as_in_float64(const TextCall& c) const {
    for (std::int64_t k = 0; k < shape.heads; ++k) {
      std::vector<double> score, want(shape.h, 0.0);
      for (std::int64_t j = c.first; j < c.last; ++j) {
        double s = 0;
        for (std::int64_t o = 0; o < shape.context && o <= j; ++o)
          s += static_cast<double>(scores[k][o * shape.V + ids[j - o]]);
        if (shape.recency) s -= static_cast<double>(c.rates[k]) * std::log1p(static_cast<double>(c.predicted - j));
        score.push_back(s);
      }
      const double most = *std::ranges::max_element(score);
      double total = 0;
      for (std::size_t i = 0; i < score.size(); ++i) {
        const double weight = std::exp(score[i] - most);
        total += weight;
        for (std::int64_t d = 0; d < shape.h; ++d)
          want[d] += weight * static_cast<double>(values[shape.shared ? 0 : k][ids[c.first + i] * shape.h + d]);
      }
      EXPECT_NEAR(c.top[k], most, 1e-5 * (1 + std::abs(most)));
      EXPECT_NEAR(c.sum[k] / total, 1, 2e-5);
      for (std::int64_t d = 0; d < shape.h; ++d) EXPECT_NEAR(c.out[k][d], want[d], 3e-5 * total) << "head " << k;
    }
    for (const float weight : weights) ASSERT_EQ(weight, 0.0f);
  }

  Shape shape;
  std::vector<std::int32_t> ids, occurring, weighed;
  std::vector<std::vector<std::byte>> pages;
  std::vector<const std::byte*> page_data;
  std::vector<float> log_distances, table, weights;
  std::vector<std::vector<float>> scores, values, out;
  std::vector<std::vector<bf16>> rounded;
  float top[text_heads] = {}, sum[text_heads] = {};
};

class Text : public EveryIsa {};
INSTANTIATE_TEST_SUITE_P(EveryIsa, Text, testing::ValuesIn(all_kernels()),
                         [](const auto& i) { return std::string(i.param.name); });

TEST_P(Text, EqualsTheEquation) {
  for (const Shape& shape :
       {Shape{5, 1, 1, 1, 1, 2, false, true}, Shape{7, 2, 5, 3, 9, 2, true, true},
        Shape{33, 3, 16, 4, 64, 4, true, false}, Shape{200, 4, 33, 2, 65, 2, false, true},
        Shape{300, 2, 64, 4, 700, 2, true, true, DType::bf16}, Shape{40, 1, 52, 4, 130, 4, false, false, DType::bf16},
        Shape{9, 20, 7, 4, 12, 2, true, true}}) {
    Reading reading(shape, 3);
    for (const std::int64_t first : {std::int64_t{0}, shape.n / 3, shape.n - 1}) {
      const TextCall call = reading.call(first, shape.n, shape.n + 1);
      table().read_text(call);
      reading.expect_as_in_float64(call);
    }
  }
}

TEST_P(Text, ScoresFarApartNeitherOverflowNorVanish) {
  Reading reading({6, 1, 4, 2, 40, 2, false, true}, 5);
  for (auto& scores : reading.scores) scores = {-3e4f, 100, 3e4f, 0, 2.9e4f, 88};
  const TextCall call = reading.call(0, 40, 40);
  table().read_text(call);
  reading.expect_as_in_float64(call);
}

}  // namespace
}  // namespace photon
