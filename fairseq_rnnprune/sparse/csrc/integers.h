// Blocks of R x 4 or R x 8 integers times activations of as many bits. Included once per instruction set
// (see body.h).
//
// Four columns of a row are the four bytes of one lane, or two columns its two words, which is what the
// dot-product instructions multiply and add. The sums are exact in int32, the same everywhere: an
// activation has LEVELS on either side of 0, of 16 bits so few that the weights of a row, whose sum
// Python bounds, have most of the bits.

// VNNI wants one factor of bytes unsigned: activations are stored as x / scale + ZERO, and
// Matrix::offsets is what a ZERO of 128 adds to a row.
static constexpr int ZERO = DOT && LANES > 4 ? 128 : 0;

// What a weight of type T is multiplied with.
template <class T> struct Levels;
template <> struct Levels<int8_t> {
    typedef uint8_t Activation;
    static constexpr int LEVELS = 127;
};
template <> struct Levels<int16_t> {
    typedef int16_t Activation;
    static constexpr int LEVELS = 4095;
};

template <int N> struct Ints {
    typedef int32_t Type __attribute__((vector_size(4 * N)));
};
typedef Ints<4>::Type VI4;
typedef Ints<8>::Type VI8;

// sum + the dot products of the four bytes, or of the two words, in each lane of w and of x.
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

// A sum as a vector, whose lanes beyond the sum's own may hold anything.
static INLINE VI as_vector(VI v) { return v; }
#if LANES == 16
static INLINE VI as_vector(VI8 v) { return (VI)_mm512_castsi256_si512((__m256i)v); }
static INLINE VI as_vector(VI4 v) { return (VI)_mm512_castsi128_si512((__m128i)v); }
#elif LANES == 8
static INLINE VI as_vector(VI4 v) { return (VI)_mm256_castsi128_si256((__m128i)v); }
#endif

// What PART lanes of dot products with weights of type T are added up in.
template <class T, int PART> struct Exact {
    typedef typename Ints<PART>::Type Sum;
};
#if defined(__aarch64__)
template <> struct Exact<int16_t, LANES> {
    typedef Halves Sum;
};
#endif

template <class T, int R, int C> struct IntegerBlock {
    typedef T Value;
    typedef typename Levels<T>::Activation Activation;
    typedef VI Sum;
    static constexpr int ROWS = R, COLUMNS = C, LEVELS = Levels<T>::LEVELS;
    // A row takes SPAN lanes; a block takes PART of a vector's, or all those of SUMS vectors.
    static constexpr int SPAN = C * sizeof(T) / 4;
    static constexpr int PART = R * SPAN < LANES ? R * SPAN : LANES;
    static constexpr int SUMS = R * SPAN / PART;
    typedef typename Ints<PART>::Type Part;
    typedef typename Exact<T, PART>::Sum ExactSum;
    static constexpr int MAX_TILE = SUM_REGISTERS / SUMS * sizeof(Part) / sizeof(ExactSum);
    // So many panels side by side have a vector of rows.
    template <int B> static constexpr int panels() { return R < LANES ? LANES / R : 1; }

    // x [0 .. C-1], repeated for every row.
    static INLINE Part factors(const Activation *x) {
        if constexpr (SPAN == 4) return (Part)repeat<4>((const float *)x);
        else {
            typedef std::conditional_t<SPAN == 1, int32_t, int64_t> Row;
            typedef Row Rows __attribute__((vector_size(4 * PART)));
            Row row;
            __builtin_memcpy(&row, x, sizeof(row));
            return (Part)(row - Rows{});
        }
    }

    template <int B>
    static INLINE void add(ExactSum (&sum)[SUMS][B], const T *w, const Activation *x) {
        for (int b = 0; b < B; b++) {
            const Part row = factors(x + C * b);
            for (int s = 0; s < SUMS; s++)
                sum[s][b] = dot(sum[s][b], w + s * (R * C / SUMS), row);
        }
    }

    // As FloatBlock::sums; of a vector, only the first PART lanes count.
    template <int B>
    static INLINE void sums(VI (&sum)[SUMS][B], const Matrix &m, int panel, const Activation *x) {
        // One dot product takes several cycles; where it is many instructions, the sum waits for the last.
        constexpr int U = !DOT || SUMS * B >= 3 ? 1 : SUMS * B == 2 ? 2 : 3;
        const int n = m.pointers[panel + 1] - m.pointers[panel];
        const uint16_t *columns = m.columns + m.pointers[panel];
        const T *w = (const T *)m.values + (size_t)m.pointers[panel] * (R * C);
        ExactSum exact[U][SUMS][B] = {};
        int k = 0;
        for (; k + U <= n; k += U)
            for (int u = 0; u < U; u++, w += R * C)
                add(exact[u], w, x + (size_t)columns[k + u] * (C * B));
        for (; k < n; k++, w += R * C) add(exact[0], w, x + (size_t)columns[k] * (C * B));
        for (int s = 0; s < SUMS; s++)
            for (int b = 0; b < B; b++) {
                for (int u = 1; u < U; u++) exact[0][s][b] = add_wrapping(exact[0][s][b], exact[u][s][b]);
                sum[s][b] = as_vector(exact[0][s][b]);
            }
    }

    // Vector i of the panels' lanes.
    template <int N, int B> static INLINE VI lanes(const VI (&sum)[N][SUMS][B], int i, int b) {
        if constexpr (PART == LANES) return sum[i / SUMS][i % SUMS][b];
        constexpr int TOGETHER = LANES / PART;
        VI all = sum[i * TOGETHER][0][b];
        for (int p = 1; p < TOGETHER; p++)
            all = LANE / PART == p ? permute(sum[i * TOGETHER + p][0][b], LANE % PART) : all;
        return all;
    }

    // Vector i of the panels' rows.
    template <int N, int B>
    static INLINE V rows(const VI (&sum)[N][SUMS][B], int i, int b, const Terms &terms) {
        const auto vector = [&](int part) INLINE_LAMBDA { return lanes(sum, SPAN * i + part, b); };
        const auto real = [&](int part) INLINE_LAMBDA {
            return __builtin_convertvector(vector(part), V);
        };
        if constexpr (SPAN == 4)
            return sums_of_4(real(0), real(1), real(2), real(3)) * terms.x_scales[b];
        VI exact = vector(0);
        if constexpr (SPAN == 2) exact = sums_of_2(exact, vector(1));
        if (ZERO && sizeof(T) == 1) exact -= load_int32(terms.offsets + i * LANES);
        return __builtin_convertvector(exact, V) * terms.x_scales[b];
    }
};
