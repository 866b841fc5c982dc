// Sums of a panel's blocks of floats times activations. Included once per instruction set (see body.h).

// What becomes of a panel's sums: y = (sum - offset) * x_scale * scale + bias. Null where there is none: a block's
// SCALED and OFFSET tell of the first ones.
struct Terms {
    const float *scales, *bias;
    const int32_t *offsets;
    const float *x_scales;
};

// Blocks of SIZE weights, from the first one of a panel on.
template <class T, int SIZE> struct Blocks {
    const uint16_t *columns;
    const T *weights;

    INLINE Blocks(const Matrix &m, int panel)
        : columns(m.columns + m.pointers[panel]),
          weights((const T *)m.values + (size_t)m.pointers[panel] * SIZE) {}

    // To the next ones. The compiler for x86 does not see how far: it would compute both anew after a loop, from how
    // often that ran, which takes longer than loops as short as a panel's.
    INLINE void advance(int n) {
        columns += n, weights += n * SIZE;
#if LANES > 4
        asm("" : "+r"(columns), "+r"(weights));
#endif
    }

    // Whether there are N more; which way to ask takes less time depends on the processor.
    template <int N> INLINE bool are_left(const uint16_t *end) const {
#if LANES > 4
        return columns + N <= end;
#else
        // As numbers, for of a matrix without blocks both are null.
        return (intptr_t)columns < (intptr_t)end - (intptr_t)sizeof(*end) * (N - 1);
#endif
    }
};

// N block columns, at most 4, in one load, as loads are what takes time here.
template <int N> class Columns {
    static_assert(N <= 4);
    uint64_t bits = 0;

  public:
    explicit INLINE Columns(const uint16_t *columns) {
        __builtin_memcpy(&bits, columns, sizeof(*columns) * N);
    }
    INLINE size_t operator[](int i) const { return (uint16_t)(bits >> 16 * i); }
};

// add(u, weights, column) for the blocks up to `end`: U of them in turns, what is left of these with u = 0.
template <int U, class Numbers = Columns<U>, class T, int SIZE, class Add>
static INLINE void in_turns(Blocks<T, SIZE> &blocks, const uint16_t *end, Add add) {
    while (blocks.template are_left<U>(end)) {
        const Numbers numbers(blocks.columns);
        for (int u = 0; u < U; u++) add(u, blocks.weights + u * SIZE, numbers[u]);
        blocks.advance(U);
    }
    while (blocks.columns < end) {
        add(0, blocks.weights, (size_t)*blocks.columns);
        blocks.advance(1);
    }
}

// How many blocks take turns, at most 4, for so many sums if one block has so many.
static constexpr int turns(int of_one, int wanted) {
    return of_one >= wanted ? 1 : wanted / of_one < 4 ? wanted / of_one : 4;
}

// Vector registers that may hold sums; the others hold weights and activations.
#if LANES == 16 || defined(__aarch64__)
enum { SUM_REGISTERS = 16 };
#else
enum { SUM_REGISTERS = 8 };
#endif

