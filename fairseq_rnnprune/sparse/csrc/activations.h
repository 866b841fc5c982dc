// Activations in the layout that the panels read. Included once per instruction set (see body.h).

template <class T> struct Narrow {
    typedef T Type __attribute__((vector_size(LANES * sizeof(T))));
};
typedef Narrow<uint8_t>::Type Bytes;
typedef Narrow<int16_t>::Type Words;

// Numbers of at most Levels<T>::LEVELS, rounded, as they are stored: bytes plus ZERO. GCC narrows vectors
// of AVX2 lane by lane.
#if LANES == 8
static INLINE __m128i to_words(V level) {
    const __m256i integers = _mm256_cvtps_epi32(level);
    return _mm_packs_epi32(_mm256_castsi256_si128(integers), _mm256_extracti128_si256(integers, 1));
}
static INLINE void narrow(V level, Words &found) { found = (Words)to_words(level); }
static INLINE void narrow(V level, Bytes &found) {
    const __m128i words = _mm_add_epi16(to_words(level), _mm_set1_epi16(ZERO));
    const __m128i bytes = ZERO ? _mm_packus_epi16(words, words) : _mm_packs_epi16(words, words);
    found = (Bytes)_mm_cvtsi128_si64(bytes);
}
#else
static INLINE void narrow(V level, Words &found) {
    found = __builtin_convertvector((VI)(level + ROUND), Words);
}
static INLINE void narrow(V level, Bytes &found) {
    found = __builtin_convertvector((VI)(level + ROUND) + ZERO, Bytes);
}
#endif

// n floats, n below LANES, and zeros.
static INLINE V load_some(const float *p, int n) {
    float lanes[LANES] = {};
    for (int i = 0; i < n; i++) lanes[i] = p[i];
    return load(lanes);
}

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

typedef float Four __attribute__((vector_size(16)));

// Lanes I to L of v and w, which has those from 4 on.
template <int I, int J, int K, int L> static INLINE Four mix(Four v, Four w) {
#if defined(__clang__)
    return __builtin_shufflevector(v, w, I, J, K, L);
#else
    typedef int32_t Lanes __attribute__((vector_size(16)));
    return __builtin_shuffle(v, w, Lanes{I, J, K, L});
#endif
}

// Columns of single numbers: B = 2 rows, or 4 of B, change places with 4 columns.
static INLINE void transpose(const float *const (&rows)[4], int k, int B, float *to) {
    Four row[4];
    for (int i = 0; i < 4; i++) __builtin_memcpy(&row[i], rows[i] + k, sizeof(Four));
    const Four low = mix<0, 4, 1, 5>(row[0], row[1]), high = mix<2, 6, 3, 7>(row[0], row[1]);
    if (B == 2) {
        __builtin_memcpy(to + k * 2, &low, sizeof(Four));
        __builtin_memcpy(to + k * 2 + 4, &high, sizeof(Four));
        return;
    }
    const Four lower = mix<0, 4, 1, 5>(row[2], row[3]), higher = mix<2, 6, 3, 7>(row[2], row[3]);
    const Four columns[4] = {mix<0, 1, 4, 5>(low, lower), mix<2, 3, 6, 7>(low, lower),
                             mix<0, 1, 4, 5>(high, higher), mix<2, 3, 6, 7>(high, higher)};
    for (int i = 0; i < 4; i++)
        __builtin_memcpy(to + (size_t)(k + i) * B, &columns[i], sizeof(Four));
}

// Rows are read along K and written across it; so few columns at a time stay in the cache.
static constexpr int COLUMNS_AT_ONCE = 128;

// pack_blocks for blocks of one column, and two rows or more: a single one is read as it came (is_packed).
static void pack_columns(const Matrix &m, int first, int last, const float *x, const Activations &packed) {
    static const float zeros[COLUMNS_AT_ONCE] = {};
    const int B = packed.tile, K = m.width;
    float *tile = (float *)packed.data;
    for (int start = 0; start < packed.batch; start += B, tile += (size_t)K * B)
        for (int low = first; low < last; low += COLUMNS_AT_ONCE)
            for (int b = 0; b < B; b += 4) {
                const int count = last - low < COLUMNS_AT_ONCE ? last - low : COLUMNS_AT_ONCE;
                const float *rows[4];
                for (int i = 0; i < 4; i++) {
                    const int row = start + b + i;
                    rows[i] = b + i < B && row < packed.batch ? x + (size_t)row * K + low : zeros;
                }
                float *to = tile + (size_t)low * B + b;
                int k = 0;
                for (; k + 4 <= count; k += 4) transpose(rows, k, B, to);
                for (; k < count; k++)
                    for (int i = 0; i < 4 && b + i < B; i++) to[(size_t)k * B + i] = rows[i][k];
            }
}

