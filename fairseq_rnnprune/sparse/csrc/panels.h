// Panels times activations. Included once per instruction set (see body.h).

// Vector registers that may hold sums; the others hold weights and activations.
enum { SUM_REGISTERS = LANES == 16 ? 16 : 8 };

// Block of R x C values of type T, row by row. Values are widened to float, so are the activations.
template <class T, int R, int C> struct FloatBlock {
    typedef T Value;
    typedef float Activation;
    static constexpr bool QUANTISES = false;
    static constexpr int ROWS = R, COLUMNS = C;
    // A row lies in SPAN lanes, if need be of several vectors that share their sum.
    static constexpr int SPAN = C < LANES ? C : LANES;
    static constexpr int VECTORS = R * C / LANES;
    static constexpr int SUMS = R * SPAN / LANES;
    static constexpr int MAX_TILE = SUMS < SUM_REGISTERS ? SUM_REGISTERS / SUMS : 1;

    template <int B> static INLINE void add(V (&sum)[SUMS][B], const T *w, const float *x) {
        for (int v = 0; v < VECTORS; v++) {
            const V weights = load(w + v * LANES);
            const int offset = C > LANES ? v * LANES % C : 0;
            for (int b = 0; b < B; b++)
                sum[v * SUMS / VECTORS][b] += weights * repeat<C>(x + b * C + offset);
        }
    }

    // out [B, R]: the n blocks of a panel times x [block columns, B, C].
    template <int B>
    static INLINE void panel(const Matrix &m, int panel, const float *x, const float *,
                             float *out) {
        // Additions wait for one another: four independent sums hide that.
        constexpr int U = SUMS * B >= 4 ? 1 : 4 / (SUMS * B);
        int k = m.pointers[panel];
        const int end = m.pointers[panel + 1];
        const T *w = (const T *)m.values + (size_t)k * (R * C);
        V sum[U][SUMS][B] = {};
        for (; k + U <= end; k += U)
            for (int u = 0; u < U; u++, w += R * C)
                add(sum[u], w, x + (size_t)m.columns[k + u] * (B * C));
        for (; k < end; k++, w += R * C) add(sum[0], w, x + (size_t)m.columns[k] * (B * C));

        for (int b = 0; b < B; b++)
            for (int s = 0; s < SUMS; s++) {
                for (int u = 1; u < U; u++) sum[0][s][b] += sum[u][s][b];
                store_sums<SPAN>(out + b * R + s * (LANES / SPAN), sum[0][s][b]);
            }
        if (sizeof(T) == 1)
            for (int b = 0; b < B; b++)
                for (int r = 0; r < R; r++) out[b * R + r] *= m.scales[panel * R + r];
    }
};

template <class Block, int B>
static void rows_in_tiles(const Matrix &m, int first, int last, const Activations &x,
                          const float *__restrict bias, float *__restrict y) {
    constexpr int R = Block::ROWS;
    const int height = m.gate_rows(), panels = m.gate_panels();
    const size_t tile_size = (size_t)m.block_width() * B * Block::COLUMNS;
    for (int g = 0; g < m.gates; g++)
        for (int p = first; p < last; p++) {
            const int row = g * height + p * R;
            const int count = height - p * R < R ? height - p * R : R;
            auto data = (const typename Block::Activation *)x.data;
            for (int start = 0; start < x.batch; start += B, data += tile_size) {
                alignas(64) float out[B * R];
                const float *scales = Block::QUANTISES ? x.scales + start : nullptr;
                Block::template panel<B>(m, g * panels + p, data, scales, out);
                for (int b = 0; b < B && start + b < x.batch; b++) {
                    float *to = y + (size_t)(start + b) * m.rows + row;
                    if (count == R && bias)
                        for (int r = 0; r < R; r++) to[r] = out[b * R + r] + bias[row + r];
                    else
                        for (int r = 0; r < count; r++)
                            to[r] = out[b * R + r] + (bias ? bias[row + r] : 0.0f);
                }
            }
        }
}

// Product::rows for one kind of block.
template <class Block>
static void rows(const Matrix &m, int first, int last, const Activations &x, const float *bias,
                 float *y) {
    constexpr int MAX = Block::MAX_TILE;
    switch (x.tile) {
        case 1: return rows_in_tiles<Block, 1>(m, first, last, x, bias, y);
        case 2: return rows_in_tiles<Block, MAX < 2 ? MAX : 2>(m, first, last, x, bias, y);
        case 4: return rows_in_tiles<Block, MAX < 4 ? MAX : 4>(m, first, last, x, bias, y);
        case 8: return rows_in_tiles<Block, MAX < 8 ? MAX : 8>(m, first, last, x, bias, y);
        default: return rows_in_tiles<Block, MAX < 16 ? MAX : 16>(m, first, last, x, bias, y);
    }
}

template <class Block> static constexpr Product product() {
    return {Block::ROWS, Block::COLUMNS, Block::MAX_TILE, Block::QUANTISES, rows<Block>};
}
