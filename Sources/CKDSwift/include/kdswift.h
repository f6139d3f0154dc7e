// Umbrella of the kdswift C ABI: one header per domain.
#ifndef KDSWIFT_H
#define KDSWIFT_H
#include "kds_core.h"
#include "kds_tensor.h"
#include "kds_model.h"
#include "kds_train.h"
#endif
