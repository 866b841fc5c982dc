// Vectors of LANES floats: types, loads, sums. Included once per instruction set (see body.h).

// Elements of Python's arrays need not be aligned to more than their own size.
typedef float V __attribute__((vector_size(4 * LANES)));
typedef float UnalignedV __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t VI __attribute__((vector_size(4 * LANES)));

static INLINE V load(const float *p) { return *(const UnalignedV *)p; }
// From memory of any type and alignment.
template <class Vector> static INLINE Vector load_as(const void *p) {
    Vector v;
    __builtin_memcpy(&v, p, sizeof(v));
    return v;
}
static INLINE void store(float *p, V v) { *(UnalignedV *)p = v; }

// v in a register. What is used twice compilers for x86 load twice, and loads are what takes time here.
template <class Vector> static INLINE Vector loaded(Vector v) {
#if LANES > 4
    asm("" : "+v"(v));
#endif
    return v;
}

// n floats, n below LANES, and zeros.
static INLINE V load_some(const float *p, int n) {
    float lanes[LANES] = {};
    for (int i = 0; i < n; i++) lanes[i] = p[i];
    return load(lanes);
}

// x - 0.0 is x for every x, so the compiler leaves nothing but the broadcast.
static INLINE V broadcast(float x) { return x - V{}; }

// Adding 1.5 * 2^23 leaves no bits for a fraction: it rounds, and the lowest bits are the integer's.
static constexpr float ROUND = 12582912.0f;

// x within -bound and bound; NaN stays NaN.
#if LANES == 16
static INLINE V clamp(V x, float bound) {
    // Of two numbers of which one is NaN, min and max return the second.
    const __m512 low = _mm512_min_ps(_mm512_set1_ps(bound), (__m512)x);
    return (V)_mm512_max_ps(_mm512_set1_ps(-bound), low);
}
#elif LANES == 8
static INLINE V clamp(V x, float bound) {
    return _mm256_max_ps(_mm256_set1_ps(-bound), _mm256_min_ps(_mm256_set1_ps(bound), x));
}
#elif defined(__aarch64__)
static INLINE V clamp(V x, float bound) {
    return vmaxq_f32(vdupq_n_f32(-bound), vminq_f32(vdupq_n_f32(bound), x));
}
#else
static INLINE V clamp(V x, float bound) {
    x = x > bound ? broadcast(bound) : x;
    return x < -bound ? broadcast(-bound) : x;
}
#endif

// x within -bound and bound, which is positive; NaN where both are.
#if LANES == 16
static INLINE V within(V x, V bound) {
    // The lesser absolute value, with the sign of x.
    return (V)_mm512_range_ps((__m512)x, (__m512)bound, 2);
}
#else
static INLINE V within(V x, V bound) {
    x = x > bound ? bound : x;
    return x < -bound ? -bound : x;
}
#endif

// The nearest integers, of two the even one; of NaN and inf, some.
#if LANES == 16
static INLINE VI nearest(V v) { return (VI)_mm512_cvtps_epi32((__m512)v); }
#elif LANES == 8
static INLINE VI nearest(V v) { return (VI)_mm256_cvtps_epi32(v); }
#elif defined(__x86_64__)
static INLINE VI nearest(V v) { return (VI)_mm_cvtps_epi32(v); }
#elif defined(__aarch64__)
static INLINE VI nearest(V v) { return (VI)vcvtnq_s32_f32(v); }
#else
static INLINE VI nearest(V v) {
    VI found;
    for (int i = 0; i < LANES; i++) found[i] = (int32_t)__builtin_lrintf(v[i]);
    return found;
}
#endif

#if LANES == 16
static INLINE bool has_nan(V v) { return _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q); }
#elif LANES == 8
static INLINE bool has_nan(V v) { return _mm256_movemask_ps(_mm256_cmp_ps(v, v, _CMP_UNORD_Q)); }
#else
static INLINE bool has_nan(V v) {
    bool found = false;
    for (int i = 0; i < LANES; i++) found |= v[i] != v[i];
    return found;
}
#endif

