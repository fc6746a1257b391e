// The teacher-forced forward pass: encode bottom-up, decode top-down, no shift in the loss.
#include "train/model.h"

#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <string_view>

#include "spec/tensor_names.h"

namespace photon {

using torch::Tensor;

namespace modules {
namespace {

// A parameter of the model under the name of its tensor: "levels.1.chunker.weight" is `weight` of the module `chunker`
// in the module `1` in `levels`.
Tensor add_weight(torch::nn::Module& model, const std::string& name, std::vector<int64_t> shape) {
  torch::nn::Module* owner = &model;
  std::string_view rest = name;
  for (auto dot = rest.find('.'); dot != rest.npos; dot = rest.find('.')) {
    const std::string module(rest.substr(0, dot));
    const auto children = owner->named_children();
    const auto* child = children.find(module);
    owner =
        child != nullptr ? child->get() : owner->register_module(module, std::make_shared<torch::nn::Module>()).get();
    rest.remove_prefix(dot + 1);
  }
  return owner->register_parameter(std::string(rest), torch::empty(shape));
}

// y = x wᵀ, plus the bias if there is one, in x's dtype.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const Tensor y = ops::linear(x, weight);
  return bias.defined() ? y + bias.to(y.scalar_type()) : y;
}

// x [B, S, D] -> [B, S/period·count, D].
Tensor select(const Tensor& x, const Slots& wanted) {
  if (wanted.count == wanted.period) return x;
  const Tensor groups = x.view({x.size(0), -1, wanted.period, x.size(2)});
  return groups.narrow(2, wanted.first, wanted.count).flatten(1, 2);
}

// The stream with its last addition made, and its norm.
ops::Normed norm_of(const Residual& stream, const Tensor& weight, double eps, torch::ScalarType dtype) {
  if (stream.y.defined()) return ops::add_rms_norm(stream.x, stream.y, weight, eps, dtype);
  return {stream.x, ops::rms_norm(stream.x, weight, eps, dtype)};
}

// Attention of a block that reads memories; the rows of a sequence that were folded into the batch stand together
// again.
Tensor attend_to_past(const Tensor& qkv, const ops::RopeTable& rope, const StackSpec& s, const Past& past,
                      const std::vector<Remembered>& memories) {
  const int64_t B = qkv.size(0), S = qkv.size(1), H = s.n_heads, K = s.n_kv_heads, h = s.head_dim;
  const Tensor heads = qkv.view({B, S, H + 2 * K, h}), q = heads.narrow(2, 0, H);
  const auto together = [&](const Tensor& x) { return x.reshape({past.n_sequences, -1, x.size(2), h}); };
  return attend_and_remember(together(q), together(ops::rotate(q, rope)),
                             together(ops::rotate(heads.narrow(2, H, K), rope)), together(heads.narrow(2, H + K, K)),
                             s.span, past.layout, memories)
      .view({B, S, H * h});
}

}  // namespace

Memory::Memory(torch::nn::Module& model, const Spec& whole, const MemorySpec& memory)
    : spec(memory), stack(whole.token_stack()), layout(row_layout(whole)), norm_eps(whole.norm_eps) {
  const names::Memory name(whole, memory.kind);
  const bool is_text = memory.kind == MemorySpec::Kind::text;
  const int64_t D = is_text ? whole.token_width() : whole.width(whole.n_levels()),
                width = memory.n_kv_heads * stack.head_dim;
  norm = add_weight(model, name.norm, {D});
  k = add_weight(model, name.k, {(is_text ? memory.context : 1) * width, D});
  v = add_weight(model, name.v, {width, D});
  offset = add_weight(model, name.offset, {stack.n_heads});
  if (memory.recency) recency = add_weight(model, name.recency, {stack.n_heads});
}

Remembered Memory::remember(const Tensor& past, torch::ScalarType dtype) const {
  const int64_t B = past.size(0), N = past.size(1), K = spec.n_kv_heads, h = stack.head_dim;
  const Tensor normed = ops::rms_norm(past, norm, norm_eps, dtype);
  Remembered memory{.v = ops::linear(normed, v).view({B, N, K, h}), .offset = offset};
  if (recency.defined()) memory.rate = torch::softplus(recency);
  const Tensor keys = ops::linear(normed, k);
  if (spec.kind == MemorySpec::Kind::text) {  // of token j: Σ_o W_k^o e_{j-o}
    const Tensor by_place = keys.view({B, N, spec.context, K, h});
    memory.k = by_place.select(2, 0);
    for (int64_t o = 1; o < std::min(spec.context, N); ++o)
      memory.k = memory.k + torch::constant_pad_nd(by_place.select(2, o).narrow(1, 0, N - o), {0, 0, 0, 0, o, 0});
    return memory;
  }
  memory.k = keys.view({B, N, K, h});
  memory.entry_tokens = layout.group_tokens;
  if (spec.rope) {  // at the last row of each group
    const int64_t rows = layout.group_tokens / layout.chunk * layout.period;
    const auto table = ops::rope_table(N * rows, stack, norm.options());
    const Tensor last = torch::arange(1, N + 1, torch::kInt64).to(past.device()) * rows - 1;
    memory.k = ops::rotate(memory.k, {table.cos.index_select(0, last), table.sin.index_select(0, last)});
    memory.rotated = true;
  }
  return memory;
}

Block::Block(torch::nn::Module& model, const names::Block& name, const StackSpec& s, double eps)
    : stack(s),
      norm_eps(eps),
      attn_norm(add_weight(model, name.attn_norm, {s.d_model})),
      q(add_weight(model, name.q, {s.q_width(), s.d_model})),
      k(add_weight(model, name.k, {s.kv_width(), s.d_model})),
      v(add_weight(model, name.v, {s.kv_width(), s.d_model})),
      o(add_weight(model, name.o, {s.d_model, s.q_width()})),
      mlp_norm(add_weight(model, name.mlp_norm, {s.d_model})),
      gate(add_weight(model, name.gate, {s.d_ff, s.d_model})),
      up(add_weight(model, name.up, {s.d_ff, s.d_model})),
      down(add_weight(model, name.down, {s.d_model, s.d_ff})) {}

Residual Block::forward(const Residual& stream, const ops::RopeTable& rope, const Slots& wanted,
                        torch::ScalarType dtype, const Past& past, const std::vector<Remembered>& memories) {
  const auto [x, normed] = norm_of(stream, attn_norm, norm_eps, dtype);    // [B, S, D]
  const Tensor qkv = ops::linear(normed, {q, k, v});                       // [B, S, (H+2K)·h]
  const Tensor seen = memories.empty() ? ops::attention(qkv, rope, stack)  // [B, S, H·h]
                                       : attend_to_past(qkv, rope, stack, past, memories);
  const Tensor attended = select(seen, wanted);                          // [B, S', H·h]
  const Residual after{select(x, wanted), ops::linear(attended, o)};     // [B, S', D]
  const auto [y, normed_y] = norm_of(after, mlp_norm, norm_eps, dtype);  // [B, S', D]
  const Tensor gate_up = ops::linear(normed_y, {gate, up});              // [B, S', 2·d_ff]
  return {y, ops::linear(ops::swiglu(gate_up), down)};                   // [B, S', D]
}

Stack::Stack(torch::nn::Module& model, const names::Stack& name, const StackSpec& s, double eps)
    : spec(s), norm_eps(eps), norm(add_weight(model, name.norm, {s.d_model})) {
  for (int64_t i = 0; i < s.n_layers; ++i) {
    StackSpec block = s;
    block.span = s.span_of(i);
    layers.emplace_back(model, name.layer(i), block, eps);
  }
}

Tensor Stack::forward(const Tensor& x, torch::ScalarType dtype, const Slots& wanted, const Past& past) {
  const auto residual_dtype = norm.scalar_type();
  const auto rope = ops::rope_table(x.size(1), spec, norm.options());
  Residual stream{x.to(residual_dtype), {}};
  // Only the last block may drop positions: until then each is a key that others look at.
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto memories = past.of_layer.empty() ? std::vector<Remembered>() : past.of_layer[i];
    stream = layers[i].forward(stream, rope, i + 1 == layers.size() ? wanted : Slots{}, dtype, past, memories);
  }
  return norm_of(stream, norm, norm_eps, dtype).normed;
}

