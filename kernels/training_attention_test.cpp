// Training's attention on every instruction set that runs here, against float64 references.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "base/matrix.h"
#include "kernels/training.h"
#include "kernels/training_testing.h"

namespace photon::training {
namespace {

using i64 = std::int64_t;
using Doubles = std::vector<double>;
using testing_support::at, testing_support::wide, testing_support::ElementRows, testing_support::expect_close,
    testing_support::NaN;

// A sequence whose position s sees the positions [s - window + 1, s].
struct Case {
  i64 S = 1, H = 1, K = 1, h = 8, window = 1 << 20;
  bool is_bf16 = false, rotated = true;
  double size = 1;  // of queries, keys and values
};
std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "S " << c.S << ", H " << c.H << ", K " << c.K << ", h " << c.h << ", window " << c.window << ", bf16 "
             << c.is_bf16 << ", rotated " << c.rotated;
}

// Its arrays begin after some rows of another sequence.
struct Sequence {
  static constexpr i64 first_row = 2;

  explicit Sequence(const Case& of)
      : c(of),
        qkv(ElementRows::random(first_row + c.S, (c.H + 2 * c.K) * c.h, c.is_bf16, 1, c.size)),
        grad_out(ElementRows::random(first_row + c.S, c.H * c.h, c.is_bf16, 2)),
        out(first_row + c.S, c.H * c.h, c.is_bf16),
        grad(first_row + c.S, (c.H + 2 * c.K) * c.h, c.is_bf16),
        log2_sum(at((first_row + c.S) * c.H), NaN) {
    for (i64 s = 0; s < c.S; ++s) {
      first_visible.push_back(static_cast<std::int32_t>(std::max<i64>(0, s - c.window + 1)));
      positions.push_back(static_cast<std::int32_t>(c.S - s));  // whatever rows of the tables
    }
    for (i64 i = 0; i < (c.S + 1) * (c.h / 2); ++i) {
      const double angle = 0.37 * static_cast<double>(i);
      cos.push_back(static_cast<float>(std::cos(angle))), sin.push_back(static_cast<float>(std::sin(angle)));
    }
  }

  void run(const TrainingKernels& ops) {
    Attention op{.n_heads = c.H, .n_kv_heads = c.K, .head_dim = c.h};
    op.q = qkv.in(), op.k = qkv.in(c.H * c.h), op.v = qkv.in((c.H + c.K) * c.h);
    op.first_visible = first_visible.data(), op.positions = positions.data();
    if (c.rotated) op.cos = cos.data(), op.sin = sin.data();
    op.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(c.h)));
    op.out = out.out(), op.log2_sum = log2_sum.data();
    const AttentionBackward back{op, grad_out.in(), grad.out(), grad.out(c.H * c.h), grad.out((c.H + c.K) * c.h)};
    const i64 bytes = ops.attention_scratch(c.S, c.h);
    Matrix<std::byte> scratch(2, bytes);  // the second row must stay as it is
    std::memset(scratch.data(), 0xff, at(2 * bytes));
    for (i64 kv_head = 0; kv_head < c.K; ++kv_head) ops.attention(op, first_row, c.S, kv_head, scratch.data());
    for (i64 kv_head = 0; kv_head < c.K; ++kv_head)
      ops.attention_backward(back, first_row, c.S, kv_head, scratch.data());
    EXPECT_TRUE(out.gaps_untouched() && grad.gaps_untouched());
    for (const std::byte b : scratch.row(1)) ASSERT_EQ(b, std::byte{0xff});
    for (i64 row = 0; row < first_row; ++row) EXPECT_TRUE(std::isnan(out.get(row, 0)) && std::isnan(grad.get(row, 0)));
  }

  const Case c;
  ElementRows qkv, grad_out, out, grad;
  std::vector<float> log2_sum, cos, sin;
  std::vector<std::int32_t> first_visible, positions;
};

// [S, n heads * h] in float64.
class Heads {
 public:
  Heads(const Case& c, i64 heads) : h_(c.h), width_(heads * c.h), values_(at(c.S * width_)) {}
  double* row(i64 s, i64 head) { return values_.data() + s * width_ + head * h_; }
  const Doubles& values() const { return values_; }

 private:
  i64 h_, width_;
  Doubles values_;
};

