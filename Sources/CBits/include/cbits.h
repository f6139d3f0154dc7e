// Two instructions that Swift cannot ask for: sign bits of sixteen floats at once, and counts of bits in
// 512-bit registers on processors that the build does not assume (AVX512-VPOPCNTDQ).
#ifndef KDS_CBITS_H
#define KDS_CBITS_H
#include <stdint.h>
#include <string.h>

typedef float kds_floats16 __attribute__((ext_vector_type(16), aligned(4)));
typedef int32_t kds_ints16 __attribute__((ext_vector_type(16)));
typedef _Bool kds_bits16 __attribute__((ext_vector_type(16)));

/// Bit i is set where x[i] < 0: not for 0, -0 and NaN.
static inline uint32_t kds_sign_bits16(const float *x) {
  kds_ints16 below = *(const kds_floats16 *)x < 0;
  kds_bits16 bits = __builtin_convertvector(below, kds_bits16);
  uint16_t packed;
  memcpy(&packed, &bits, sizeof packed);
  return packed;
}

/// The same for x[i] * scale[i] + shift[i], rounded after each of the two steps.
static inline uint32_t kds_sign_bits16_affine(const float *x, const float *scale, const float *shift) {
#pragma clang fp contract(off)
  kds_floats16 scaled = *(const kds_floats16 *)x * *(const kds_floats16 *)scale;
  kds_floats16 moved = scaled + *(const kds_floats16 *)shift;
  return kds_sign_bits16((const float *)&moved);
}

/// Whether `kds_xnor_tiles` is fast on this processor.
int32_t kds_has_vector_popcount(void);

/// sums[p * 16 + k] = length - 2 * number of bits in which pixel p and filter k differ, for 4 * `tiles`
/// pixels and 16 filters: the product of their signs.
///
/// A pixel reads the words pixels[offsets[p] + places[i]]; the filters lie word by word, 16 filters beside
/// one another.
void kds_xnor_tiles(const uint64_t *pixels, const int64_t *offsets, int64_t tiles, const int64_t *places,
                    int64_t place_count, const uint64_t *filters, int64_t length, int32_t *sums);

#endif
