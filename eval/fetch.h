// Downloads the datasets' files from where their authors publish them.
#pragma once

#include <filesystem>
#include <functional>
#include <span>
#include <string>

namespace photon {

/// A published file.  docs/evaluation.md lists them.
struct Download {
  const char* task;
  const char* url;
  const char* path;         // below the data folder: where its task looks for it
  bool from_archive;        // url is a zip archive, and path the file's name in it
  const char* sha256 = "";  // of the file; "": we have not seen it ourselves
};
std::span<const Download> downloads();

/// Gets the files of some tasks that the folder does not hold yet, with curl and, for archives, unzip.
/// @param say  is told what happens, a line at a time
/// @throws InputError if a program is missing, an address cannot be reached, or a file is not the published one.
void fetch(std::span<const std::string> tasks, const std::filesystem::path& folder,
           const std::function<void(const std::string&)>& say);

}  // namespace photon