// The equations of design.md, position by position.
struct Reference {
  explicit Reference(const Sequence& seq)
      : q(seq.c, seq.c.H), k(seq.c, seq.c.K), v(q), out(q), g_q(q), g_k(k), g_v(k), log2_sum() {
    const auto [S, H, K, h, window, is_bf16, rotated, size] = seq.c;
    v = k;
    const auto load = [&](Heads& to, i64 heads, i64 column, bool rotate) {
      for (i64 s = 0; s < S; ++s)
        for (i64 head = 0; head < heads; ++head) {
          for (i64 i = 0; i < h; ++i) to.row(s, head)[i] = seq.qkv.get(Sequence::first_row + s, column + head * h + i);
          if (rotate) turn(seq, s, to.row(s, head), 1);
        }
    };
    load(q, H, 0, rotated), load(k, K, H * h, rotated), load(v, K, (H + K) * h, false);
    const double scale = 1 / std::sqrt(static_cast<double>(h));
    for (i64 s = 0; s < S; ++s)
      for (i64 head = 0; head < H; ++head) {
        const i64 kv = head / (H / K), first = seq.first_visible[at(s)];
        const auto dot = [&](const double* a, const double* b) {
          double sum = 0;
          for (i64 i = 0; i < h; ++i) sum += a[i] * b[i];
          return sum;
        };
        Doubles p, dp, g(at(h));
        double top = -1e300, sum = 0, mean = 0;
        for (i64 i = 0; i < h; ++i) g[at(i)] = seq.grad_out.get(Sequence::first_row + s, head * h + i);
        for (i64 t = first; t <= s; ++t)
          p.push_back(scale * dot(q.row(s, head), k.row(t, kv))), top = std::max(top, p.back());
        for (double& x : p) sum += x = std::exp(x - top);
        log2_sum.push_back((top + std::log(sum)) / std::log(2));
        for (i64 t = first; t <= s; ++t) {
          const double weight = p[at(t - first)] /= sum;
          dp.push_back(dot(g.data(), v.row(t, kv)));
          mean += weight * dp.back();
          for (i64 i = 0; i < h; ++i) out.row(s, head)[i] += weight * v.row(t, kv)[i];
        }
        for (i64 t = first; t <= s; ++t) {
          const double weight = p[at(t - first)], ds = scale * weight * (dp[at(t - first)] - mean);
          for (i64 i = 0; i < h; ++i) {
            g_q.row(s, head)[i] += ds * k.row(t, kv)[i];
            g_k.row(t, kv)[i] += ds * q.row(s, head)[i];
            g_v.row(t, kv)[i] += weight * g[at(i)];
          }
        }
      }
    for (i64 s = 0; s < S && rotated; ++s) {
      for (i64 head = 0; head < H; ++head) turn(seq, s, g_q.row(s, head), -1);
      for (i64 head = 0; head < K; ++head) turn(seq, s, g_k.row(s, head), -1);
    }
  }

  // RoPE, rotate-half; back if direction is -1.
  static void turn(const Sequence& seq, i64 s, double* x, double direction) {
    const i64 h = seq.c.h, half = h / 2;
    for (i64 i = 0; i < half; ++i) {
      const std::size_t place = at(seq.positions[at(s)] * half + i);
      const double a = x[i], b = x[h - half + i], c = wide(seq.cos[place]), d = direction * wide(seq.sin[place]);
      x[i] = a * c - b * d;
      x[h - half + i] = b * c + a * d;
    }
  }

  Heads q, k, v, out, g_q, g_k, g_v;
  Doubles log2_sum;
};

class AttentionOfTrainingOn : public testing_support::TrainingOn {
 protected:
  static void expect_attention(const Case& c) {
    SCOPED_TRACE(c);
    Sequence seq(c);
    seq.run(ops());
    const Reference want(seq);
    // bf16: queries, keys, weights and what is written are rounded.
    const double tolerance = c.is_bf16 ? 1.5e-2 : 5e-6;
    const auto written = [&](const ElementRows& rows, i64 column, i64 heads) {
      Doubles values = rows.columns(column, heads * c.h);
      return Doubles(values.begin() + Sequence::first_row * heads * c.h, values.end());
    };
    expect_close(written(seq.out, 0, c.H), want.out.values(), tolerance, "out");
    expect_close({seq.log2_sum.begin() + Sequence::first_row * c.H, seq.log2_sum.end()}, want.log2_sum, tolerance,
                 "log2_sum");
    // Together: of a position that sees one key alone, only rounding is left of the gradients of q and k.
    Doubles got = written(seq.grad, 0, c.H), gradients = want.g_q.values();
    for (const Doubles& more : {written(seq.grad, c.H * c.h, c.K), written(seq.grad, (c.H + c.K) * c.h, c.K)})
      got.insert(got.end(), more.begin(), more.end());
    for (const Heads* more : {&want.g_k, &want.g_v})
      gradients.insert(gradients.end(), more->values().begin(), more->values().end());
    expect_close(got, gradients, tolerance, "gradients");
  }
};

TEST_P(AttentionOfTrainingOn, IsSoftmaxOverTheVisiblePositionsForEveryLength) {
  for (const bool is_bf16 : {false, true})
    for (const i64 S : {1, 2, 7, 8, 9, 16, 17, 32, 33, 63, 64, 65, 150})
      for (const i64 window : {1, 5, 70, 1000})
        expect_attention({.S = S, .H = 2, .K = 2, .h = 8, .window = window, .is_bf16 = is_bf16});
}

TEST_P(AttentionOfTrainingOn, IsSoftmaxOverTheVisiblePositionsForEveryHeadShape) {
  for (const bool is_bf16 : {false, true})
    for (const i64 h : {1, 2, 3, 13, 16, 32, 52, 80})
      for (const bool rotated : {false, true}) {
        expect_attention({.S = 70, .H = 4, .K = 2, .h = h, .is_bf16 = is_bf16, .rotated = rotated});
        expect_attention({.S = 20, .H = 3, .K = 1, .h = h, .window = 9, .is_bf16 = is_bf16, .rotated = rotated});
      }
}

TEST_P(AttentionOfTrainingOn, SurvivesLargeScores) {
  for (const bool is_bf16 : {false, true}) {
    Sequence seq({.S = 40, .h = 16, .is_bf16 = is_bf16, .size = 1000});
    seq.run(ops());
    for (i64 s = Sequence::first_row; s < Sequence::first_row + 40; ++s) {
      for (i64 i = 0; i < 16; ++i) ASSERT_TRUE(std::isfinite(seq.out.get(s, i)));
      for (i64 i = 0; i < 48; ++i) ASSERT_TRUE(std::isfinite(seq.grad.get(s, i)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, AttentionOfTrainingOn, testing::ValuesIn(all_kernels().begin(), all_kernels().end()),
                         [](const auto& table) { return std::string(table.param.name); });

}  // namespace
}  // namespace photon::training
