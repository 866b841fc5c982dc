// sum + the dot products of the four bytes, or of the two words, in each lane of weights and of activations.
// Included once per instruction set (see body.h).

// VNNI wants one factor of bytes unsigned: activations are stored as x / scale + ZERO, and
// Matrix::offsets is what a ZERO of 128 adds to a row.
static constexpr int ZERO = DOT && LANES > 4 ? 128 : 0;

template <int N> struct Ints {
    typedef int32_t Type __attribute__((vector_size(4 * N)));
};
typedef Ints<4>::Type VI4;
typedef Ints<8>::Type VI8;

#if DOT && LANES > 4
static INLINE VI8 dot(VI8 sum, const int8_t *w, VI8 x) {
    return (VI8)_mm256_dpbusd_epi32((__m256i)sum, (__m256i)x,
                                    _mm256_loadu_si256((const __m256i *)w));
}
static INLINE VI4 dot(VI4 sum, const int8_t *w, VI4 x) {
    return (VI4)_mm_dpbusd_epi32((__m128i)sum, (__m128i)x, _mm_loadu_si128((const __m128i *)w));
}
static INLINE VI8 dot(VI8 sum, const int16_t *w, VI8 x) {
    return (VI8)_mm256_dpwssd_epi32((__m256i)sum, (__m256i)x,
                                    _mm256_loadu_si256((const __m256i *)w));
}
#if LANES == 16
static INLINE VI dot(VI sum, const int8_t *w, VI x) {
    return (VI)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, _mm512_loadu_si512(w));
}
static INLINE VI dot(VI sum, const int16_t *w, VI x) {
    return (VI)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)x, _mm512_loadu_si512(w));
}
#endif
#elif LANES == 8
// Pairs of products are added up in 16 bits, saturating: two of 255 * 127 would not fit, two of
// 128 * 127 do, so the sign of an activation, which is -127 at least, moves to its weight.
static INLINE VI dot(VI sum, const int8_t *w, VI x) {
    const __m256i weights = _mm256_loadu_si256((const __m256i *)w);
    const __m256i signed_weights = _mm256_sign_epi8(weights, (__m256i)x);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8((__m256i)x), signed_weights);
    return sum + (VI)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
static INLINE VI4 dot(VI4 sum, const int8_t *w, VI4 x) {
    const __m128i weights = _mm_loadu_si128((const __m128i *)w);
    const __m128i signed_weights = _mm_sign_epi8(weights, (__m128i)x);
    const __m128i pairs = _mm_maddubs_epi16(_mm_abs_epi8((__m128i)x), signed_weights);
    return sum + (VI4)_mm_madd_epi16(pairs, _mm_set1_epi16(1));
}
static INLINE VI dot(VI sum, const int16_t *w, VI x) {
    const __m256i weights = _mm256_loadu_si256((const __m256i *)w);
    return add_wrapping(sum, (VI)_mm256_madd_epi16(weights, (__m256i)x));
}
#elif defined(__aarch64__)
static INLINE VI dot(VI sum, const int8_t *w, VI x) {
    const int8x16_t weights = vld1q_s8(w), levels = (int8x16_t)x;
#if DOT
    return (VI)vdotq_s32((int32x4_t)sum, weights, levels);
#else
    const int16x8_t low = vmull_s8(vget_low_s8(weights), vget_low_s8(levels));
    return (VI)vpadalq_s16((int32x4_t)sum, vpaddq_s16(low, vmull_high_s8(weights, levels)));
#endif
}
// ARM has no dot product of words: each product is added to a lane of its own, in the first or second half of
// w, and pairs of lanes are added up at the end, in as_vector.
struct Halves {
    VI first, second;
};
static INLINE Halves dot(Halves sum, const int16_t *w, VI x) {
    const int16x8_t weights = vld1q_s16(w), levels = (int16x8_t)x;
    return {(VI)vmlal_s16((int32x4_t)sum.first, vget_low_s16(weights), vget_low_s16(levels)),
            (VI)vmlal_high_s16((int32x4_t)sum.second, weights, levels)};
}
static INLINE Halves add_wrapping(Halves v, Halves w) {
    return {add_wrapping(v.first, w.first), add_wrapping(v.second, w.second)};
}
static INLINE VI as_vector(Halves v) {
    return (VI)vpaddq_s32((int32x4_t)v.first, (int32x4_t)v.second);
}
#else
static INLINE VI dot(VI sum, const int8_t *w, VI x) {
    for (int i = 0; i < LANES; i++)
        for (int c = 0; c < 4; c++) sum[i] += w[4 * i + c] * (int8_t)((uint32_t)x[i] >> 8 * c);
    return sum;
}
static INLINE VI dot(VI sum, const int16_t *w, VI x) {
    VI products;
    for (int i = 0; i < LANES; i++)
        products[i] = (int32_t)((uint32_t)(w[2 * i] * (int16_t)x[i]) +
                                (uint32_t)(w[2 * i + 1] * (int16_t)(x[i] >> 16)));
    return add_wrapping(sum, products);
}
#endif
