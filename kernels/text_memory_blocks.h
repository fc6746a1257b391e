// The order of operations that the vector versions of text memory share.  For those files alone: every function is
// internal to the file that includes it (see isa.h).
//
// Four heads pass over the ids together: a look-up is one load of four scores side by side, an entry's weights are one
// addition to the histogram.  The scores are looked up twice, for their maximum and for the weights, which costs less
// than keeping them.
#pragma once

#include "kernels/isa.h"

namespace photon {
namespace {

/// `V` has Floats of `lanes`, and load store set1 fmadd exp, the first two for some lanes of float32 or bfloat16.
template <class V>
class TextReader {
 public:
  static void read(const TextCall& call) {
    interleave(call);
    const Heads top = largest(call);
    weigh(call, top);
    store(call.top, top);
    add_values(call);
  }

 private:
  using i64 = std::int64_t;
  using Heads = float __attribute__((vector_size(16)));  // a number of each head
  using Floats = typename V::Floats;
  static constexpr i64 lanes = V::lanes, block = 64, most_context = 64;

  static Heads load(const float* p) {
    Heads x;
    __builtin_memcpy(&x, p, sizeof(x));
    return x;
  }
  static void store(float* p, Heads x) { __builtin_memcpy(p, &x, sizeof(x)); }
  static i64 least(i64 a, i64 b) { return a < b ? a : b; }

  static void interleave(const TextCall& call) {
    for (i64 o = 0; o < call.context; ++o) {
      const float* of_head[text_heads];
      for (i64 k = 0; k < text_heads; ++k) of_head[k] = call.scores[k < call.n_heads ? k : 0] + o * call.score_stride;
      float* const table = call.table + o * (call.vocab_size + 1) * text_heads;
      for (i64 i = 0; i < call.n_ids; ++i) {
        const i64 id = call.ids[i];
        store(table + id * text_heads, Heads{of_head[0][id], of_head[1][id], of_head[2][id], of_head[3][id]});
      }
    }
  }

  // Ids of up to 64 entries, with those before them that their contexts reach; before the text: the row of zeros.
  struct Ids {
    std::int32_t id[block + most_context];

    void take(const TextCall& call, i64 from, i64 n) {
      std::int32_t* to = id;
      i64 j = from - (call.context - 1);
      for (; j < 0; ++j) *to++ = static_cast<std::int32_t>(call.vocab_size);
      while (j < from + n) {
        const i64 slot = j % call.page_tokens, here = least(from + n - j, call.page_tokens - slot);
        const std::byte* at = call.pages[j / call.page_tokens] + slot * call.id_bytes;
        if (call.id_bytes == 2) {
          for (i64 i = 0; i < here; ++i) {
            std::uint16_t narrow;
            __builtin_memcpy(&narrow, at + 2 * i, 2);
            to[i] = narrow;
          }
        } else {
          __builtin_memcpy(to, at, static_cast<std::size_t>(4 * here));
        }
        to += here, j += here;
      }
    }
  };

  // visit(id of the entry, its scores)
  template <bool recent, class Visit>
  static void visit_block(const TextCall& call, const Ids& ids, i64 from, i64 n, const Visit& visit) {
    const i64 width = (call.vocab_size + 1) * text_heads;
    const Heads rates = load(call.rates);
    const float* log_distance = recent ? call.log_distances + (call.predicted - from) : nullptr;
    for (i64 i = 0; i < n; ++i) {
      const std::int32_t* const own = ids.id + i + call.context - 1;
      const float* table = call.table;
      Heads score = load(table + i64{own[0]} * text_heads);
      for (i64 o = 1; o < call.context; ++o) {
        table += width;
        score += load(table + i64{own[-o]} * text_heads);
      }
      if constexpr (recent) score -= rates * log_distance[-i];
      visit(i, own[0], score);
    }
  }

  template <class Visit>
  static void visit_scores(const TextCall& call, const Ids& ids, i64 from, i64 n, const Visit& visit) {
    call.log_distances != nullptr ? visit_block<true>(call, ids, from, n, visit)
                                  : visit_block<false>(call, ids, from, n, visit);
  }

