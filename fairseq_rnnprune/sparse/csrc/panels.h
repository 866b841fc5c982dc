// Panels times activations. Included once per instruction set (see body.h).

// Vector registers that may hold sums; the others hold weights and activations.
enum { SUM_REGISTERS = LANES == 16 ? 16 : 8 };

// Columns of 16 bfloat16 rows without widening them: of each 4 bytes, a shift leaves the lower row as
// a float and a mask the upper one. So the sums are of even and of odd rows.
#if LANES == 16
// Two columns at a time, one in each half of the lanes.
static INLINE void add_bfloat_columns(V (&sum)[1][1], const uint16_t *w, const uint16_t *columns,
                                      int n, const float *x) {
    V even[2] = {}, odd[2] = {};
    int k = 0;
    const auto add = [&](int i, VI pair, V factors) {
        // The compiler would load the pair twice, and loads are what takes time here.
        asm("" : "+v"(pair));
        even[i] += (V)(pair << 16) * factors;
        odd[i] += (V)(pair & ~0xffff) * factors;
    };
    const auto factors = [&](int k) {
        const __m256 low = _mm256_set1_ps(x[columns[k]]);
        const __m256 high = _mm256_set1_ps(x[columns[k + 1]]);
        return (V)_mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
    };
    for (; k + 4 <= n; k += 4, w += 64) {
        add(0, load_int32((const int32_t *)w), factors(k));
        add(1, load_int32((const int32_t *)w + 16), factors(k + 2));
    }
    for (; k + 2 <= n; k += 2, w += 32) add(0, load_int32((const int32_t *)w), factors(k));
    if (k < n) {
        const __m256i last = _mm256_loadu_si256((const __m256i *)w);
        add(0, (VI)_mm512_zextsi256_si512(last), (V)_mm512_set1_ps(x[columns[k]]));
    }
    const auto halves = [](V v) {
        return _mm256_add_ps(_mm512_castps512_ps256((__m512)v),
                             _mm512_extractf32x8_ps((__m512)v, 1));
    };
    const __m512 even_rows = _mm512_castps256_ps512(halves(even[0] + even[1]));
    const __m512 odd_rows = _mm512_castps256_ps512(halves(odd[0] + odd[1]));
    const __m512i order = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    sum[0][0] = (V)_mm512_permutex2var_ps(even_rows, order, odd_rows);
}
#elif LANES == 8
static INLINE void add_bfloat_columns(V (&sum)[2][1], const uint16_t *w, const uint16_t *columns,
                                      int n, const float *x) {
    constexpr int U = 4;
    V even[U] = {}, odd[U] = {};
    const auto add = [&](int i, int k) {
        VI pair = load_int32((const int32_t *)(w + 16 * k));
        asm("" : "+x"(pair));
        const V factor = broadcast(x[columns[k]]);
        even[i] += (V)(pair << 16) * factor;
        odd[i] += (V)(pair & ~0xffff) * factor;
    };
    int k = 0;
    for (; k + U <= n; k += U)
        for (int u = 0; u < U; u++) add(u, k + u);
    for (; k < n; k++) add(0, k);
    const __m256 e = (__m256)((even[0] + even[1]) + (even[2] + even[3]));
    const __m256 o = (__m256)((odd[0] + odd[1]) + (odd[2] + odd[3]));
    const __m256 low = _mm256_unpacklo_ps(e, o), high = _mm256_unpackhi_ps(e, o);
    sum[0][0] = (V)_mm256_permute2f128_ps(low, high, 0x20);
    sum[1][0] = (V)_mm256_permute2f128_ps(low, high, 0x31);
}
#endif

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

    // sum: the n blocks at w, whose block columns are `columns`, times x [block columns, B, C].
    template <int B>
    static INLINE void add_blocks(V (&sum)[SUMS][B], const T *w, const uint16_t *columns, int n,
                                  const float *x) {
        // Additions wait for one another: three independent sums hide that, as loads allow one
        // addition every other cycle.
        constexpr int U = SUMS * B >= 3 ? 1 : SUMS * B == 2 ? 2 : 3;
        V sums[U][SUMS][B] = {};
        int k = 0;
        for (; k + U <= n; k += U)
            for (int u = 0; u < U; u++, w += R * C)
                add(sums[u], w, x + (size_t)columns[k + u] * (B * C));
        for (; k < n; k++, w += R * C) add(sums[0], w, x + (size_t)columns[k] * (B * C));
        for (int s = 0; s < SUMS; s++)
            for (int b = 0; b < B; b++) {
                sum[s][b] = sums[0][s][b];
                for (int u = 1; u < U; u++) sum[s][b] += sums[u][s][b];
            }
    }

    // sum: a panel times x [block columns, B, C]; of int8 values, without their scales.
    template <int B>
    static INLINE void sums(V (&sum)[SUMS][B], const Matrix &m, int panel, const float *x,
                            const float *) {
        const int k = m.pointers[panel], n = m.pointers[panel + 1] - k;
        const T *w = (const T *)m.values + (size_t)k * (R * C);
#if LANES > 4
        if constexpr (R == 16 && C == 1 && B == 1 && std::is_same_v<T, uint16_t>)
            return add_bfloat_columns(sum, w, m.columns + k, n, x);
#endif
        add_blocks<B>(sum, w, m.columns + k, n, x);
    }
};

