// Blocks of bfloat16 without widening instructions, as add_bfloat_columns does with columns. Included once per
// instruction set (see body.h).

#if LANES >= 8
// Block of R x C, two columns in each lane: a shift leaves the even one as a float, a mask the odd one. Activations
// of a tile are stored in that order: even ones, then odd ones. AVX-512 has one instruction that widens, but only one
// unit for it, which half of the multiplications wait for.
template <int R, int C> struct PairBlock {
    typedef uint16_t Value;
    typedef float Activation;
    typedef V Sum;
    static constexpr int ROWS = R, COLUMNS = C, LEVELS = 0;
    static constexpr bool SCALED = false, OFFSET = false;
    static constexpr int SPAN = C / 2, SUMS = R * SPAN / LANES, MAX_TILE = SUM_REGISTERS / SUMS;
    static constexpr bool in_order(int tile) { return LANES == 8 && tile == 1 && SUMS <= 2; }
    template <int B> static constexpr int panels() { return R < LANES ? LANES / R : 1; }
    template <int B> static constexpr bool swaps() { return false; }

    // As FloatBlock::sums.
    template <int B>
    static INLINE void sums(V (&sum)[SUMS][B], Blocks<Value, R * C> &blocks, const uint16_t *end, const float *x) {
#if LANES == 8
        if constexpr (in_order(B)) return add_rows(sum, blocks, end, x);
#endif
        add_pairs<B>(sum, blocks, end, x);
    }

    template <int B>
    static INLINE void add_pairs(V (&sum)[SUMS][B], Blocks<Value, R * C> &blocks, const uint16_t *end,
                                 const float *x) {
        // Additions wait for one another: so many independent sums hide that, of even and of odd columns, of a
        // block and the next.
        constexpr int N = SUMS * B > 4 ? 1 : SUMS * B > 2 ? 2 : 4, U = N > 2 ? 2 : 1;
        V part[N][SUMS][B] = {};
        const auto add = [&](int u, const Value *weights, size_t column) INLINE_LAMBDA {
            const float *even = x + column * (B * C);
            for (int s = 0; s < SUMS; s++) {
                const VI pairs = loaded(load_as<VI>(weights + 2 * s * LANES));
                for (int b = 0; b < B; b++) {
                    const float *factors = even + b * C;
                    part[2 * u % N][s][b] += (V)(pairs << 16) * repeat<SPAN>(factors);
                    part[(2 * u + 1) % N][s][b] += (V)(pairs & ~0xffff) * repeat<SPAN>(factors + SPAN);
                }
            }
        };
        in_turns<U>(blocks, end, add);
        for (int s = 0; s < SUMS; s++)
            for (int b = 0; b < B; b++) {
                sum[s][b] = part[0][s][b];
                if constexpr (N > 1) sum[s][b] += part[1][s][b];
                if constexpr (N > 2) sum[s][b] += part[2][s][b] + part[3][s][b];
            }
    }

#if LANES == 8
    // The same for a batch of one and four columns: with a word of zeros below each word, the lower halves of a
    // vector's 128 bits become its even rows and the upper ones its odd rows, which share a load of activations.
    static INLINE void add_rows(V (&sum)[SUMS][1], Blocks<Value, R * C> &blocks, const uint16_t *end,
                                const float *x) {
        static_assert(C == 4);
        constexpr int U = turns(2 * SUMS, 8);
        V even[U][SUMS] = {}, odd[U][SUMS] = {};
        const auto add = [&](int u, const Value *weights, size_t column) INLINE_LAMBDA {
            const V factors = repeat<C>(x + column * C);
            for (int s = 0; s < SUMS; s++) {
                const __m256i rows = loaded(_mm256_loadu_si256((const __m256i *)weights + s));
                even[u][s] += (V)_mm256_unpacklo_epi16(__m256i{}, rows) * factors;
                odd[u][s] += (V)_mm256_unpackhi_epi16(__m256i{}, rows) * factors;
            }
        };
        // Here more loads take less time than more instructions.
        in_turns<U, const uint16_t *>(blocks, end, add);
        for (int s = 0; s < SUMS; s++) {
            for (int u = 1; u < U; u++) even[0][s] += even[u][s], odd[0][s] += odd[u][s];
            // Two lanes a row, as of pairs.
            sum[s][0] = (V)_mm256_hadd_ps((__m256)even[0][s], (__m256)odd[0][s]);
        }
    }
#endif

    // Vector i of the panels' rows, which have two lanes each.
    template <int N, int B>
    static INLINE V rows(const V (&sum)[N][SUMS][B], int i, int b, const Terms &) {
        const auto vector = [&](int v) INLINE_LAMBDA { return sum[v / SUMS][v % SUMS][b]; };
        return sums_of_2(vector(2 * i), vector(2 * i + 1));
    }
};
#endif
