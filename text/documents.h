// Text corpora: a file is a list of documents, each ended by a line "<|endoftext|>" or by the end of the file.
#pragma once

#include <string_view>
#include <vector>

#include "base/file.h"

namespace photon {

/// The documents of a mapped UTF-8 file, as views into it.  Newlines at a document's two ends are not text, and a
/// document without text is none.  docs/data-format.md.
/// @throws InputError naming file and line: invalid UTF-8, or "<|endoftext|>" inside a line.
std::vector<std::string_view> documents(const MappedFile& file);

}  // namespace photon