Level::Level(torch::nn::Module& model, const Spec& whole, int64_t l)
    : spec(whole.level(l)),
      norm_eps(whole.norm_eps),
      encoder(model, names::Level(l).encoder, spec.encoder, whole.norm_eps),
      decoder(model, names::Level(l).decoder, spec.decoder, whole.norm_eps) {
  const names::Level name(l);
  const int64_t chunk_width = spec.chunk_size * whole.width(l - 1), E = spec.decoder.d_model;
  if (spec.chunker_norm) chunker_norm = add_weight(model, name.chunker_norm, {chunk_width});
  if (spec.chunker == Chunker::linear) chunker = add_weight(model, name.chunker, {whole.width(l), chunk_width});
  if (spec.chunker_bias) chunker_bias = add_weight(model, name.chunker_bias, {whole.width(l)});
  converter = add_weight(model, name.converter, {spec.converter_len * E, whole.cond_width(l)});
  if (spec.converter_bias) converter_bias = add_weight(model, name.converter_bias, {spec.converter_len * E});
  if (const int64_t D = whole.content_width(l); D != E) content_proj = add_weight(model, name.content_proj, {E, D});
}

Tensor Level::encode(const Tensor& below, torch::ScalarType dtype) {
  const int64_t B = below.size(0), C = spec.chunk_size, M = below.size(1) / C;
  Tensor chunks = below.reshape({B, M, C * below.size(2)});
  if (chunker_norm.defined()) chunks = ops::rms_norm(chunks, chunker_norm, norm_eps, dtype);
  const Tensor A = chunker.defined() ? linear(chunks.to(dtype), chunker, chunker_bias) : chunks;  // A⁽ˡ⁾ [B, M, D_l]
  return encoder.forward(A, dtype);  // X⁽ˡ⁾ [B, M, D_l]
}

