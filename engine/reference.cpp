#include "engine/reference.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <map>
#include <string>

#include "spec/tensor_names.h"
#include "weights/model_folder.h"

namespace photon {
namespace {

using Vec = std::vector<double>;
using Rows = std::vector<Vec>;

struct Tensor {
  std::int64_t rows = 0, cols = 0;
  Vec values;
};

struct Reference {
  explicit Reference(const std::filesystem::path& path) : folder(open_model_folder(path)), spec(folder.spec) {}

  const Tensor& tensor(const std::string& name) {
    if (const auto found = loaded.find(name); found != loaded.end()) return found->second;
    const TensorView& view = folder.weights.at(name);
    Tensor t{.rows = view.shape.front(), .cols = view.shape.size() > 1 ? view.shape.back() : 1, .values = {}};
    for (std::int64_t i = 0; i < view.elements(); ++i) {
      std::uint32_t bits = 0;
      if (view.dtype == StoredType::f32)
        std::memcpy(&bits, view.bytes.data() + 4 * i, 4);
      else
        std::memcpy(reinterpret_cast<std::byte*>(&bits) + 2, view.bytes.data() + 2 * i, 2);
      float x = 0;
      std::memcpy(&x, &bits, 4);
      t.values.push_back(static_cast<double>(x));
    }
    return loaded.emplace(name, std::move(t)).first->second;
  }

  // y = W x, plus the bias if that has a name.
  Vec linear(const Vec& x, const std::string& name, const std::string& bias = "") {
    const Tensor& w = tensor(name);
    Vec y = bias.empty() ? Vec(static_cast<std::size_t>(w.rows), 0.0) : tensor(bias).values;
    for (std::size_t o = 0; o < y.size(); ++o)
      for (std::size_t i = 0; i < x.size(); ++i) y[o] += w.values[o * x.size() + i] * x[i];
    return y;
  }

  Vec norm(const Vec& x, const std::string& name) {
    double squares = 0;
    for (const double v : x) squares += v * v;
    const double scale = 1 / std::sqrt(squares / static_cast<double>(x.size()) + spec.norm_eps);
    const Tensor& w = tensor(name);
    Vec y = x;
    for (std::size_t i = 0; i < x.size(); ++i) y[i] *= scale * w.values[i];
    return y;
  }

  void rotate(Vec& x, std::int64_t position, const StackSpec& s) const {
    const auto h = static_cast<std::size_t>(s.head_dim), half = h / 2;
    for (std::size_t head = 0; head < x.size(); head += h)
      for (std::size_t i = 0; i < half; ++i) {
        const double angle = static_cast<double>(position) *
                             std::pow(s.rope_theta, -2.0 * static_cast<double>(i) / static_cast<double>(h));
        double &a = x[head + i], &b = x[head + i + (h - half)];
        const double a0 = a, b0 = b;
        a = a0 * std::cos(angle) - b0 * std::sin(angle);
        b = a0 * std::sin(angle) + b0 * std::cos(angle);
      }
  }

  // What the rows of the stack that predicts tokens know of the past: how many tokens it has, which one they predict.
  struct Asks {
    std::vector<std::size_t> visible, predicted;
  };
  struct Memory {
    const MemorySpec* spec;
    Rows k, v;            // [entries] [K_m·h]
    Vec offset, recency;  // [H]; how fast scores fall
  };

  // Keys and values of all that may be remembered: of tokens, or of top-level units, conds[L][u + 1].
  Memory memory_of(const MemorySpec& m) {
    const names::Memory name(spec, m.kind);
    const StackSpec& s = spec.token_stack();
    const auto width = static_cast<std::size_t>(m.n_kv_heads * s.head_dim);
    Memory memory{.spec = &m, .k = {}, .v = {}, .offset = tensor(name.offset).values, .recency = {}};
    if (m.recency)
      for (const double r : tensor(name.recency).values) memory.recency.push_back(std::log1p(std::exp(r)));
    if (m.kind == MemorySpec::Kind::units) {
      const Rows& units = conds.back();
      const LevelSpec& level = spec.level(1);
      const std::int64_t rows = spec.group_tokens() / level.chunk_size * (level.converter_len + level.chunk_size);
      for (std::size_t u = 0; u + 1 < units.size(); ++u) {
        const Vec normed = norm(units[u + 1], name.norm);
        memory.k.push_back(linear(normed, name.k));
        memory.v.push_back(linear(normed, name.v));
        if (m.rope) rotate(memory.k.back(), (static_cast<std::int64_t>(u) + 1) * rows - 1, s);
      }
      return memory;
    }
    Rows keys;  // of each token in every place of a context
    const Rows& tokens = remembered_tokens();
    for (const Vec& token : tokens) {
      const Vec normed = norm(token, name.norm);
      keys.push_back(linear(normed, name.k));
      memory.v.push_back(linear(normed, name.v));
    }
    for (std::size_t j = 0; j < tokens.size(); ++j) {
      Vec key(width, 0.0);
      for (std::size_t o = 0; o < static_cast<std::size_t>(m.context) && o <= j; ++o)
        for (std::size_t i = 0; i < width; ++i) key[i] += keys[j - o][o * width + i];
      memory.k.push_back(key);
    }
    return memory;
  }

