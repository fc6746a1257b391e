// The subcommands of `photon`: each adds itself to the program and runs in its own file.
#pragma once

#include "base/command_line.h"

namespace photon {

void add_generate(Command app);   // text from a model, streamed, with statistics
void add_score(Command app);      // log-probabilities of a token sequence
void add_agree(Command app);      // how far each protocol is from the forward pass
void add_selfcheck(Command app);  // whether a model runs as it should on this machine
void add_eval(Command app);       // tasks: wikitext, lambada, hellaswag and others
void add_vote(Command app);       // many sampled answers to a question, and a vote among them
void add_info(Command app);       // what a model is and what it costs
void add_bench(Command app);      // speed and memory against the machine's ceilings
void add_init(Command app);       // a model folder with random weights
void add_quantize(Command app);   // a model folder with int8 or int4 weights
void add_export(Command app);     // a vanilla model as GGUF
void add_serve(Command app);      // the OpenAI-compatible server
void add_tokenizer(Command app);  // SentencePiece: train, encode, decode
void add_shard(Command app);      // text files to a training shard

}  // namespace photon