Tensor Level::decode(const Tensor& cond, const Tensor& content, torch::ScalarType dtype, const Past& past) {
  const int64_t B = cond.size(0), M = cond.size(1);
  const int64_t C = spec.chunk_size, R = spec.converter_len, E = spec.decoder.d_model;
  const Tensor U = linear(cond.to(dtype), converter, converter_bias).view({B, M, R, E});
  const Tensor projected = content_proj.defined() ? ops::linear(content.to(dtype), content_proj) : content;
  const Tensor slots = projected.reshape({B, M, C, E});
  const auto residual_dtype = converter.scalar_type();
  // Prefix position R predicts slot 1, content slot j predicts slot j+1.
  if (spec.decoder.span.kind == Span::Kind::stream) {
    const Tensor rows = torch::cat({U.to(residual_dtype), slots.to(residual_dtype)}, 2);  // [B, M, R+C, E]
    return decoder.forward(rows.flatten(1, 2), dtype, {R + C, R - 1, C}, past);
  }
  const Tensor fed = slots.narrow(2, 0, C - 1);                                       // slot C is never an input
  const Tensor rows = torch::cat({U.to(residual_dtype), fed.to(residual_dtype)}, 2);  // [B, M, R+C-1, E]
  return decoder.forward(rows.flatten(0, 1), dtype, {R + C - 1, R - 1, C}, past).view({B, M * C, E});
}

}  // namespace modules

