// Training's fused operations on rows, on every instruction set that runs here, against float64 references.
#include "kernels/training.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "base/bf16.h"
#include "kernels/training_testing.h"

namespace photon::training {
namespace {

using i64 = std::int64_t;
using Doubles = std::vector<double>;
using testing_support::at, testing_support::wide, testing_support::ElementRows, testing_support::expect_close,
    testing_support::expect_rows;
using testing_support::NaN, testing_support::random_floats;

class RowsOfTrainingOn : public testing_support::TrainingOn {};

const std::vector<i64> widths{2, 3, 7, 8, 9, 15, 16, 17, 52, 417};  // below, at and above a vector

TEST_P(RowsOfTrainingOn, RmsNormAndItsGradient) {
  const i64 n = 5;
  for (const i64 D : widths)
    for (int types = 0; types < 8; ++types)
      for (const bool added : {false, true}) {
        SCOPED_TRACE(testing::Message() << "D " << D << ", types " << types << ", added " << added);
        const bool x_bf16 = types & 1, y_bf16 = types & 2, out_bf16 = types & 4;
        const auto x = ElementRows::random(n, D, x_bf16, 1), y = ElementRows::random(n, D, y_bf16, 2);
        const auto w = random_floats(D, 3);
        ElementRows sum(n, D, x_bf16), out(n, D, out_bf16);
        std::vector<float> scale(at(n), NaN);
        RmsNorm op{.width = D, .eps = 1e-5f, .x = x.in(), .weight = w.data(), .out = out.out()};
        if (added) op.y = y.in(), op.sum = sum.out();
        op.scale = scale.data();
        ops().rms_norm(op, 0, 2);
        ops().rms_norm(op, 2, n);

        const auto g = ElementRows::random(n, D, out_bf16, 4), g_sum = ElementRows::random(n, D, x_bf16, 5);
        ElementRows g_x(n, D, x_bf16), g_y(n, D, y_bf16);
        auto g_w = random_floats(D, 6);
        RmsNormBackward back{.width = D, .x = added ? sum.in() : x.in(), .weight = w.data()};
        back.scale = scale.data(), back.grad_out = g.in(), back.grad_x = g_x.out(), back.grad_weight = g_w.data();
        Doubles want_sum, want, want_scale, want_x, want_w(g_w.begin(), g_w.end());
        if (added) back.grad_sum = g_sum.in(), back.grad_y = g_y.out();
        ops().rms_norm_backward(back, 0, n);

        for (i64 r = 0; r < n; ++r) {
          double squares = 0, mean = 0;
          Doubles s;
          for (i64 i = 0; i < D; ++i) {
            want_sum.push_back(x.get(r, i) + y.get(r, i));
            s.push_back(added ? sum.get(r, i) : x.get(r, i));
            squares += s.back() * s.back();
          }
          const double k = 1 / std::sqrt(squares / static_cast<double>(D) + wide(1e-5f));
          want_scale.push_back(k);
          for (i64 i = 0; i < D; ++i) mean += g.get(r, i) * wide(w[at(i)]) * s[at(i)] * k / static_cast<double>(D);
          for (i64 i = 0; i < D; ++i) {
            want.push_back(s[at(i)] * k * wide(w[at(i)]));
            want_x.push_back(k * (g.get(r, i) * wide(w[at(i)]) - s[at(i)] * k * mean) + (added ? g_sum.get(r, i) : 0));
            want_w[at(i)] += g.get(r, i) * s[at(i)] * k;
          }
        }
        if (added) expect_rows(sum, want_sum, 1e-7, "sum"), expect_rows(g_y, want_x, 3e-6, "grad of y");
        expect_close(Doubles(scale.begin(), scale.end()), want_scale, 1e-6, "scale");
        expect_rows(out, want, 1e-6, "out");
        expect_rows(g_x, want_x, 3e-6, "grad of x");
        expect_close(Doubles(g_w.begin(), g_w.end()), want_w, 3e-6, "grad of weight");
      }
}

TEST_P(RowsOfTrainingOn, SwigluAndItsGradient) {
  const i64 n = 3;
  for (const i64 F : widths)
    for (const bool is_bf16 : {false, true}) {
      SCOPED_TRACE(testing::Message() << "F " << F << ", bf16 " << is_bf16);
      const auto gate = ElementRows::random(n, F, is_bf16, 1, 4), up = ElementRows::random(n, F, is_bf16, 2),
                 g = ElementRows::random(n, F, is_bf16, 3);
      ElementRows out(n, F, is_bf16), g_gate(n, F, is_bf16), g_up(n, F, is_bf16);
      ops().swiglu({F, gate.in(), up.in(), out.out()}, 0, n);
      ops().swiglu_backward({F, gate.in(), up.in(), g.in(), g_gate.out(), g_up.out()}, 0, n);
      Doubles want, want_gate, want_up;
      for (i64 r = 0; r < n; ++r)
        for (i64 i = 0; i < F; ++i) {
          const double a = gate.get(r, i), b = up.get(r, i), d = g.get(r, i), s = 1 / (1 + std::exp(-a));
          want.push_back(a * s * b);
          want_gate.push_back(d * b * s * (1 + a * (1 - s)));
          want_up.push_back(d * a * s);
        }
      expect_rows(out, want, 1e-6, "out");
      expect_rows(g_gate, want_gate, 1e-6, "grad of gate");
      expect_rows(g_up, want_up, 1e-6, "grad of up");
    }
}

TEST_P(RowsOfTrainingOn, SwigluOfExtremeGatesIsFinite) {
  ElementRows gate(1, 3, false), up(1, 3, false), out(1, 3, false), g_gate(1, 3, false), g_up(1, 3, false);
  const float gates[] = {-1e4f, 1e4f, -100.f};
  for (i64 i = 0; i < 3; ++i) gate.set(0, i, gates[i]), up.set(0, i, 1);
  ops().swiglu({3, gate.in(), up.in(), out.out()}, 0, 1);
  ops().swiglu_backward({3, gate.in(), up.in(), up.in(), g_gate.out(), g_up.out()}, 0, 1);
  expect_rows(out, {0, 1e4, 0}, 1e-7, "out");
  for (const ElementRows* g : {&g_gate, &g_up})
    for (i64 i = 0; i < 3; ++i) EXPECT_TRUE(std::isfinite(g->get(0, i))) << i;
}

TEST_P(RowsOfTrainingOn, CrossEntropyAndItsGradient) {
  const i64 n = 4;
  for (const i64 V : {1, 5, 16, 100, 4099})
    for (const bool is_bf16 : {false, true}) {
      SCOPED_TRACE(testing::Message() << "V " << V << ", bf16 " << is_bf16);
      const auto logits = ElementRows::random(n, V, is_bf16, 1, 5);
      std::vector<i64> targets;
      for (i64 r = 0; r < n; ++r) targets.push_back(r * 7919 % V);
      std::vector<float> sums(at(n), NaN), nll(at(n), NaN);
      ops().cross_entropy({V, logits.in(), targets.data(), sums.data(), nll.data()}, 0, n);
      ElementRows g(n, V, is_bf16);
      ops().cross_entropy_backward({V, logits.in(), targets.data(), sums.data(), 0.25f, g.out()}, 0, n);
      Doubles want_nll, want;
      for (i64 r = 0; r < n; ++r) {
        double sum = 0;
        for (i64 i = 0; i < V; ++i) sum += std::exp(logits.get(r, i));
        want_nll.push_back(std::log(sum) - logits.get(r, targets[at(r)]));
        for (i64 i = 0; i < V; ++i)
          want.push_back(0.25 * (std::exp(logits.get(r, i)) / sum - (i == targets[at(r)] ? 1 : 0)));
      }
      for (i64 r = 0; r < n; ++r) EXPECT_NEAR(wide(nll[at(r)]), want_nll[at(r)], 1e-5);
      if (V > 1) expect_rows(g, want, 1e-5, "grad");  // of V = 1 only rounding is left
    }
}

TEST_P(RowsOfTrainingOn, CrossEntropyOfLargeLogitsIsFiniteAndOfNanIsNan) {
  ElementRows logits(1, 50, false);
  for (i64 i = 0; i < 50; ++i) logits.set(0, i, 0);
  const i64 target = 3;
  float sum = NaN, nll = NaN;
  const auto evaluate = [&] { ops().cross_entropy({50, logits.in(), &target, &sum, &nll}, 0, 1); };
  for (const float extreme : {1e30f, -1e30f}) {
    logits.set(0, 3, extreme);
    evaluate();
    EXPECT_TRUE(std::isfinite(nll)) << extreme;
  }
  for (const i64 place : {0, 17, 49}) {
    logits.set(0, place, NaN);
    evaluate();
    EXPECT_TRUE(std::isnan(nll)) << place;
    logits.set(0, place, 0);
  }
}

TEST_P(RowsOfTrainingOn, ConvertRoundsToNearestEven) {
  const i64 n = 3;
  for (const i64 D : widths)
    for (const bool from : {false, true})
      for (const bool to : {false, true}) {
        const auto in = ElementRows::random(n, D, from, 1, 100);
        ElementRows out(n, D, to);
        ops().convert({D, in.in(), out.out()}, 0, n);
        EXPECT_TRUE(out.gaps_untouched());
        for (i64 r = 0; r < n; ++r)
          for (i64 i = 0; i < D; ++i) {
            const auto x = static_cast<float>(in.get(r, i));
            ASSERT_EQ(out.get(r, i), wide(to ? to_float(to_bf16(x)) : x)) << D;
          }
      }
}

TEST_P(RowsOfTrainingOn, AdamWStepsOnTheElementsItIsGiven) {
  for (const i64 n : widths) {
    const auto g = random_floats(n, 1), p0 = random_floats(n, 2), m0 = random_floats(n, 3), root = random_floats(n, 4);
    auto p = p0, m = m0, v = root;
    for (float& x : v) x *= x;
    const auto v0 = v;
    AdamW op{.param = p.data(), .grad = g.data(), .m = m.data(), .v = v.data(), .grad_scale = 0.5f};
    op.beta1 = 0.9f, op.beta2 = 0.95f, op.eps = 1e-8f, op.decay = 0.999f, op.step_size = 1e-2f, op.v_scale = 1.5f;
    ops().adamw(op, 1, n);
    Doubles want_p{wide(p0[0])}, want_m{wide(m0[0])}, want_v{wide(v0[0])};  // element 0 is not asked for
    for (std::size_t i = 1; i < p.size(); ++i) {
      const double grad = 0.5 * wide(g[i]);
      want_m.push_back(0.9 * wide(m0[i]) + 0.1 * grad);
      want_v.push_back(0.95 * wide(v0[i]) + 0.05 * grad * grad);
      want_p.push_back(0.999 * wide(p0[i]) - 1e-2 * want_m[i] / (std::sqrt(want_v[i]) * 1.5 + 1e-8));
    }
    expect_close({p.begin(), p.end()}, want_p, 1e-6, "param");
    expect_close({m.begin(), m.end()}, want_m, 1e-6, "m");
    expect_close({v.begin(), v.end()}, want_v, 1e-6, "v");
  }
}

TEST_P(RowsOfTrainingOn, SumOfSquares) {
  for (const i64 n : {0, 1, 7, 16, 17, 4095, 4096, 4097, 10000}) {
    const auto x = random_floats(n, 1);
    double want = 0;
    for (const float value : x) want += wide(value) * wide(value);
    EXPECT_NEAR(ops().sum_of_squares(x.data(), n), want, 1e-6 * want) << n;
  }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, RowsOfTrainingOn, testing::ValuesIn(all_kernels().begin(), all_kernels().end()),
                         [](const auto& table) { return std::string(table.param.name); });

}  // namespace
}  // namespace photon::training