  static Heads largest(const TextCall& call) {
    Heads top = Heads{} - __builtin_inff();
    Ids ids;
    for (i64 from = call.first; from < call.last; from += block) {
      const i64 n = least(block, call.last - from);
      ids.take(call, from, n);
      visit_scores(call, ids, from, n, [&](i64, std::int32_t, Heads score) { top = score > top ? score : top; });
    }
    return top;
  }

  static void weigh(const TextCall& call, Heads top) {
    alignas(64) float scores[block * text_heads];
    double sums[text_heads] = {};
    Ids ids;
    for (i64 from = call.first; from < call.last; from += block) {
      const i64 n = least(block, call.last - from);
      ids.take(call, from, n);
      visit_scores(call, ids, from, n,
                   [&](i64 i, std::int32_t, Heads score) { store(scores + i * text_heads, score - top); });
      for (i64 i = 0; i < n * text_heads; i += lanes) {
        const i64 some = least(lanes, n * text_heads - i);
        V::store(scores + i, V::exp(V::load(scores + i, some)), some);
      }
      Heads sum{};
      for (i64 i = 0; i < n; ++i) {
        const Heads weight = load(scores + i * text_heads);
        float* const of_id = call.weights + i64{ids.id[i + call.context - 1]} * text_heads;
        store(of_id, load(of_id) + weight);
        sum += weight;
      }
      for (i64 k = 0; k < text_heads; ++k) sums[k] += static_cast<double>(sum[k]);
    }
    for (i64 k = 0; k < text_heads; ++k) call.sum[k] = static_cast<float>(sums[k]);
  }

  // out = Σ weight of id · value of id, over the ids that have a weight; clears the weights.
  static void add_values(const TextCall& call) {
    i64 n = 0;
    for (i64 i = 0; i < call.n_ids; ++i) {
      const Heads weight = load(call.weights + i64{call.ids[i]} * text_heads);
      call.weighed[n] = call.ids[i];
      n += (weight[0] != 0) | (weight[1] != 0) | (weight[2] != 0) | (weight[3] != 0);
    }
    bool alike = true;  // heads that share a kv head share the loads
    for (i64 k = 1; k < call.n_heads; ++k) alike = alike && call.values[k] == call.values[0];
    if (alike && call.n_heads > 1) {
      add_values<text_heads>(call, 0, n);
    } else {
      for (i64 k = 0; k < call.n_heads; ++k) add_values<1>(call, k, n);
    }
    for (i64 i = 0; i < n; ++i) store(call.weights + i64{call.weighed[i]} * text_heads, Heads{});
  }

  template <int heads>
  static void add_values(const TextCall& call, i64 head, i64 n) {
    if (call.type == DType::f32)
      add_rows<heads>(call, head, n, reinterpret_cast<const float*>(call.values[head]));
    else
      add_rows<heads>(call, head, n, reinterpret_cast<const bf16*>(call.values[head]));
  }

  template <int heads, class T>
  static void add_rows(const TextCall& call, i64 head, i64 n, const T* values) {
    const i64 h = call.head_dim;
    for (i64 d = 0; d < h; d += 2 * lanes) {
      const i64 low = least(lanes, h - d), high = least(lanes, h - d - low);
      Floats sums[heads][2];
#pragma GCC unroll 4
      for (int k = 0; k < heads; ++k) sums[k][0] = sums[k][1] = V::set1(0);
      for (i64 i = 0; i < n; ++i) {
        const T* const row = values + call.weighed[i] * h + d;
        const float* const weight = call.weights + i64{call.weighed[i]} * text_heads + head;
        const Floats first = V::load(row, low), second = high > 0 ? V::load(row + lanes, high) : V::set1(0);
#pragma GCC unroll 4
        for (int k = 0; k < heads; ++k) {
          const Floats w = V::set1(weight[k]);
          sums[k][0] = V::fmadd(first, w, sums[k][0]);
          sums[k][1] = V::fmadd(second, w, sums[k][1]);
        }
      }
      for (int k = 0; k < heads && head + k < call.n_heads; ++k) {
        V::store(call.out[head + k] + d, sums[k][0], low);
        if (high > 0) V::store(call.out[head + k] + d + lanes, sums[k][1], high);
      }
    }
  }
};

}  // namespace
}  // namespace photon
