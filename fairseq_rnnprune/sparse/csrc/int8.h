// int8 blocks of 16 x 4 times 8-bit activations. Included once per instruction set (see body.h).
//
// Four columns of a row are the four bytes of one lane, which is what the dot-product instructions
// multiply and add. These want one factor unsigned: activations are stored as x / scale + 128, and
// Matrix::offsets is what the 128 adds to a row. The sums are exact in int32, the same everywhere.

#if LANES == 16
static INLINE VI dot4(VI sum, const int8_t *w, int32_t x) {
    return (VI)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(x), _mm512_loadu_si512(w));
}
#elif LANES == 8
// 8-bit products of pairs may not fit into 16 bits, so bytes are widened first.
static INLINE VI dot4(VI sum, const int8_t *w, int32_t x) {
    const __m256i wide_x = _mm256_cvtepu8_epi16(_mm_set1_epi32(x));
    const __m256i low = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)w));
    const __m256i high = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(w + 16)));
    // Sums of pairs, in each 128 bits two rows of low and then two rows of high.
    const __m256i pairs = _mm256_hadd_epi32(_mm256_madd_epi16(low, wide_x),
                                            _mm256_madd_epi16(high, wide_x));
    return sum + (VI)_mm256_permute4x64_epi64(pairs, 0xd8);
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
        constexpr int U = SUMS * B >= 3 ? 1 : SUMS * B == 2 ? 2 : 3;
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
            const VI offset = load_int32(m.offsets + panel * 16 + s * LANES);
            for (int b = 0; b < B; b++) {
                for (int u = 1; u < U; u++) exact[0][s][b] += exact[u][s][b];
                sum[s][b] = __builtin_convertvector(exact[0][s][b] - offset, V) * x_scales[b];
            }
        }
    }
};
