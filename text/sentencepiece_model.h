// A look at a SentencePiece model file before the library reads it.
#pragma once

#include <filesystem>
#include <string_view>

namespace photon {

/// Refuses what libsentencepiece would take and then misread: files cut between two fields (its defaults stand in for
/// what is missing), and models that rewrite the text, whose normalisation tables the library follows unchecked.
/// @throws InputError naming the file and what it lacks.
void check_sentencepiece_model(std::string_view file, const std::filesystem::path& path);

}  // namespace photon