  Rows stack(const names::Stack& name, const StackSpec& s, Rows x, const std::vector<std::int64_t>& positions,
             const std::function<bool(std::size_t, std::size_t)>& sees, const Asks& asks = {}) {
    const auto shows = [&](std::int64_t layer, std::size_t r, std::size_t c) {
      return s.is_global(layer) ? c <= r : sees(r, c);
    };
    std::vector<Memory> memories;
    for (const MemorySpec& m : s.memory) memories.push_back(memory_of(m));
    const auto h = static_cast<std::size_t>(s.head_dim), H = static_cast<std::size_t>(s.n_heads);
    const std::size_t group = H / static_cast<std::size_t>(s.n_kv_heads);
    for (std::int64_t layer = 0; layer < s.n_layers; ++layer) {
      const names::Block w = name.layer(layer);
      Rows q, k, v, unrotated;
      for (std::size_t r = 0; r < x.size(); ++r) {
        const Vec normed = norm(x[r], w.attn_norm);
        q.push_back(linear(normed, w.q));
        k.push_back(linear(normed, w.k));
        v.push_back(linear(normed, w.v));
        unrotated.push_back(q[r]);
        rotate(q[r], positions[r], s);
        rotate(k[r], positions[r], s);
      }
      for (std::size_t r = 0; r < x.size(); ++r) {
        std::vector<std::size_t> seen;
        for (std::size_t c = 0; c < x.size(); ++c)
          if (shows(layer, r, c)) seen.push_back(c);
        Vec att(H * h, 0.0), weights(seen.size());
        for (std::size_t head = 0; head < H; ++head) {
          const std::size_t kv = head / group;
          double total = 0;
          for (std::size_t c = 0; c < seen.size(); ++c) {
            double dot = 0;
            for (std::size_t i = 0; i < h; ++i) dot += q[r][head * h + i] * k[seen[c]][kv * h + i];
            total += weights[c] = std::exp(dot / std::sqrt(static_cast<double>(h)));
          }
          for (std::size_t c = 0; c < seen.size(); ++c)
            for (std::size_t i = 0; i < h; ++i) att[head * h + i] += weights[c] * v[seen[c]][kv * h + i];
          for (const Memory& m : memories) {
            if (!m.spec->is_read_by(layer)) continue;
            const std::size_t shared = head / (H / static_cast<std::size_t>(m.spec->n_kv_heads));
            const bool text = m.spec->kind == MemorySpec::Kind::text;
            const std::size_t tokens = asks.visible.at(r),
                              n = text ? tokens : tokens / static_cast<std::size_t>(spec.group_tokens());
            for (std::size_t e = 0; e < n; ++e) {
              double dot = 0;
              for (std::size_t i = 0; i < h; ++i)
                dot += (m.spec->rope ? q : unrotated)[r][head * h + i] * m.k.at(e)[shared * h + i];
              double score = dot / std::sqrt(static_cast<double>(h)) + m.offset[head];
              if (m.spec->recency) score -= m.recency[head] * std::log1p(static_cast<double>(asks.predicted[r] - e));
              const double weight = std::exp(score);
              total += weight;
              for (std::size_t i = 0; i < h; ++i) att[head * h + i] += weight * m.v[e][shared * h + i];
            }
          }
          for (std::size_t i = 0; i < h; ++i) att[head * h + i] /= total;
        }
        const Vec o = linear(att, w.o);
        for (std::size_t i = 0; i < o.size(); ++i) x[r][i] += o[i];
      }
      for (Vec& row : x) {
        const Vec normed = norm(row, w.mlp_norm);
        Vec gate = linear(normed, w.gate);
        const Vec up = linear(normed, w.up);
        for (std::size_t i = 0; i < gate.size(); ++i) gate[i] *= up[i] / (1 + std::exp(-gate[i]));
        const Vec down = linear(gate, w.down);
        for (std::size_t i = 0; i < down.size(); ++i) row[i] += down[i];
      }
    }
    for (Vec& row : x) row = norm(row, name.norm);
    return x;
  }