Photon::Photon(const Spec& spec, const TensorSource& source) : spec_(spec) {
  if (const auto found = problems(spec); !found.empty()) throw SpecError(fmt::format("{}", fmt::join(found, "\n")));
  embed_ = modules::add_weight(*this, names::embed, {spec.vocab_size, spec.d_embed});
  if (spec.decoder_embedding)
    decoder_embed_ = modules::add_weight(*this, names::decoder_embed, {spec.vocab_size, spec.content_width(1)});
  for (int64_t l = 1; l <= spec.n_levels(); ++l) levels_.emplace_back(*this, spec, l);
  if (spec.trunk)
    trunk_.emplace(*this, names::trunk(), *spec.trunk, spec.norm_eps);
  else if (spec.learned_start)
    start_ = modules::add_weight(*this, names::start, {spec.width(spec.n_levels())});
  for (const MemorySpec& memory : spec.token_stack().memory) memories_.emplace_back(*this, spec, memory);
  if (!spec.tie_embeddings) lm_head_ = modules::add_weight(*this, names::lm_head, {spec.vocab_size, spec.head_width()});

  torch::NoGradGuard no_grad;
  const auto wanted = tensors(spec);
  const auto parameters = weights();
  for (size_t i = 0; i < wanted.size(); ++i) {
    auto values = source.values(wanted[i]);
    parameters[i].second.copy_(torch::from_blob(values.data(), wanted[i].shape));
  }
}

std::vector<std::pair<std::string, Tensor>> Photon::weights() const {
  const auto registered = named_parameters();
  const auto wanted = tensors(spec_);
  if (registered.size() != wanted.size()) throw std::logic_error("model and tensors(spec) differ in their tensors");
  std::vector<std::pair<std::string, Tensor>> list;
  for (const TensorSpec& tensor : wanted) {
    const Tensor* weight = registered.find(tensor.name);
    if (weight == nullptr || weight->sizes() != tensor.shape)
      throw std::logic_error(tensor.name + ": model and tensors(spec) differ");
    list.emplace_back(tensor.name, *weight);
  }
  return list;
}

// tokens [B, T], T a multiple of C_≤L -> X[0..L], X[l] [B, M_l, D_l].
std::vector<Tensor> Photon::encode(const Tensor& tokens) {
  std::vector<Tensor> X{torch::embedding(embed_, tokens)};
  for (modules::Level& level : levels_) X.push_back(level.encode(X.back(), compute_dtype_));
  return X;
}

// X[L] and content[0..L-1] -> X̂[0..L-1], X̂[l] [B, M_l, E_{l+1}].
std::vector<Tensor> Photon::decode(const Tensor& top, const std::vector<Tensor>& content) {
  const size_t L = levels_.size();
  std::vector<Tensor> X_hat(L);
  const Tensor start = start_.defined() ? start_.to(top.scalar_type()).expand({top.size(0), 1, top.size(2)})
                                        : torch::zeros({top.size(0), 1, top.size(2)}, top.options());
  Tensor cond = torch::cat({start, top.narrow(1, 0, top.size(1) - 1)}, 1);  // shifted by one, at the top only
  for (size_t l = L; l >= 1; --l) {
    X_hat[l - 1] =
        levels_[l - 1].decode(cond, content[l - 1], compute_dtype_, l == 1 ? past(content[0], top) : modules::Past());
    cond = X_hat[l - 1];
  }
  return X_hat;
}

// What the stack that predicts tokens may ask: content of tokens [B, T, E], units X⁽ᴸ⁾ [B, M, D_L].
modules::Past Photon::past(const Tensor& tokens, const Tensor& units) const {
  modules::Past past;
  if (memories_.empty()) return past;
  past.n_sequences = tokens.size(0);
  past.layout = row_layout(spec_);
  past.of_layer.resize(static_cast<size_t>(spec_.token_stack().n_layers));
  for (const modules::Memory& memory : memories_) {
    const bool is_text = memory.spec.kind == MemorySpec::Kind::text;
    const Remembered remembered = memory.remember(is_text ? tokens : units, compute_dtype_);
    for (const int64_t layer : memory.spec.layers) past.of_layer[static_cast<size_t>(layer)].push_back(remembered);
  }
  return past;
}

