// The structs of DLPack 1.0 (https://dmlc.github.io/dlpack/latest/c_api.html), laid out by its ABI.
#include "kdswift_dlpack.h"
#include <stdlib.h>

typedef struct {
  int32_t device_type, device_id;
} Device;

typedef struct {
  uint8_t code, bits;
  uint16_t lanes;
} DataType;

typedef struct {
  void *data;
  Device device;
  int32_t rank;
  DataType dtype;
  int64_t *shape, *strides;
  uint64_t byte_offset;
} View;

typedef struct Managed {
  View view;
  void *context;
  void (*deleter)(struct Managed *);
} Managed;

typedef struct ManagedVersioned {
  uint32_t major, minor;
  void *context;
  void (*deleter)(struct ManagedVersioned *);
  uint64_t flags;
  View view;
} ManagedVersioned;

enum { DEVICE_CPU = 1, CODE_INT = 0, CODE_FLOAT = 2, FLAG_READ_ONLY = 1 };

// What both deleters need; shape and strides stand behind it.
typedef struct {
  void *owner;
  void (*release)(void *);
  int64_t extents[];
} Context;

static void end(Context *context, void *managed) {
  context->release(context->owner);
  free(context);
  free(managed);
}

static void delete_managed(Managed *managed) {
  if (managed != NULL) end(managed->context, managed);
}

static void delete_versioned(ManagedVersioned *managed) {
  if (managed != NULL) end(managed->context, managed);
}

static View make_view(
    void *data, int32_t rank, const int64_t *dims, int32_t is_float, Context *context) {
  int64_t *shape = context->extents, *strides = shape + rank, stride = 1;
  for (int32_t axis = rank; axis-- > 0;) {
    shape[axis] = dims[axis];
    strides[axis] = stride;
    stride *= dims[axis];
  }
  DataType dtype = {is_float ? CODE_FLOAT : CODE_INT, is_float ? 32 : 64, 1};
  View view = {data, {DEVICE_CPU, 0}, rank, dtype, shape, strides, 0};
  return view;
}

void *kdswift_dlpack_new(
    void *data, int32_t rank, const int64_t *dims, int32_t is_float, int32_t versioned, void *owner,
    void (*release)(void *)) {
  Context *context = malloc(sizeof(Context) + 2 * (size_t)rank * sizeof(int64_t));
  void *memory = calloc(1, versioned ? sizeof(ManagedVersioned) : sizeof(Managed));
  if (context == NULL || memory == NULL) {
    free(context);
    free(memory);
    return NULL;
  }
  context->owner = owner;
  context->release = release;
  View view = make_view(data, rank, dims, is_float, context);
  if (versioned) {
    *(ManagedVersioned *)memory =
        (ManagedVersioned){1, 0, context, delete_versioned, FLAG_READ_ONLY, view};
  } else {
    *(Managed *)memory = (Managed){view, context, delete_managed};
  }
  return memory;
}