  // An encoder or the trunk: what its span shows a row.
  Rows causal_stack(const names::Stack& name, const StackSpec& s, const Rows& x,
                    const std::vector<std::int64_t>& positions, const Asks& asks = {}) {
    const auto w = static_cast<std::size_t>(s.span.size);
    const auto sees = [&](std::size_t r, std::size_t c) {
      switch (s.span.kind) {
        case Span::Kind::window:
          return c <= r && r < c + w;
        case Span::Kind::block:
          return c <= r && c / w == r / w;
        default:
          return c <= r;
      }
    };
    return stack(name, s, x, positions, sees, asks);
  }

  Vec embed(std::int64_t token, const std::string& table = names::embed) {
    const Tensor& w = tensor(table);
    return {w.values.begin() + token * w.cols, w.values.begin() + (token + 1) * w.cols};
  }

  // X⁽ˡ⁾ of the complete units.
  Rows encode(std::int64_t l, const Rows& below) {
    const LevelSpec& level = spec.level(l);
    const names::Level name(l);
    const auto C = static_cast<std::size_t>(level.chunk_size);
    Rows A;
    std::vector<std::int64_t> positions;
    for (std::size_t g = 0; (g + 1) * C <= below.size(); ++g) {
      Vec a;
      for (std::size_t j = 0; j < C; ++j) a.insert(a.end(), below[g * C + j].begin(), below[g * C + j].end());
      if (level.chunker_norm) a = norm(a, name.chunker_norm);
      if (level.chunker == Chunker::linear) a = linear(a, name.chunker, level.chunker_bias ? name.chunker_bias : "");
      A.push_back(a);
      positions.push_back(static_cast<std::int64_t>(g));
    }
    return causal_stack(name.encoder, level.encoder, A, positions);
  }

  // X̂⁽ˡ⁻¹⁾ of every unit of level l-1 and of the next one, from cond⁽ˡ⁾ of all groups.
  Rows decode(std::int64_t l, const Rows& cond, const Rows& units) {
    const LevelSpec& level = spec.level(l);
    const names::Level name(l);
    const auto C = static_cast<std::size_t>(level.chunk_size), R = static_cast<std::size_t>(level.converter_len);
    const auto E = static_cast<std::ptrdiff_t>(level.decoder.d_model);
    const bool stream = level.decoder.span.kind == Span::Kind::stream;
    Rows x;
    std::vector<std::int64_t> positions;
    std::vector<std::size_t> group, predicts;  // predicts: the row of each unit
    Asks asks;                                 // level 1: text before the own top-level group
    for (std::size_t g = 0; g * C <= units.size(); ++g) {
      const Vec U = linear(cond.at(g), name.converter, level.converter_bias ? name.converter_bias : "");
      for (std::size_t slot = 0; slot < R + C; ++slot) {
        const std::size_t content = g * C + slot - R;
        if (slot >= R && content >= units.size()) break;
        if (slot == R + C - 1 && !stream) break;
        if (slot < R)
          x.emplace_back(U.begin() + static_cast<std::ptrdiff_t>(slot) * E,
                         U.begin() + static_cast<std::ptrdiff_t>(slot + 1) * E);
        else
          x.push_back(folder.weights.contains(name.content_proj) ? linear(units[content], name.content_proj)
                                                                 : units[content]);
        positions.push_back(static_cast<std::int64_t>(stream ? g * (R + C) + slot : slot));
        group.push_back(g);
        const auto whole = static_cast<std::size_t>(spec.group_tokens());
        asks.visible.push_back(g * C / whole * whole);
        asks.predicted.push_back(g * C + (slot < R ? 0 : slot - R + 1));
        if (slot + 1 >= R && slot + 1 < R + C) predicts.push_back(x.size() - 1);
      }
    }
    const auto w = static_cast<std::size_t>(level.decoder.span.size);
    const auto sees = [&](std::size_t r, std::size_t c) {
      return c <= r && (stream ? r < c + w : group[r] == group[c]);
    };
    const Rows y = stack(name.decoder, level.decoder, x, positions, sees, asks);
    Rows predicted;
    for (const std::size_t row : predicts) predicted.push_back(y[row]);
    return predicted;
  }

  Vec start() {
    if (spec.learned_start) return tensor(names::start).values;
    return Vec(static_cast<std::size_t>(spec.width(spec.n_levels())), 0.0);
  }

  // What Decoder_l reads of the level below: X⁽ˡ⁻¹⁾, or rows of the decoder's own table.
  const Rows& content(std::size_t l) const { return l == 1 && spec.decoder_embedding ? decoder_tokens : X[l - 1]; }

  // As the stack that predicts tokens reads them; a trunk's bos is none.
  Rows remembered_tokens() const {
    if (!spec.trunk) return content(1);
    return {X[0].begin() + 1, X[0].end()};
  }

  void add_token(std::int64_t token) {
    X[0].push_back(embed(token));
    if (spec.decoder_embedding) decoder_tokens.push_back(embed(token, names::decoder_embed));
  }