// L_rec over the units that lie wholly within the T real tokens.
Tensor Photon::rec_loss(const std::vector<Tensor>& content, const std::vector<Tensor>& X_hat, int64_t T,
                        RecLevels rec_levels) const {
  Tensor total = torch::zeros({}, embed_.options());
  for (int64_t l = rec_levels == RecLevels::all ? 1 : 2; l <= spec_.n_levels(); ++l) {
    const int64_t complete = T / spec_.chunk_tokens(l - 1);
    if (complete == 0) continue;
    const auto dtype = embed_.scalar_type();
    const auto below = static_cast<size_t>(l - 1);
    const Tensor predicted = X_hat[below].narrow(1, 0, complete).to(dtype);
    const Tensor target = content[below].narrow(1, 0, complete).detach().to(dtype);
    total = total + (1.0 - torch::cosine_similarity(predicted, target, 2)).mean();
  }
  return total;
}

Photon::Hidden Photon::hidden(const Tensor& tokens, RecLevels rec_levels, bool differentiable_rec_loss) {
  TORCH_CHECK(tokens.dim() == 2 && tokens.size(1) >= 1 && tokens.scalar_type() == torch::kInt64, "tokens ",
              tokens.sizes(), " are not [B, T] int64 with T >= 1");
  const int64_t T = tokens.size(1), L = spec_.n_levels();
  if (L == 0) {
    const Tensor bos = torch::full({tokens.size(0), 1}, spec_.bos_token_id, tokens.options());
    const Tensor inputs = torch::cat({bos, tokens.narrow(1, 0, T - 1)}, 1);  // [bos, t_1 … t_{T-1}]
    const Tensor embedded = torch::embedding(embed_, inputs);
    const modules::Past asked = past(embedded.narrow(1, 1, T - 1), Tensor());  // bos is no text
    return {trunk_->forward(embedded, compute_dtype_, {}, asked), torch::zeros({}, embed_.options())};
  }
  const int64_t C = spec_.group_tokens(), padding = (C - T % C) % C;
  TORCH_CHECK(rec_levels == RecLevels::above_tokens || can_reconstruct_tokens(spec_),
              "rec_levels \"all\" wants content ", spec_.head_width(), " wide, it is ", spec_.content_width(1));
  const Tensor padded = padding == 0 ? tokens : torch::constant_pad_nd(tokens, {0, padding});
  auto content = encode(padded);  // X[0..L], then what the decoders read
  const Tensor top = content.back();
  content.pop_back();
  if (decoder_embed_.defined()) content[0] = torch::embedding(decoder_embed_, padded);
  const auto X_hat = decode(top, content);
  const Tensor last = X_hat[0].narrow(1, 0, T);  // before gradients may be switched off
  torch::AutoGradMode gradients(torch::GradMode::is_enabled() && differentiable_rec_loss);
  return {last, rec_loss(content, X_hat, T, rec_levels)};
}

const Tensor& Photon::head_weight() const { return lm_head_.defined() ? lm_head_ : embed_; }

Photon::Output Photon::forward(const Tensor& tokens, RecLevels rec_levels) {
  const Hidden h = hidden(tokens, rec_levels, true);
  return {ops::linear(h.last, head_weight()), h.rec_loss};
}

Photon::Loss Photon::loss(const Tensor& tokens, double alpha, RecLevels rec_levels) {
  const Hidden h = hidden(tokens, rec_levels, alpha != 0.0);
  const Tensor token = ops::head_loss(h.last.flatten(0, 1), head_weight(), tokens.flatten());
  return {alpha == 0.0 ? token : token + alpha * h.rec_loss, token, h.rec_loss};
}

void Photon::set_token_span(int64_t size) {
  modules::Stack& stack = levels_.empty() ? *trunk_ : levels_.front().decoder;
  for (modules::Block& block : stack.layers)
    if (block.stack.span.has_size()) block.stack.span.size = size;
}

}  // namespace photon
