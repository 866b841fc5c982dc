// Activations as the integers that weights of integers are multiplied with. Included once per instruction set
// (see body.h).

// The largest |x|; NaN if one of them is. As integers they have the order that they have as floats, and NaN
// comes last.
static float magnitude(const float *x, int n) {
    VI largest{};
    const auto compare = [&](VI size) INLINE_LAMBDA { largest = size > largest ? size : largest; };
    int i = 0;
    for (; i + LANES <= n; i += LANES) compare((VI)load(x + i) & 0x7fffffff);
    if (i < n) compare((VI)load_some(x + i, n - i) & 0x7fffffff);
    for (int distance = LANES / 2; distance; distance /= 2) compare(permute(largest, LANE ^ distance));
    return ((V)largest)[0];
}

// Two vectors narrowed, saturating: of each, four numbers, then the next four.
#if LANES == 16
static INLINE VI to_words(VI v, VI w) { return (VI)_mm512_packs_epi32((__m512i)v, (__m512i)w); }
static INLINE VI to_bytes(VI v, VI w) { return (VI)_mm512_packs_epi16((__m512i)v, (__m512i)w); }
#elif LANES == 8
static INLINE VI to_words(VI v, VI w) { return (VI)_mm256_packs_epi32((__m256i)v, (__m256i)w); }
static INLINE VI to_bytes(VI v, VI w) { return (VI)_mm256_packs_epi16((__m256i)v, (__m256i)w); }
#endif

// N vectors of numbers from -LEVELS to LEVELS (integers.h), rounded, as they are stored: four of each, then the next
// four. Two become words, four bytes plus ZERO.
template <int N> static INLINE VI narrow(const V (&levels)[N]) {
    VI level[N];
    for (int i = 0; i < N; i++) level[i] = nearest(levels[i]);
#if LANES > 4
    const VI words = to_words(level[0], level[1]);
    if constexpr (N == 2) return words;
    // In a byte the uppermost bit is 128.
    else return to_bytes(words, to_words(level[2], level[3])) ^ (int32_t)(ZERO * 0x01010101u);
#else
    typedef std::conditional_t<N == 2, int16_t, int8_t> T;
    typedef T Narrow __attribute__((vector_size(LANES * sizeof(T))));
    VI all;
    for (int i = 0; i < N; i++) {
        const Narrow some = __builtin_convertvector(level[i], Narrow);
        __builtin_memcpy((T *)&all + i * LANES, &some, sizeof(some));
    }
    return all;
#endif
}

// The same, but RUN of each, then the next RUN.
template <int RUN, int N> static INLINE VI narrow_runs(const V (&levels)[N]) {
    // So many lanes hold four numbers, or a run.
    constexpr int FOUR = 4 / N, WIDTH = RUN / 4 * FOUR;
    const VI run = LANE / WIDTH, four = run / N * (RUN / 4) + LANE % WIDTH / FOUR;
    return permute(narrow(levels), four * 4 + run % N * FOUR + LANE % FOUR);
}

// quantise_blocks for ROWS of the batch, from row b on. Vectors of N rows are narrowed at once or, of a single row, N
// vectors that follow one another.
template <class T, int C, int ROWS>
static INLINE void quantise_rows(const Matrix &m, int first, int last, const float *x, const Activations &packed,
                                 int b) {
    typedef typename Levels<T>::Activation Activation;
    constexpr int N = 4 / sizeof(T), AHEAD = ROWS == 1 ? LANES : 0, STEP = LANES + (N - 1) * AHEAD;
    constexpr int RUN = ROWS == 1 || C > LANES ? LANES : C;
    const int B = packed.tile, end = last * C;
    // What lies beyond belongs to other threads, which may not have written it yet.
    const int known = end < m.width ? end : m.width;
    Activation *const to = (Activation *)packed.data + (size_t)(b / B) * m.block_width() * B * C + b % B * C;
    const float *from[N];
    float factors[N], *scales[N];
    V zeros[N] = {};
    for (int i = 0; i < N; i++) {
        const int row = b + i % ROWS, real = row < packed.batch ? row : packed.batch - 1;
        from[i] = x + (size_t)real * m.width + i * AHEAD;
        scales[i] = packed.scales + real;
        factors[i] = 1.0f / *scales[i];
    }

    // `count` columns from k on, of which there are at most STEP.
    const auto put = [&](int k, int count, auto get) INLINE_LAMBDA {
        V levels[N];
        for (int i = 0; i < N; i++) {
            const V v = loaded(get(from[i] + k, known - k - i * AHEAD));
            levels[i] = v * factors[i];
            zeros[i] += v * 0.0f;
        }
        const VI all = narrow_runs<RUN>(levels);
        if (ROWS == 1) {
            __builtin_memcpy(to + k, &all, count * sizeof(T));
            return;
        }
        for (int i = 0; i < count; i += RUN) {
            const unsigned at = k + i, in_block = RUN == C ? 0 : at % C;
            Activation *block = to + (size_t)(at - in_block) * B + in_block;
            const auto run = (const Activation *)&all + i * N;
            if (RUN == C) __builtin_memcpy(block, run, ROWS * RUN * sizeof(T));
            else
                for (int r = 0; r < ROWS; r++)
                    __builtin_memcpy(block + r * C, run + r * RUN, RUN * sizeof(T));
        }
    };
    int k = first * C;
    for (; k + STEP <= known; k += STEP)
        put(k, STEP, [](const float *p, int) INLINE_LAMBDA { return load(p); });
    for (; k < end; k += STEP)
        put(k, end - k < STEP ? end - k : STEP, [](const float *p, int left) INLINE_LAMBDA {
            return left >= LANES ? load(p) : left > 0 ? load_some(p, left) : V{};
        });

    // NaN and inf have become some numbers: the scale tells of them, unless it does so already.
    for (int i = 0; i < N; i++)
        if (has_nan(zeros[i]) && factors[i] == factors[i]) *scales[i] = __builtin_nanf("");
}

// As pack_blocks, in the integers that weights of type T want. What lies beyond the batch is left as it is or repeats
// the last row: products of integers are numbers, whatever they are, and nobody reads these.
template <class T, int C>
static void quantise_blocks(const Matrix &m, int first, int last, const float *x,
                            const Activations &packed) {
    constexpr int N = 4 / sizeof(T);
    for (int b = 0; b < packed.batch; b += packed.tile < N ? packed.tile : N)
        switch (packed.tile) {
            case 1: quantise_rows<T, C, 1>(m, first, last, x, packed, b); break;
            case 2: quantise_rows<T, C, 2>(m, first, last, x, packed, b); break;
            default: quantise_rows<T, C, N>(m, first, last, x, packed, b);
        }
}
