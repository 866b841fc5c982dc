// int8 blocks of 16 x 4 times 8-bit activations. Included once per instruction set (see body.h).
//
// Four columns of a row are the four bytes of one lane, which is what the dot-product instructions
// multiply and add. Those of AVX-512 want one factor unsigned: activations are stored as
// x / scale + ZERO, and Matrix::offsets is what a ZERO of 128 adds to a row. The sums are exact in
// int32, the same everywhere.

static constexpr int ZERO = LANES == 8 ? 0 : 128;

#if LANES == 16
static INLINE VI dot4(VI sum, const int8_t *w, int32_t x) {
    return (VI)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(x), _mm512_loadu_si512(w));
}
#elif LANES == 8
// Pairs of products are added up in 16 bits, saturating: two of 255 * 127 would not fit, two of
// 128 * 127 do, so the sign of an activation, which is -127 at least, moves to its weight.
static INLINE VI dot4(VI sum, const int8_t *w, int32_t x) {
    const __m256i quad = _mm256_set1_epi32(x), weights = _mm256_loadu_si256((const __m256i *)w);
    const __m256i signed_weights = _mm256_sign_epi8(weights, quad);
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(quad), signed_weights);
    return sum + (VI)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#else
static INLINE VI dot4(VI sum, const int8_t *w, int32_t x) {
    for (int i = 0; i < LANES; i++)
        for (int c = 0; c < 4; c++) sum[i] += w[4 * i + c] * (int32_t)((uint32_t)x >> 8 * c & 255);
    return sum;
}
#endif

struct IntegerBlock {
    typedef int8_t Value;
    typedef uint8_t Activation;
    static constexpr bool QUANTISES = true;
    static constexpr int ROWS = 16, COLUMNS = 4;
    static constexpr int SPAN = 1, SUMS = 16 / LANES;
    static constexpr int MAX_TILE = SUM_REGISTERS / SUMS;

    template <int B> static INLINE void add(VI (&sum)[SUMS][B], const int8_t *w, const uint8_t *x) {
        for (int b = 0; b < B; b++) {
            int32_t quad;
            __builtin_memcpy(&quad, x + 4 * b, 4);
            for (int s = 0; s < SUMS; s++)
                sum[s][b] = dot4(sum[s][b], w + 4 * s * LANES, quad);
        }
    }

    // As FloatBlock::sums, with uint8 x and its scale for each of the batch.
    template <int B>
    static INLINE void sums(V (&sum)[SUMS][B], const Matrix &m, int panel, const uint8_t *x,
                            const float *x_scales) {
        // AVX-512's dot product takes several cycles; elsewhere the sum waits for one addition.
        constexpr int U = LANES != 16 || SUMS * B >= 3 ? 1 : SUMS * B == 2 ? 2 : 3;
        const int n = m.pointers[panel + 1] - m.pointers[panel];
        const uint16_t *columns = m.columns + m.pointers[panel];
        const int8_t *w = (const int8_t *)m.values + (size_t)m.pointers[panel] * 64;
        VI exact[U][SUMS][B] = {};
        int k = 0;
        for (; k + U <= n; k += U)
            for (int u = 0; u < U; u++, w += 64)
                add(exact[u], w, x + (size_t)columns[k + u] * (4 * B));
        for (; k < n; k++, w += 64) add(exact[0], w, x + (size_t)columns[k] * (4 * B));
        for (int s = 0; s < SUMS; s++) {
            const VI offset = ZERO ? load_int32(m.offsets + panel * 16 + s * LANES) : VI{};
            for (int b = 0; b < B; b++) {
                for (int u = 1; u < U; u++) exact[0][s][b] += exact[u][s][b];
                sum[s][b] = __builtin_convertvector(exact[0][s][b] - offset, V) * x_scales[b];
            }
        }
    }
};
