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
template <class T> static INLINE VI4 dot(VI4 sum, VI4 weights, VI4 x) {
    const __m128i w = (__m128i)weights;
    if constexpr (sizeof(T) == 2) return (VI4)_mm_dpwssd_epi32((__m128i)sum, (__m128i)x, w);
    else return (VI4)_mm_dpbusd_epi32((__m128i)sum, (__m128i)x, w);
}
template <class T> static INLINE VI8 dot(VI8 sum, VI8 weights, VI8 x) {
    const __m256i w = (__m256i)weights;
    if constexpr (sizeof(T) == 2) return (VI8)_mm256_dpwssd_epi32((__m256i)sum, (__m256i)x, w);
    else return (VI8)_mm256_dpbusd_epi32((__m256i)sum, (__m256i)x, w);
}
#if LANES == 16
template <class T> static INLINE VI dot(VI sum, VI weights, VI x) {
    const __m512i w = (__m512i)weights;
    if constexpr (sizeof(T) == 2) return (VI)_mm512_dpwssd_epi32((__m512i)sum, (__m512i)x, w);
    else return (VI)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, w);
}
#endif
#elif LANES == 8
// Pairs of products are added up in 16 bits, saturating: two of 255 * 127 would not fit, two of
// 128 * 127 do, so the sign of an activation, which is -127 at least, moves to its weight.
template <class T> static INLINE VI dot(VI sum, VI weights, VI x) {
    const __m256i w = (__m256i)weights, levels = (__m256i)x;
    if constexpr (sizeof(T) == 2) return add_wrapping(sum, (VI)_mm256_madd_epi16(w, levels));
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(levels), _mm256_sign_epi8(w, levels));
    return sum + (VI)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
template <class T> static INLINE VI4 dot(VI4 sum, VI4 weights, VI4 x) {
    const __m128i w = (__m128i)weights, levels = (__m128i)x;
    const __m128i pairs = _mm_maddubs_epi16(_mm_abs_epi8(levels), _mm_sign_epi8(w, levels));
    return sum + (VI4)_mm_madd_epi16(pairs, _mm_set1_epi16(1));
}
#elif defined(__aarch64__)
template <class T> static INLINE VI dot(VI sum, VI weights, VI x) {
    const int8x16_t w = (int8x16_t)weights, levels = (int8x16_t)x;
#if DOT
    return (VI)vdotq_s32((int32x4_t)sum, w, levels);
#else
    const int16x8_t low = vmull_s8(vget_low_s8(w), vget_low_s8(levels));
    return (VI)vpadalq_s16((int32x4_t)sum, vpaddq_s16(low, vmull_high_s8(w, levels)));
#endif
}
// ARM has no dot product of words: each product is added to a lane of its own, in the first or second half of
// w, and pairs of lanes are added up at the end, in as_vector.
struct Halves {
    VI first, second;
};
template <class T> static INLINE Halves dot(Halves sum, VI weights, VI x) {
    const int16x8_t w = (int16x8_t)weights, levels = (int16x8_t)x;
    return {(VI)vmlal_s16((int32x4_t)sum.first, vget_low_s16(w), vget_low_s16(levels)),
            (VI)vmlal_high_s16((int32x4_t)sum.second, w, levels)};
}
static INLINE Halves add_wrapping(Halves v, Halves w) {
    return {add_wrapping(v.first, w.first), add_wrapping(v.second, w.second)};
}
static INLINE VI as_vector(Halves v) {
    return (VI)vpaddq_s32((int32x4_t)v.first, (int32x4_t)v.second);
}
#else
template <class T> static INLINE VI dot(VI sum, VI weights, VI x) {
    constexpr int BITS = 8 * sizeof(T);
    VI products{};
    for (int i = 0; i < LANES; i++)
        for (int shift = 0; shift < 32; shift += BITS)
            products[i] += (uint32_t)((T)(weights[i] >> shift) * (T)(x[i] >> shift));
    return add_wrapping(sum, products);
}
#endif