// Columns of 16 bfloat16 rows without widening them: of each 4 bytes, a shift leaves the lower row as
// a float and a mask the upper one. So the sums are of even and of odd rows.
#if LANES == 16
// Two columns at a time, one in each half of the lanes.
static INLINE void add_bfloat_columns(V (&sum)[1][1], Blocks<uint16_t, 16> &blocks, const uint16_t *end,
                                      const float *x) {
    constexpr int U = 4;
    V even[U] = {}, odd[U] = {};
    const auto add = [&](int i, VI pair, V factors) {
        pair = loaded(pair);
        even[i] += (V)(pair << 16) * factors;
        odd[i] += (V)(pair & ~0xffff) * factors;
    };
    const auto pair = [&](int u) { return load_as<VI>(blocks.weights + 2 * u * LANES); };
    const auto factors = [&](size_t low, size_t high) {
        const __m512 both = _mm512_set1_ps(x[low]);
        return (V)_mm512_mask_broadcastss_ps(both, 0xff00, _mm_load_ss(x + high));
    };
    for (; blocks.are_left<2 * U>(end); blocks.advance(2 * U)) {
        const Columns<4> fours[U / 2] = {Columns<4>(blocks.columns), Columns<4>(blocks.columns + 4)};
        for (int u = 0; u < U; u++)
            add(u, pair(u), factors(fours[u / 2][u % 2 * 2], fours[u / 2][u % 2 * 2 + 1]));
    }
    for (; blocks.are_left<2>(end); blocks.advance(2)) add(0, pair(0), factors(blocks.columns[0], blocks.columns[1]));
    if (blocks.columns < end) {
        const __m256i last = _mm256_loadu_si256((const __m256i *)blocks.weights);
        add(0, (VI)_mm512_zextsi256_si512(last), (V)_mm512_set1_ps(x[*blocks.columns]));
        blocks.advance(1);
    }
    const auto halves = [](V v) {
        return _mm256_add_ps(_mm512_castps512_ps256((__m512)v),
                             _mm512_extractf32x8_ps((__m512)v, 1));
    };
    const __m512 even_rows = _mm512_castps256_ps512(halves((even[0] + even[1]) + (even[2] + even[3])));
    const __m512 odd_rows = _mm512_castps256_ps512(halves((odd[0] + odd[1]) + (odd[2] + odd[3])));
    const __m512i order = _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    sum[0][0] = (V)_mm512_permutex2var_ps(even_rows, order, odd_rows);
}
#elif LANES == 8
static INLINE void add_bfloat_columns(V (&sum)[2][1], Blocks<uint16_t, 16> &blocks, const uint16_t *end,
                                      const float *x) {
    constexpr int U = 4;
    V even[U] = {}, odd[U] = {};
    const auto add = [&](int i, const uint16_t *weights, size_t column) INLINE_LAMBDA {
        const VI pair = loaded(load_as<VI>(weights));
        const V factor = broadcast(x[column]);
        even[i] += (V)(pair << 16) * factor;
        odd[i] += (V)(pair & ~0xffff) * factor;
    };
    in_turns<U>(blocks, end, add);
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
    typedef V Sum;
    static constexpr int ROWS = R, COLUMNS = C, LEVELS = 0;
    static constexpr bool SCALED = std::is_signed_v<T> && std::is_integral_v<T>, OFFSET = false;
    static constexpr bool in_order(int) { return true; }
    // A row lies in SPAN lanes, if need be of several vectors that share their sum.
    static constexpr int SPAN = C < LANES ? C : LANES;
    static constexpr int VECTORS = R * C / LANES;
    static constexpr int SUMS = R * SPAN / LANES;
    static constexpr int MAX_TILE = SUMS < SUM_REGISTERS ? SUM_REGISTERS / SUMS : 1;

    // Whether vectors hold columns of several of the batch, not of several rows, so that rows are
    // repeated, once for two vectors or more, and not each of the batch for one.
    template <int B> static constexpr bool swaps() {
        return LANES == 16 && R == 4 && C == 4 && B * C / LANES >= 2;
    }

    template <int B> static INLINE void add(V (&sum)[SUMS][B], const T *w, const float *x) {
        if constexpr (swaps<B>()) {
            for (int v = 0; v < B * C / LANES; v++) {
                const V factors = load(x + v * LANES);
                for (int r = 0; r < R; r++) {
                    const V row = permute(load(w + r * C / LANES * LANES), LANE % C + r * C % LANES);
                    sum[(v * R + r) % SUMS][(v * R + r) / SUMS] += row * factors;
                }
            }
            return;
        }
        for (int v = 0; v < VECTORS; v++) {
            V weights = load(w + v * LANES);
            if constexpr (B == 2 && sizeof(T) == sizeof(float)) weights = loaded(weights);
            const int offset = C > LANES ? v * LANES % C : 0;
            for (int b = 0; b < B; b++)
                sum[v * SUMS / VECTORS][b] += weights * repeat<C>(x + b * C + offset);
        }
    }

    // sum: the blocks up to `end`, of one panel, times x [block columns, B, C]; of integers, without their scales.
    template <int B>
    static INLINE void sums(V (&sum)[SUMS][B], Blocks<T, R * C> &blocks, const uint16_t *end, const float *x) {
#if LANES > 4
        if constexpr (R == 16 && C == 1 && B == 1 && std::is_same_v<T, uint16_t>)
            return add_bfloat_columns(sum, blocks, end, x);
#endif
        // Additions wait for one another: independent sums hide that. A batch of one waits for loads as well, and
        // adding up more sums would take a small panel longer than they save.
        constexpr int U = turns(SUMS * B, B > 1 ? 8 : 4);
        V part[U][SUMS][B] = {};
        in_turns<U>(blocks, end, [&](int u, const T *weights, size_t column) INLINE_LAMBDA {
            add(part[u], weights, x + column * (B * C));
        });
        for (int s = 0; s < SUMS; s++)
            for (int b = 0; b < B; b++) {
                sum[s][b] = part[0][s][b];
                for (int u = 1; u < U; u++) sum[s][b] += part[u][s][b];
            }
    }

    // So many panels at a time: their rows are added up and stored by whole vectors. One by one, small
    // ones would spend as long on that as on products.
    template <int B> static constexpr int panels() {
        constexpr int vector = R < LANES ? LANES / R : 1;
        return !swaps<B>() && vector * SUMS * B <= SUM_REGISTERS ? vector : 1;
    }

    // Vector i of a panel's rows, where a lane is a row.
    template <int N, int B>
    static INLINE V rows(const V (&sum)[N][SUMS][B], int i, int b, const Terms &) {
        static_assert(N == 1);
        return sum[0][i][b];
    }
};
