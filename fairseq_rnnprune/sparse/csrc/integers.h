// Blocks of R x 4 or R x 8 integers times activations of as many bits. Included once per instruction set
// (see body.h).
//
// Four columns of a row are the four bytes of one lane, or two columns its two words, which is what the
// dot-product instructions multiply and add (dot.h). The sums are exact in int32, the same everywhere: an
// activation has LEVELS on either side of 0, of 16 bits so few that the weights of a row, whose sum
// Python bounds, have most of the bits.

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
    static constexpr bool SCALED = true, OFFSET = ZERO && sizeof(T) == 1;
    static constexpr bool in_order(int) { return false; }
    // A row takes SPAN lanes; a block takes PART of a vector's, or all those of SUMS vectors.
    static constexpr int SPAN = C * sizeof(T) / 4;
    static constexpr int PART = R * SPAN < LANES ? R * SPAN : LANES;
    static constexpr int SUMS = R * SPAN / PART;
    typedef typename Ints<PART>::Type Part;
    typedef typename Exact<T, PART>::Sum ExactSum;
    static constexpr int MAX_TILE = SUM_REGISTERS / SUMS * sizeof(Part) / sizeof(ExactSum);
    // So many panels side by side have a vector of rows.
    template <int B> static constexpr int panels() { return R < LANES ? LANES / R : 1; }

    // N lanes from x on, repeated to fill a vector.
    template <int N, class Vector> static INLINE Vector spread(const Activation *x) {
        if constexpr (N == 4) return (Vector)repeat<4>((const float *)x);
        else {
            typedef std::conditional_t<N == 1, int32_t, int64_t> Some;
            typedef Some Somes __attribute__((vector_size(sizeof(Vector))));
            return (Vector)(load_as<Some>(x) - Somes{});
        }
    }
    // x [0 .. C-1], repeated for every row.
    static INLINE Part factors(const Activation *x) { return spread<SPAN, Part>(x); }

    // Whether vectors hold W of the batch for each row, because those of a single one would not fill them.
    template <int B> static constexpr bool swaps() { return LANES > 4 && SPAN == 1 && PART < LANES && B >= 2; }
    template <int B> static constexpr int W = B < 4 ? B : 4;
    // Vectors that hold the sums.
    template <int B> static constexpr int vectors() {
        return !swaps<B>() ? SUMS * B : R * B > LANES ? R * B / LANES : 1;
    }
    template <int B> using ExactSums = std::conditional_t<swaps<B>(), VI, ExactSum>[vectors<B>()];

    template <int B> static INLINE void add(ExactSums<B> &sum, const T *w, const Activation *x) {
        if constexpr (swaps<B>()) {
            const VI block = (VI)repeat<R>((const float *)w);
            for (int r = 0, i = 0; r < R; r += LANES / W<B>) {
                const VI rows = permute(block, (LANE / W<B> + r) % R);
                for (int b = 0; b < B; b += W<B>, i++)
                    sum[i] = dot<T>(sum[i], rows, spread<W<B>, VI>(x + C * b));
            }
        } else {
            Part weights[SUMS];
            for (int s = 0; s < SUMS; s++) {
                weights[s] = load_as<Part>(w + s * (R * C / SUMS));
                if constexpr (B > 1) weights[s] = loaded(weights[s]);
            }
            for (int b = 0; b < B; b++) {
                const Part row = factors(x + C * b);
                for (int s = 0; s < SUMS; s++) sum[s * B + b] = dot<T>(sum[s * B + b], weights[s], row);
            }
        }
    }

    // Whether a vector takes several blocks.
    template <int B> static constexpr bool joins() { return B == 1 && LANES > 4 && PART < LANES; }

    // As FloatBlock::sums; of a vector, only the first PART lanes count, unless it takes several blocks.
    template <int B>
    static INLINE void sums(VI (&sum)[SUMS][B], Blocks<T, R * C> &blocks, const uint16_t *end, const Activation *x) {
        if constexpr (joins<B>()) {
            sum[0][0] = Joined<IntegerBlock>::sums(blocks, end, x);
            return;
        }
        // One dot product takes several cycles; where it is many instructions, the sum waits for the last. Blocks of
        // four vectors would get more sums than the compiler keeps in registers.
        constexpr int U = DOT ? turns(vectors<B>(), SUMS < 4 ? 8 : 4) : 1;
        ExactSums<B> exact[U] = {};
        in_turns<U>(blocks, end, [&](int u, const T *weights, size_t column) INLINE_LAMBDA {
            add<B>(exact[u], weights, x + column * (C * B));
        });
        for (int i = 0; i < vectors<B>(); i++) {
            for (int u = 1; u < U; u++) exact[0][i] = add_wrapping(exact[0][i], exact[u][i]);
            sum[i / B][i % B] = as_vector(exact[0][i]);
        }
    }

    // Where vectors hold W of the batch, those of panels side by side become, in sum[0], vectors of their rows.
    template <int N, int B> static INLINE void to_rows(VI (&sum)[N][SUMS][B]) {
        if constexpr (B == 2) {
            VI v = sum[0][0][0], w = sum[1][0][0];
            if constexpr (N == 4) {
                const VI lower_halves = LANE + LANE / (LANES / 2) * (LANES / 2);
                v = permute(v, w, lower_halves);
                w = permute(sum[2][0][0], sum[3][0][0], lower_halves);
            }
            for (int b = 0; b < B; b++) sum[0][0][b] = permute(v, w, LANE * 2 + b);
        } else {
            constexpr int FOURS = B / 4, OF_PANEL = 4 / N;
            VI rows[FOURS][4];
            for (int f = 0; f < FOURS; f++) {
                for (int i = 0; i < 4; i++) rows[f][i] = sum[i / OF_PANEL][0][i % OF_PANEL * FOURS + f];
                transpose(rows[f]);
            }
            for (int b = 0; b < B; b++) sum[0][0][b] = rows[b / 4][b % 4];
        }
    }

    // Vector i of the panels' lanes.
    template <int N, int B> static INLINE VI lanes(const VI (&sum)[N][SUMS][B], int i, int b) {
        if constexpr (swaps<B>()) return sum[0][0][b];
        if constexpr (PART == LANES) return sum[i / SUMS][i % SUMS][b];
        constexpr int TOGETHER = LANES / PART;
        if constexpr (joins<B>()) return Joined<IntegerBlock>::rows(sum + i * TOGETHER);
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
        if (OFFSET) exact -= load_as<VI>(terms.offsets + i * LANES);
        return __builtin_convertvector(exact, V) * terms.x_scales[b];
    }
};
