// All of tandem::data: data sets, the loader, and readers of files.
#pragma once

#include "tandem/eager/data/loader.h"
#include "tandem/eager/data/readers.h"