// In order or, of a block, even columns, then odd ones.
template <class Block>
static void pack_blocks(const Matrix &m, int first, int last, const float *x,
                        const Activations &packed) {
    constexpr int C = Block::COLUMNS;
    if constexpr (C == 1) return pack_columns(m, first, last, x, packed);
    constexpr int CHUNK = COLUMNS_AT_ONCE / C;
    const int B = packed.tile, whole = m.width / C;
    float *tile = (float *)packed.data;
    for (int start = 0; start < packed.batch; start += B, tile += (size_t)m.block_width() * B * C)
        for (int low = first; low < last; low += CHUNK)
            for (int b = 0; b < B; b++) {
                const int row = start + b, end = last - low < CHUNK ? last : low + CHUNK;
                const float *from = row < packed.batch ? x + (size_t)row * m.width : nullptr;
                const auto put = [&](int j, const float *block) INLINE_LAMBDA {
                    float *to = tile + ((size_t)j * B + b) * C;
                    if (Block::in_order(B)) __builtin_memcpy(to, block, C * sizeof(float));
                    else
                        for (int c = 0; c < C; c++) to[c / 2 + c % 2 * (C / 2)] = block[c];
                };
                int j = low;
                for (; from && j < end && j < whole; j++) put(j, from + j * C);
                for (; j < end; j++) {
                    float block[C] = {};
                    for (int c = 0; from && j * C + c < m.width; c++) block[c] = from[j * C + c];
                    put(j, block);
                }
            }
}

// As pack_blocks, in the integers that weights of type T want. What lies beyond the batch is left as it is:
// products of integers are numbers, whatever they are, and nobody reads these.
template <class T, int C>
static void quantise_blocks(const Matrix &m, int first, int last, const float *x,
                            const Activations &packed) {
    typedef typename Levels<T>::Activation Activation;
    constexpr int PART = C < LANES ? C : LANES;
    const int B = packed.tile, end = last * C;
    // What lies beyond belongs to other threads, which may not have written it yet.
    const int known = end < m.width ? end : m.width;
    const size_t tile_size = (size_t)m.block_width() * B * C;
    for (int b = 0; b < packed.batch; b++) {
        const float *from = x + (size_t)b * m.width;
        Activation *to = (Activation *)packed.data + b / B * tile_size + b % B * C;
        const float factor = 1.0f / packed.scales[b];
        V zeros{};
        for (int k = first * C; k < end; k += LANES) {
            const V v = known - k < LANES ? load_some(from + k, known - k) : load(from + k);
            const V level = clamp(v * factor, Levels<T>::LEVELS);
            zeros += v * 0.0f;
            typename Narrow<Activation>::Type narrowed;
            narrow(level, narrowed);
            if (B == 1 && k + LANES <= end) {
                __builtin_memcpy(to + k, &narrowed, sizeof(narrowed));
                continue;
            }
            const auto put = [&](unsigned i) INLINE_LAMBDA {
                const unsigned at = k + i;
                __builtin_memcpy(to + (size_t)(at / C) * (B * C) + at % C, (const Activation *)&narrowed + i,
                                 sizeof(Activation) * PART);
            };
            // A loop of a known length the compiler unrolls.
            if (k + LANES <= end)
                for (int i = 0; i < LANES; i += PART) put(i);
            else
                for (int i = 0; k + i < end; i += PART) put(i);
        }
        // NaN has become some number: the scale tells of it, unless it does so already.
        const VI is_nan = zeros != zeros;
        int any = 0;
        for (int i = 0; i < LANES; i++) any |= is_nan[i];
        if (any && factor == factor) packed.scales[b] = __builtin_nanf("");
    }
}

// Product::pack for one kind of block.
template <class Block>
static void pack(const Matrix &m, int first, int last, const float *x, const Activations &packed) {
    if constexpr (Block::LEVELS > 0)
        quantise_blocks<typename Block::Value, Block::COLUMNS>(m, first, last, x, packed);
    else pack_blocks<Block>(m, first, last, x, packed);
}
