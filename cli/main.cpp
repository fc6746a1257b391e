// photon: run, score and inspect models of the PHOTON family.  `photon --help` lists the subcommands.
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdio>
#include <exception>
#include <iostream>

#include "base/error.h"
#include "base/threads.h"
#include "base/version.h"
#include "cli/arguments.h"
#include "cli/commands.h"

int main(int argc, char** argv) {
  photon::start_with(photon::openmp_settings(), argv);
  spdlog::set_default_logger(spdlog::stderr_color_mt("photon"));
  spdlog::set_pattern("%^%l%$: %v");

  photon::CommandLine line("PHOTON, Block Transformer and vanilla language models on the CPU",
                           photon::version_line("photon"));
  photon::Command app = line.command();
  app.needs_subcommand();
  photon::add_generate(app);
  photon::add_score(app);
  photon::add_agree(app);
  photon::add_selfcheck(app);
  photon::add_eval(app);
  photon::add_vote(app);
  photon::add_info(app);
  photon::add_bench(app);
  photon::add_init(app);
  photon::add_quantize(app);
  photon::add_export(app);
  photon::add_serve(app);
  photon::add_tokenizer(app);
  photon::add_shard(app);
  try {
    if (const int code = line.run(argc, argv); code != 0) return code;
  } catch (const photon::FieldError& e) {
    spdlog::error("{}", photon::in_flags(e));
    return 1;
  } catch (const std::exception& e) {
    spdlog::error("{}", e.what());
    return 1;
  }
  if (!std::cout.flush() || std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    spdlog::error("standard output could not be written in full");
    return 1;
  }
  return 0;
}
