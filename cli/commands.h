// The subcommands of `photon`: each adds itself to the program and runs in its own file.
#pragma once

namespace CLI {
class App;
}

namespace photon {

void add_generate(CLI::App& app);   // text from a model, streamed, with statistics
void add_score(CLI::App& app);      // log-probabilities of a token sequence
void add_agree(CLI::App& app);      // how far each protocol is from the forward pass
void add_selfcheck(CLI::App& app);  // whether a model runs as it should on this machine
void add_eval(CLI::App& app);       // tasks: wikitext, lambada, hellaswag and others
void add_vote(CLI::App& app);       // many sampled answers to a question, and a vote among them
void add_info(CLI::App& app);       // what a model is and what it costs
void add_bench(CLI::App& app);      // speed and memory against the machine's ceilings
void add_init(CLI::App& app);       // a model folder with random weights
void add_quantize(CLI::App& app);   // a model folder with int8 or int4 weights
void add_export(CLI::App& app);     // a vanilla model as GGUF
void add_serve(CLI::App& app);      // the OpenAI-compatible server
void add_tokenizer(CLI::App& app);  // SentencePiece: train, encode, decode
void add_shard(CLI::App& app);      // text files to a training shard

}  // namespace photon
