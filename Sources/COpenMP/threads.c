#include "copenmp.h"

int *kds_no_grad_depth(void) {
  static _Thread_local int depth = 0;
  return &depth;
}

int *kds_half_depth(void) {
  static _Thread_local int depth = 0;
  return &depth;
}
