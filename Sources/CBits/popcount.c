#include "cbits.h"

#if defined(__x86_64__)
#include <immintrin.h>

int32_t kds_has_vector_popcount(void) {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vpopcntdq");
}

#define COUNT(sum, word, filter) \
  sum = _mm512_add_epi64(sum, _mm512_popcnt_epi64(_mm512_xor_si512(word, filter)))
#define PRODUCT(count) \
  _mm512_cvtepi64_epi32(_mm512_sub_epi64(_mm512_set1_epi64(length), _mm512_slli_epi64(count, 1)))

__attribute__((target("avx512f,avx512vpopcntdq"))) void kds_xnor_tiles(
    const uint64_t *pixels, const int64_t *offsets, int64_t tiles, const int64_t *places,
    int64_t place_count, const uint64_t *filters, int64_t length, int32_t *sums) {
  for (int64_t tile = 0; tile < tiles; tile++, offsets += 4, sums += 64) {
    const uint64_t *first[4];
    __m512i low[4], high[4];
    for (int pixel = 0; pixel < 4; pixel++) {
      first[pixel] = pixels + offsets[pixel];
      low[pixel] = high[pixel] = _mm512_setzero_si512();
    }
    for (int64_t place = 0; place < place_count; place++) {
      int64_t word = places[place];
      __m512i left = _mm512_loadu_si512(filters + 16 * place);
      __m512i right = _mm512_loadu_si512(filters + 16 * place + 8);
      for (int pixel = 0; pixel < 4; pixel++) {
        __m512i bits = _mm512_set1_epi64((long long)first[pixel][word]);
        COUNT(low[pixel], bits, left);
        COUNT(high[pixel], bits, right);
      }
    }
    for (int pixel = 0; pixel < 4; pixel++) {
      __m256i *to = (__m256i *)(sums + pixel * 16);
      _mm256_storeu_si256(to, PRODUCT(low[pixel]));
      _mm256_storeu_si256(to + 1, PRODUCT(high[pixel]));
    }
  }
}

#else

int32_t kds_has_vector_popcount(void) { return 0; }

void kds_xnor_tiles(const uint64_t *pixels, const int64_t *offsets, int64_t tiles, const int64_t *places,
                    int64_t place_count, const uint64_t *filters, int64_t length, int32_t *sums) {
  for (int64_t pixel = 0; pixel < 4 * tiles; pixel++, sums += 16) {
    for (int k = 0; k < 16; k++) {
      int64_t count = 0;
      for (int64_t place = 0; place < place_count; place++)
        count += __builtin_popcountll(pixels[offsets[pixel] + places[place]] ^ filters[16 * place + k]);
      sums[k] = (int32_t)(length - 2 * count);
    }
  }
}

#endif
