// The page at /: open to everybody, since it holds nothing that a key protects.
#pragma once

#include "serve/router.h"

namespace photon {

/// Routes to every file of the page.
void add_page(Router& router);

}  // namespace photon