  Rows logits(std::span<const std::int32_t> tokens) {
    X.assign(1, {});
    decoder_tokens.clear();
    conds.assign(static_cast<std::size_t>(spec.n_levels()) + 1, {});
    for (const std::int32_t token : tokens) add_token(token);
    Rows predicted;
    if (spec.trunk) {
      X[0].insert(X[0].begin(), embed(spec.bos_token_id));
      std::vector<std::int64_t> positions;
      Asks asks;
      for (std::size_t i = 0; i < X[0].size(); ++i) {
        positions.push_back(static_cast<std::int64_t>(i));
        asks.visible.push_back(i), asks.predicted.push_back(i);
      }
      predicted = causal_stack(names::trunk(), *spec.trunk, X[0], positions, asks);
    } else {
      for (std::int64_t l = 1; l <= spec.n_levels(); ++l) X.push_back(encode(l, X.back()));
      predicted = X.back();
      predicted.insert(predicted.begin(), start());
      for (std::int64_t l = spec.n_levels(); l >= 1; --l) {
        conds[static_cast<std::size_t>(l)] = predicted;
        predicted = decode(l, predicted, content(static_cast<std::size_t>(l)));
      }
    }
    for (Vec& row : predicted) row = linear(row, spec.tie_embeddings ? names::embed : names::lm_head);
    return predicted;
  }

  // Unrolls group by group and level by level, each prediction taking its place among the units.
  Rows recgen_logits(std::span<const std::int32_t> prompt, std::span<const std::int32_t> generated) {
    const auto L = static_cast<std::size_t>(spec.n_levels());
    const auto level_of = [](std::size_t l) { return static_cast<std::int64_t>(l); };
    X.assign(1, {});
    decoder_tokens.clear();
    conds.assign(L + 1, {});
    for (const std::int32_t token : prompt) add_token(token);
    for (std::size_t l = 1; l <= L; ++l) X.push_back(encode(level_of(l), X.back()));
    conds[L] = X[L];
    conds[L].insert(conds[L].begin(), start());
    for (std::size_t l = L; l >= 2; --l) conds[l - 1] = decode(level_of(l), conds[l], X[l - 1]);
    for (std::size_t l = L; l >= 2; --l) conds[l - 1].pop_back();  // the group that recgen itself begins
    Rows logits;
    const auto group_tokens = static_cast<std::size_t>(spec.group_tokens());
    while (logits.size() < generated.size()) {
      for (std::size_t l = L; l >= 1; --l) {
        const std::size_t n = group_tokens / static_cast<std::size_t>(spec.chunk_tokens(level_of(l - 1)));
        for (std::size_t i = 0; i < n; ++i) {
          const Vec predicted = decode(level_of(l), conds[l], content(l)).back();
          if (l == 1) {
            add_token(generated[logits.size()]);
            logits.push_back(linear(predicted, spec.tie_embeddings ? names::embed : names::lm_head));
          } else {
            X[l - 1].push_back(predicted);
            conds[l - 1].push_back(predicted);
          }
        }
      }
      conds[L].push_back(encode(level_of(L), X[L - 1]).back());
    }
    return logits;
  }

  ModelFolder folder;
  const Spec& spec;
  std::map<std::string, Tensor> loaded;
  Rows decoder_tokens;  // of the latest pass, with decoder_embedding
  std::vector<Rows> X, conds;  // of the latest pass: X[l] = X⁽ˡ⁾, recgen's X̂⁽ˡ⁾ below the top; conds[l][m] = cond⁽ˡ⁾_m
};

}  // namespace

std::vector<double> log_softmax(std::vector<double> logits) {
  double sum = 0;
  for (const double x : logits) sum += std::exp(x);
  for (double& x : logits) x -= std::log(sum);
  return logits;
}

std::vector<std::vector<double>> reference_logits(const std::filesystem::path& model_folder,
                                                  std::span<const std::int32_t> tokens) {
  return Reference(model_folder).logits(tokens);
}

std::vector<std::vector<double>> reference_recgen_logits(const std::filesystem::path& model_folder,
                                                         std::span<const std::int32_t> prompt,
                                                         std::span<const std::int32_t> generated) {
  return Reference(model_folder).recgen_logits(prompt, generated);
}

ReferenceUnits reference_units(const std::filesystem::path& model_folder, std::span<const std::int32_t> tokens,
                               bool recgen) {
  Reference reference(model_folder);
  reference.logits(tokens);
  ReferenceUnits units{.encoded = reference.X, .predicted = {}};
  if (recgen) reference.recgen_logits({}, tokens);
  units.predicted = reference.conds;
  return units;
}

}  // namespace photon
