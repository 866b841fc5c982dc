// Activations in the layout that the panels read. Included once per instruction set (see body.h).

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

// Product::pack, as rows.
template <class Block, class Wide>
static void pack(const Matrix &m, int first, int last, const float *x, const Activations &packed) {
    if constexpr (Block::LEVELS > 0)
        quantise_blocks<typename Block::Value, Block::COLUMNS>(m, first, last, x, packed);
    else if (packed.tile < 8) pack_blocks<Block>(m, first, last, x, packed);
    else pack_blocks<Wide>(m, first, last, x, packed);
}
