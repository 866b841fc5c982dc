// Blocks of bfloat16 without widening it, as add_bfloat_columns does with columns. Included once per instruction
// set (see body.h).

#if LANES == 8
// Block of R x C, whose rows lie in C / 2 lanes each, even columns in the lower halves of their bytes. Activations
// are stored in that order: even ones, then odd ones. AVX-512 has an instruction that widens as fast.
template <int R, int C> struct PairBlock {
    typedef uint16_t Value;
    typedef float Activation;
    typedef V Sum;
    static constexpr int ROWS = R, COLUMNS = C, LEVELS = 0;
    static constexpr bool SCALED = false, OFFSET = false, IN_ORDER = false;
    static constexpr int SPAN = C / 2, SUMS = R * SPAN / LANES, MAX_TILE = SUM_REGISTERS / SUMS;
    template <int B> static constexpr int panels() { return R < LANES ? LANES / R : 1; }
    template <int B> static constexpr bool swaps() { return false; }

    // As FloatBlock::sums.
    template <int B>
    static INLINE void sums(V (&sum)[SUMS][B], const Matrix &m, int panel, const float *x) {
        // Additions wait for one another: so many independent sums hide that, of even and of odd columns, of a
        // block and the next.
        constexpr int N = SUMS * B > 4 ? 1 : SUMS * B > 1 ? 2 : 4, U = N > 2 ? 2 : 1;
        const int first = m.pointers[panel], n = m.pointers[panel + 1] - first;
        const Value *w = (const Value *)m.values + (size_t)first * (R * C);
        V part[N][SUMS][B] = {};
        const auto add = [&](int u, const Value *weights, size_t column) INLINE_LAMBDA {
            const float *even = x + column * (B * C);
            for (int s = 0; s < SUMS; s++) {
                VI pairs = load_int32((const int32_t *)weights + s * LANES);
                // The compiler would load them twice, and loads are what takes time here.
                asm("" : "+x"(pairs));
                for (int b = 0; b < B; b++) {
                    const float *factors = even + b * C;
                    part[2 * u % N][s][b] += (V)(pairs << 16) * repeat<SPAN>(factors);
                    part[(2 * u + 1) % N][s][b] += (V)(pairs & ~0xffff) * repeat<SPAN>(factors + SPAN);
                }
            }
        };
        in_turns<R * C, U>(m.columns + first, n, w, add);
        for (int s = 0; s < SUMS; s++)
            for (int b = 0; b < B; b++) {
                sum[s][b] = part[0][s][b];
                if constexpr (N > 1) sum[s][b] += part[1][s][b];
                if constexpr (N > 2) sum[s][b] += part[2][s][b] + part[3][s][b];
            }
    }

    // Vector i of the panels' rows, which have two lanes each.
    template <int N, int B>
    static INLINE V rows(const V (&sum)[N][SUMS][B], int i, int b, const Terms &) {
        const auto vector = [&](int v) INLINE_LAMBDA { return sum[v / SUMS][v % SUMS][b]; };
        // Of each half of v, then of w.
        const __m256 halves = _mm256_hadd_ps(vector(2 * i), vector(2 * i + 1));
        return (V)_mm256_permute4x64_pd((__m256d)halves, 0xd8);
    }
};
#endif
