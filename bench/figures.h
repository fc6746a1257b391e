// Figures of a benchmark: throughput against context, throughput against the memory of the KV caches.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "bench/run.h"

namespace photon {

struct FigurePoint {
  double x = 0, y = 0, low = 0, high = 0;
  std::string label{};  // of a workload of the paper, "128+2048"; else empty
};
/// How a line looks, the same in every figure of a run: a model has its colour (0: the vanilla model), a protocol its
/// marker, full for hiergen and hollow for recgen, a precision the marker's shape.  Batches or contexts that make lines
/// of their own differ in their dashes.
struct FigureLook {
  std::size_t colour = 0, shape = 0, dash = 0;
  bool hollow = false;
  bool operator==(const FigureLook&) const = default;
};
/// Results that differ in what the figure's axes show alone, by rising x; named by what tells them apart from the
/// others.
struct FigureLine {
  std::string name;
  FigureLook look{};
  std::vector<FigurePoint> points{};
};
/// Tokens per second (all streams) over the context, that of prefilling being where it ends.
std::vector<FigureLine> throughput_by_context(std::span<const BenchResult> results);
/// Tokens per second over GiB of KV cache, decoding only: how much of one a method gets for the other.  A line follows
/// growing batches, or growing contexts where all batches are alike.
std::vector<FigureLine> throughput_by_memory(std::span<const BenchResult> results);

/// Thousands of tokens per second over GiB of one stream's KV cache, as in the paper's figure 3: of workloads of the
/// paper.
std::vector<FigureLine> paper_throughput_by_memory(std::span<const BenchResult> results);

/// The folder for figures, if it is not there yet.  @throws InputError if it cannot be made
void make_folder(const std::filesystem::path& folder);
/// Draws FOLDER/throughput-context.svg and, of decoding, FOLDER/throughput-memory.svg, with gnuplot's scripts beside
/// them.  @throws InputError if a file cannot be written or gnuplot fails
void draw_figures(std::span<const BenchResult> results, const std::filesystem::path& folder);
/// Draws FOLDER/paper-figure3.svg: ours on the left, the paper's on the right.  @throws InputError likewise
void draw_paper_figure(std::span<const BenchResult> results, const std::filesystem::path& folder);

}  // namespace photon
