// Several blocks of integers in one vector, each in lanes of its own, where a block alone would leave lanes empty
// and the batch is one. Included once per instruction set (see body.h).

#if LANES > 4
// v, then zeros.
#if LANES == 16
static INLINE VI widen(VI8 v) { return (VI)_mm512_zextsi256_si512((__m256i)v); }
static INLINE VI widen(VI4 v) { return (VI)_mm512_zextsi128_si512((__m128i)v); }
#else
static INLINE VI widen(VI4 v) { return (VI)_mm256_zextsi128_si256((__m128i)v); }
#endif

template <class Block> struct Joined {
    typedef typename Block::Value Value;
    typedef typename Block::Activation Activation;
    static constexpr int PART = Block::PART, BLOCKS = LANES / PART;
    static constexpr int SIZE = Block::ROWS * Block::COLUMNS;

    // What so many blocks, of these columns, are multiplied with.
    template <int COUNT>
    static INLINE typename Ints<COUNT * PART>::Type factors(const Activation *x,
                                                            const uint16_t *columns) {
        const Columns<COUNT> numbers(columns);
        const auto block = [&](int i) INLINE_LAMBDA { return x + Block::COLUMNS * numbers[i]; };
        // A row of its factors, in the lowest lanes.
        const auto row = [&](int i) INLINE_LAMBDA {
            if constexpr (Block::SPAN == 2) return _mm_loadl_epi64((const __m128i *)block(i));
            return _mm_cvtsi32_si128(load_as<int32_t>(block(i)));
        };
        if constexpr (COUNT == 1) return Block::factors(block(0));
        else if constexpr (COUNT * PART == 8)
            return (VI8)_mm256_blend_epi32(_mm256_broadcastd_epi32(row(0)),
                                           _mm256_broadcastd_epi32(row(1)), 0xf0);
#if LANES == 16
        else if constexpr (Block::SPAN == 2)
            return (VI)_mm512_mask_broadcastq_epi64(_mm512_broadcastq_epi64(row(0)), 0xf0, row(1));
        else {
            __m512i all = _mm512_broadcastd_epi32(row(0));
            for (int i = 1; i < COUNT; i++)
                all = _mm512_mask_broadcastd_epi32(all, ((1 << PART) - 1) << i * PART, row(i));
            return (VI)all;
        }
#endif
    }

    // The sums of the blocks up to `end`, of every BLOCKS-th block in lanes of their own.
    static INLINE VI sums(Blocks<Value, SIZE> &blocks, const uint16_t *end, const Activation *x) {
        // Two, because one dot product takes several cycles.
        VI even{}, odd{};
        while (blocks.template are_left<2 * BLOCKS>(end)) {
            const Value *w = blocks.weights;
            even = dot<Value>(even, load_as<VI>(w), factors<BLOCKS>(x, blocks.columns));
            odd = dot<Value>(odd, load_as<VI>(w + BLOCKS * SIZE), factors<BLOCKS>(x, blocks.columns + BLOCKS));
            blocks.advance(2 * BLOCKS);
        }
        if (blocks.template are_left<BLOCKS>(end)) {
            odd = dot<Value>(odd, load_as<VI>(blocks.weights), factors<BLOCKS>(x, blocks.columns));
            blocks.advance(BLOCKS);
        }
        if constexpr (BLOCKS == 4)
            if (blocks.template are_left<2>(end)) {
                even += widen(dot<Value>(VI8{}, load_as<VI8>(blocks.weights), factors<2>(x, blocks.columns)));
                blocks.advance(2);
            }
        typedef typename Block::Part Part;
        if (blocks.columns < end) {
            odd += widen(dot<Value>(Part{}, load_as<Part>(blocks.weights), factors<1>(x, blocks.columns)));
            blocks.advance(1);
        }
        return even + odd;
    }

    // The rows of so many panels, one after another.
    static INLINE VI rows(const VI (*sum)[1][1]) {
        const auto of = [&](int panel) INLINE_LAMBDA { return sum[panel][0][0]; };
        if constexpr (PART == 4) {
            if constexpr (BLOCKS == 2) return add_halves(of(0), of(1));
            else return add_halves(add_halves(of(0), of(1)), add_halves(of(2), of(3)));
        }
#if LANES == 16
        const __m512i a = (__m512i)of(0), b = (__m512i)of(1);
        return (VI)_mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x44), _mm512_shuffle_i32x4(a, b, 0xee));
#endif
    }
};
#else
template <class Block> struct Joined;
#endif
