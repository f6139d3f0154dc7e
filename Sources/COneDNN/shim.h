#ifndef KDS_CONEDNN_SHIM_H
#define KDS_CONEDNN_SHIM_H
#include <dnnl.h>
#endif