// bfloat16 and integer values as floats. GCC widens short vectors lane by lane, hence the intrinsics.
#if LANES == 16
static INLINE V load(const uint16_t *p) {
    // One instruction that widens and shifts: word i becomes the upper half of lane i.
    alignas(64) static const uint16_t from[32] = {0, 0, 0, 1, 0, 2,  0, 3,  0, 4,  0, 5,  0, 6,  0, 7,
                                                  0, 8, 0, 9, 0, 10, 0, 11, 0, 12, 0, 13, 0, 14, 0, 15};
    const __m512i words = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)p));
    return (V)_mm512_maskz_permutexvar_epi16(0xaaaaaaaa, _mm512_load_si512(from), words);
}
static INLINE V load(const int8_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
static INLINE V load(const int16_t *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_loadu_si256((const __m256i *)p)));
}
#elif LANES == 8
static INLINE V load(const uint16_t *p) {
    const __m128i half = _mm_loadu_si128((const __m128i *)p);
    return (V)_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16);
}
static INLINE V load(const int8_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
static INLINE V load(const int16_t *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)p)));
}
#elif defined(__aarch64__)
static INLINE V load(const uint16_t *p) { return (V)vshll_n_u16(vld1_u16(p), 16); }
static INLINE V load(const int8_t *p) {
    int32_t bytes;
    __builtin_memcpy(&bytes, p, sizeof(bytes));
    const int16x8_t words = vmovl_s8((int8x8_t)vdup_n_s32(bytes));
    return (V)vcvtq_f32_s32(vmovl_s16(vget_low_s16(words)));
}
static INLINE V load(const int16_t *p) { return (V)vcvtq_f32_s32(vmovl_s16(vld1_s16(p))); }
#else
static INLINE V load(const uint16_t *p) {
    VI bits;
    for (int i = 0; i < LANES; i++) bits[i] = (int32_t)((uint32_t)p[i] << 16);
    return (V)bits;
}
template <class T> static INLINE V load_integers(const T *p) {
    V v;
    for (int i = 0; i < LANES; i++) v[i] = p[i];
    return v;
}
static INLINE V load(const int8_t *p) { return load_integers(p); }
static INLINE V load(const int16_t *p) { return load_integers(p); }
#endif

// x[0 .. C-1], repeated to fill a vector; of more than LANES, the first ones.
template <int C> static INLINE V repeat(const float *x) {
    static_assert(C == 1 || C == 2 || C == 4 || C == 8, "lanes of a row");
    if constexpr (C == 1) return broadcast(*x);
    else if constexpr (C >= LANES) return load(x);
#if LANES == 16
    else if constexpr (C == 2) return (V)_mm512_set1_pd(load_as<double>(x));
    else if constexpr (C == 4) return _mm512_broadcast_f32x4(_mm_loadu_ps(x));
    else return (V)_mm512_broadcast_f64x4((__m256d)_mm256_loadu_ps(x));
#elif LANES == 8
    else if constexpr (C == 2) return (V)_mm256_set1_pd(load_as<double>(x));
    else return _mm256_broadcast_ps((const __m128 *)x);
#endif
}

#if LANES == 16
static const VI LANE = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#elif LANES == 8
static const VI LANE = {0, 1, 2, 3, 4, 5, 6, 7};
#else
static const VI LANE = {0, 1, 2, 3};
#endif

// Lane i of the result is lane from[i] of v; `from` must be known when compiling.
template <class T> static INLINE T permute(T v, VI from) {
#if defined(__clang__)
    T permuted;
    for (int i = 0; i < LANES; i++) permuted[i] = v[from[i]];
    return permuted;
#else
    return __builtin_shuffle(v, from);
#endif
}

