#include "operators.h"

STABLE_TORCH_LIBRARY(mmevm, m) {
  for (const char* schema : mmevm::kSchemas) m.def(schema);
}