// The last panel of a gate. Out of line, because it is rare and would cost the others registers.
static NOINLINE void add_bias_to_some(const float *sums, const float *bias, int count, float *y) {
    for (int r = 0; r < count; r++) y[r] = sums[r] + (bias ? bias[r] : 0.0f);
}

// y [count] = sums + bias, which may be null; count is R but for a gate's last panel.
template <int R>
static INLINE void add_bias(const float *sums, const float *bias, int count, float *y) {
    typedef float Rows __attribute__((vector_size(4 * R), aligned(4), may_alias));
    if (count < R) return add_bias_to_some(sums, bias, count, y);
    if (bias) *(Rows *)y = *(const Rows *)sums + *(const Rows *)bias;
    else *(Rows *)y = *(const Rows *)sums;
}

// y [B, rows] = sum * scales + bias, each of which may be null, where a lane is a row.
template <int SUMS, int B>
static INLINE void store_rows(const V (&sum)[SUMS][B], const float *scales, const float *bias,
                              float *y, size_t rows) {
    for (int s = 0; s < SUMS; s++) {
        const V factor = scales ? load(scales + s * LANES) : broadcast(1.0f);
        const V more = bias ? load(bias + s * LANES) : V{};
        for (int b = 0; b < B; b++) store(y + b * rows + s * LANES, sum[s][b] * factor + more);
    }
}

template <class Block, int B>
static void rows_in_tiles(const Matrix &matrix, int first, int last, const Activations &x,
                          const float *__restrict bias, float *__restrict y) {
    // A copy, which nothing that is stored can change: it may stay in registers.
    const Matrix m = matrix;
    constexpr int R = Block::ROWS, SPAN = Block::SPAN, SUMS = Block::SUMS;
    const int height = m.gate_rows(), panels = m.gate_panels();
    const size_t tile_size = (size_t)m.block_width() * B * Block::COLUMNS;
    const auto activations = (const typename Block::Activation *)x.data;
    for (int g = 0; g < m.gates; g++) {
        int p = first;
#if LANES > 4
        // One by one, panels so small would spend as long on adding up lanes as on products.
        constexpr int PANELS = LANES / R;
        if constexpr (B == 1 && Block::COLUMNS == 4 && PANELS > 0 && SUMS * PANELS == 4 &&
                      sizeof(typename Block::Value) > 1)
            for (; p + PANELS <= last && (p + PANELS) * R <= height; p += PANELS) {
                V sum[PANELS][SUMS][1];
                for (int i = 0; i < PANELS; i++)
                    Block::template sums<1>(sum[i], m, g * panels + p + i, activations, nullptr);
                const auto part = [&](int i) { return sum[i / SUMS][i % SUMS][0]; };
                V rows[1][1] = {{sums_of_4(part(0), part(1), part(2), part(3))}};
                const int row = g * height + p * R;
                store_rows(rows, nullptr, bias ? bias + row : nullptr, y + row, m.rows);
            }
#endif
        for (; p < last; p++) {
            const int row = g * height + p * R;
            const int count = height - p * R < R ? height - p * R : R;
            const float *scales = m.scales ? m.scales + (size_t)(g * panels + p) * R : nullptr;
            const float *more = bias ? bias + row : nullptr;
            auto data = activations;
            // Where wider tiles exist, one of width 1 is for a batch of one.
            const int batch = B == 1 && Block::MAX_TILE > 1 ? 1 : x.batch;
            for (int start = 0; start < batch; start += B, data += tile_size) {
                float *to = y + (size_t)start * m.rows + row;
                V sum[SUMS][B];
                Block::template sums<B>(sum, m, g * panels + p, data,
                                        Block::QUANTISES ? x.scales + start : nullptr);
                if (SPAN == 1 && count == R && start + B <= batch) {
                    store_rows(sum, scales, more, to, m.rows);
                    continue;
                }
                for (int b = 0; b < B && start + b < batch; b++) {
                    alignas(64) float out[R];
                    for (int s = 0; s < SUMS; s++)
                        store_sums<SPAN>(out + s * (LANES / SPAN), sum[s][b]);
                    if (scales)
                        for (int r = 0; r < R; r++) out[r] *= scales[r];
                    add_bias<R>(out, more, count, to + (size_t)b * m.rows);
                }
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

static void add_diagonal(const Matrix &m, int first, int last, const float *x, float *y,
                         int batch) {
    for (int b = 0; b < batch; b++, x += m.width, y += m.rows)
        for (int g = 0; g < m.gates; g++) {
            const float *diagonal = m.diagonal + (size_t)g * m.gate_rows();
            float *to = y + (size_t)g * m.gate_rows();
            int i = first;
            for (; i + LANES <= last; i += LANES)
                store(to + i, load(to + i) + load(diagonal + i) * load(x + i));
            for (; i < last; i++) to[i] += diagonal[i] * x[i];
        }
}

template <class Block> static constexpr Product product() {
    return {Block::ROWS, Block::COLUMNS, Block::MAX_TILE, Block::QUANTISES, rows<Block>};
}