// The same from two vectors, with lanes LANES and up those of w.
template <class T> static INLINE T permute(T v, T w, VI from) {
#if defined(__clang__)
    T permuted;
    for (int i = 0; i < LANES; i++) permuted[i] = from[i] < LANES ? v[from[i]] : w[from[i] - LANES];
    return permuted;
#else
    return __builtin_shuffle(v, w, from);
#endif
}

// Lane 4j + b of vector i becomes lane LANES / 4 * i + j of vector b.
template <class T> static INLINE void transpose(T (&v)[4]) {
    constexpr int N = LANES / 4, HALF = LANES / 2;
    T halves[2][2];
    for (int i = 0; i < 2; i++)
        for (int b = 0; b < 2; b++)
            halves[i][b] = permute(v[2 * i], v[2 * i + 1],
                                   LANE / N % 2 * LANES + LANE % N * 4 + 2 * b + LANE / HALF);
    for (int b = 0; b < 4; b++)
        v[b] = permute(halves[0][b / 2], halves[1][b / 2], LANE % HALF + b % 2 * HALF + LANE / HALF * LANES);
}

// The halves of every 8 lanes of v, then of w, added up, without gaps.
#if LANES == 16
template <class T> static INLINE T add_halves(T v, T w) {
    const __m512 a = (__m512)v, b = (__m512)w;
    return (T)_mm512_shuffle_f32x4(a, b, 0x88) + (T)_mm512_shuffle_f32x4(a, b, 0xdd);
}
#elif LANES == 8
template <class T> static INLINE T add_halves(T v, T w) {
    const __m256 a = (__m256)v, b = (__m256)w;
    return (T)_mm256_permute2f128_ps(a, b, 0x20) + (T)_mm256_permute2f128_ps(a, b, 0x31);
}
#endif

// Lane 4j + i of the result is the sum of lanes 4j to 4j + 3 of vector i.
#if LANES == 16
static INLINE V sums_side_by_side(V a, V b, V c, V d) {
    const auto pairs = [](V v, V w) {
        return _mm512_add_ps(_mm512_unpacklo_ps((__m512)v, (__m512)w),
                             _mm512_unpackhi_ps((__m512)v, (__m512)w));
    };
    const __m512d ab = (__m512d)pairs(a, b), cd = (__m512d)pairs(c, d);
    return (V)_mm512_unpacklo_pd(ab, cd) + (V)_mm512_unpackhi_pd(ab, cd);
}
#elif LANES == 8
static INLINE V sums_side_by_side(V a, V b, V c, V d) {
    return _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
}
#else
static INLINE V sums_side_by_side(V a, V b, V c, V d) {
    V sums{};
    for (int i = 0; i < 4; i++) sums += V{a[i], b[i], c[i], d[i]};
    return sums;
}
#endif

// v + w, which may wrap: of activations beyond the batch, which hold anything, sums of words do.
template <class T> static INLINE T add_wrapping(T v, T w) {
    typedef uint32_t Unsigned __attribute__((vector_size(sizeof(T))));
    return (T)((Unsigned)v + (Unsigned)w);
}

// The sums of lanes 2i and 2i + 1 of v, then of w.
static INLINE VI sums_of_2(VI v, VI w) {
    return add_wrapping(permute(v, w, LANE * 2), permute(v, w, LANE * 2 + 1));
}
#if LANES == 8
static INLINE V sums_of_2(V v, V w) {
    // Of each half of v, then of w.
    return (V)_mm256_permute4x64_pd((__m256d)_mm256_hadd_ps(v, w), 0xd8);
}
#else
static INLINE V sums_of_2(V v, V w) { return permute(v, w, LANE * 2) + permute(v, w, LANE * 2 + 1); }
#endif

// Lane LANES / 4 * i + j of the result is the sum of lanes 4j to 4j + 3 of vector i.
static INLINE V sums_of_4(V a, V b, V c, V d) {
    constexpr int N = LANES / 4;
    return permute(sums_side_by_side(a, b, c, d), LANE % N * 4 + LANE / N);
}
