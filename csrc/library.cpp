#include "schemas.h"

TORCH_LIBRARY(mmevm, m) {
  mmevm::define_operators(m);
}
