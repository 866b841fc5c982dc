// From the sums of panels to the rows of a product. Included once per instruction set (see body.h).

// y [B, rows] for the first `batch`, where Block::rows makes a vector of rows.
template <class Block, int PANELS, int B>
static INLINE void store_rows(const typename Block::Sum (&sum)[PANELS][Block::SUMS][B],
                              const Terms &terms, float *y, size_t rows, int batch) {
    for (int i = 0; i < PANELS * Block::ROWS / LANES; i++) {
        const V factor = Block::SCALED ? load(terms.scales + i * LANES) : broadcast(1.0f);
        const V more = terms.bias ? load(terms.bias + i * LANES) : V{};
        for (int b = 0; b < B; b++)
            if (b < batch) {
                const V found = Block::rows(sum, i, b, terms);
                store(y + b * rows + i * LANES, found * factor + more);
            }
    }
}

// p [0 .. R-1], or as many as a vector holds, repeated to fill it.
template <int R> static INLINE V repeat_rows(const float *p) {
    if constexpr (R >= LANES) return load(p);
    else return repeat<R>(p);
}

// As store_rows, where SPAN lanes, 4 or 8, are a row of floats, of panels side by side: four vectors of 4 lanes a
// row are added up together, and their sums [B, R] follow one another without gaps.
template <class Block, int PANELS, int B>
static INLINE void store_added_rows(const V (&sum)[PANELS][Block::SUMS][B], const Terms &terms,
                                    float *y, size_t rows, int batch) {
    constexpr int R = PANELS * Block::ROWS, SPAN = Block::SPAN, SUMS = Block::SUMS;
    constexpr int CHUNK = R < LANES ? R : LANES;
    static_assert(PANELS * SUMS * B % SPAN == 0, "vectors are added up by fours");
    static_assert(!Block::SCALED, "no type of these has scales");
    const auto vector = [&](int i) INLINE_LAMBDA {
        return sum[i / SUMS % PANELS][i % SUMS][i / (SUMS * PANELS)];
    };
    const auto of_4_lanes = [&](int i) INLINE_LAMBDA {
        if constexpr (SPAN == 4) return vector(i);
        else return add_halves(vector(2 * i), vector(2 * i + 1));
    };
    const auto add_up = Block::template swaps<B>() ? sums_side_by_side : sums_of_4;
    for (int i = 0; i < PANELS * SUMS * B * 4 / SPAN; i += 4) {
        const int b = i / 4 * LANES / R, r = i / 4 * LANES % R;
        const V sums = add_up(of_4_lanes(i), of_4_lanes(i + 1), of_4_lanes(i + 2), of_4_lanes(i + 3));
        const V all = terms.bias ? sums + repeat_rows<R>(terms.bias + r) : sums;
        for (int j = 0; j < LANES / CHUNK; j++)
            if (b + j < batch) {
                const V part = permute(all, (LANE + j * CHUNK) & (LANES - 1));
                __builtin_memcpy(y + (b + j) * rows + r, &part, sizeof(float) * CHUNK);
            }
    }
}

template <class Block, int PANELS, int B>
static INLINE void store_panels(typename Block::Sum (&sum)[PANELS][Block::SUMS][B],
                                const Terms &terms, float *y, size_t rows, int batch) {
    if constexpr (Block::LEVELS)
        if constexpr (Block::template swaps<B>()) Block::to_rows(sum);
    if constexpr (Block::LEVELS || Block::SPAN < 4) store_rows<Block>(sum, terms, y, rows, batch);
    else store_added_rows<Block>(sum, terms, y, rows, batch);
}

// Where a gate's panels lie in scales, offsets, bias and y.
template <class Block> struct Place {
    Terms terms;
    float *y;
    Place(const Matrix &m, int g, const float *bias, float *y)
        : terms(moved({m.scales, nullptr, m.offsets, nullptr}, g * m.gate_panels() * Block::ROWS)),
          y(y + g * m.gate_rows()) {
        terms.bias = bias ? bias + g * m.gate_rows() : nullptr;
    }

    // The same from this row on, for the activations from `start` on.
    Terms from(int row, const Activations &x, int start) const {
        Terms from_row = moved(terms, row);
        from_row.x_scales = Block::LEVELS ? x.scales + start : nullptr;
        return from_row;
    }

  private:
    static Terms moved(const Terms &terms, int rows) {
        return {Block::SCALED ? terms.scales + rows : nullptr, terms.bias ? terms.bias + rows : nullptr,
                Block::OFFSET ? terms.offsets + rows : nullptr, nullptr};
    }
};

template <class Block> using BlocksOf = Blocks<typename Block::Value, Block::ROWS * Block::COLUMNS>;

// Panel p of gate g, of which fewer than R rows may exist. Out of line, because it is rare and would cost
// the others registers.
template <class Block, int B>
static NOINLINE void some_rows(const Matrix &m, int g, int p, const Activations &x,
                               const float *bias, float *y, int batch) {
    constexpr int R = Block::ROWS, N = Block::template panels<B>();
    const Place<Block> place(m, g, bias, y);
    const int row = p * R, rows = m.gate_rows() - row < R ? m.gate_rows() - row : R;
    // As many as a group of panels has, of which only the first is wanted.
    float scales[N * R] = {}, more[N * R] = {};
    int32_t offsets[N * R] = {};
    for (int r = 0; r < rows; r++) {
        if (Block::SCALED) scales[r] = place.terms.scales[row + r];
        if (Block::OFFSET) offsets[r] = place.terms.offsets[row + r];
        if (bias) more[r] = place.terms.bias[row + r];
    }
    auto data = (const typename Block::Activation *)x.data;
    const int panel = g * m.gate_panels() + p;
    for (int start = 0; start < batch; start += B) {
        typename Block::Sum sum[N][Block::SUMS][B] = {};
        BlocksOf<Block> blocks(m, panel);
        Block::template sums<B>(sum[0], blocks, m.columns + m.pointers[panel + 1], data);
        float out[B][N * R];
        const float *x_scales = Block::LEVELS ? x.scales + start : nullptr;
        store_panels<Block>(sum, Terms{scales, more, offsets, x_scales}, out[0], N * R, B);
        for (int b = start; b < start + B && b < batch; b++)
            for (int r = 0; r < rows; r++)
                place.y[(size_t)b * m.rows + row + r] = out[b - start][r];
        data += (size_t)m.block_width() * B * Block::COLUMNS;
    }
}

template <class Block, int B>
static void rows_in_tiles(const Matrix &matrix, int first, int last, const Activations &x,
                          const float *__restrict bias, float *__restrict y) {
    // A copy, which nothing that is stored can change: it may stay in registers.
    const Matrix m = matrix;
    constexpr int R = Block::ROWS, N = Block::template panels<B>();
    // In a wide tile, panels with fewer rows than a vector take turns until their rows fill one: cache lines
    // of y that are written in parts would drive each other out of the cache before they are whole.
    constexpr int TURNS = B >= 8 && N * R < LANES ? LANES / (N * R) : 1, GROUP = N * TURNS;
    static_assert(GROUP_ROWS % (GROUP * R) == 0);
    const int height = m.gate_rows(), panels = m.gate_panels();
    const size_t tile_size = (size_t)m.block_width() * B * Block::COLUMNS;
    // Where wider tiles exist, one of width 1 is for a batch of one.
    const int batch = B == 1 && Block::MAX_TILE > 1 ? 1 : x.batch;
    const int whole = last < height / R ? last : height / R;
    for (int g = 0; g < m.gates; g++) {
        const Place<Block> place(m, g, bias, y);
        const int32_t *const ends = m.pointers + g * panels + 1;
        // Where a panel's blocks end, those of the next one begin.
        BlocksOf<Block> next(m, g * panels + first);
        int p = first;
        for (; p + GROUP <= whole; p += GROUP) {
            const BlocksOf<Block> group = next;
            auto data = (const typename Block::Activation *)x.data;
            for (int start = 0; start < batch; start += B, data += tile_size) {
                BlocksOf<Block> blocks = group;
                float lines[TURNS > 1 ? B : 1][LANES];
                float *to = place.y + (size_t)start * m.rows + p * R;
                for (int turn = 0; turn < TURNS; turn++) {
                    typename Block::Sum sum[N][Block::SUMS][B];
                    const int panel = p + turn * N;
                    // Sums in an array that a loop walks would go through memory.
#pragma GCC unroll 4
                    for (int i = 0; i < N; i++)
                        Block::template sums<B>(sum[i], blocks, m.columns + ends[panel + i], data);
                    const Terms terms = place.from(panel * R, x, start);
                    if constexpr (TURNS == 1) store_panels<Block>(sum, terms, to, m.rows, batch - start);
                    else store_panels<Block>(sum, terms, lines[0] + turn * N * R, LANES, B);
                }
                next = blocks;
                if constexpr (TURNS > 1)
                    for (int b = 0; b < B && start + b < batch; b++)
                        store(to + (size_t)b * m.rows, load(lines[b]));
            }
        }
        for (; p < last; p++) some_rows<Block, B>(matrix, g, p, x, bias, y, batch);
    }
}

// Product::rows for one kind of block, and what computes with it in tiles of 8 and more.
template <class Block, class Wide>
static void rows(const Matrix &m, int first, int last, const Activations &x, const float *bias,
                 float *y) {
    constexpr int MAX = Wide::MAX_TILE;
    switch (x.tile) {
        case 1: return rows_in_tiles<Block, 1>(m, first, last, x, bias, y);
        case 2: return rows_in_tiles<Block, MAX < 2 ? MAX : 2>(m, first, last, x, bias, y);
        case 4: return rows_in_tiles<Block, MAX < 4 ? MAX : 4>(m, first, last, x, bias, y);
        case 8: return rows_in_tiles<Wide, MAX < 8 ? MAX : 8>(m, first, last, x, bias, y);
        default: return rows_in_tiles<Wide, MAX < 16 ? MAX : 16>(m, first, last, x, bias, y);
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

template <class Block, class Wide = Block> static constexpr Product product() {
    return {Block::ROWS,   Block::COLUMNS, Wide::MAX_TILE,
            Block::LEVELS, sizeof(typename Block::Activation),
            Block::in_order(1), pack<Block, Wide>, rows<Block, Wide>};
}

// Of blocks of one column, which have no dot products, integers are widened.
template <class T, int R, int C> static constexpr Product integer_product() {
    return product<std::conditional_t<C % 4 == 0, IntegerBlock<T, R, C>, FloatBlock<T, R, C>>>();
}

template <int R, int C> static constexpr Product bfloat_product() {
    typedef FloatBlock<uint16_t, R, C> Widened;
#if LANES == 16
    // In a wide tile, pairs load more activations, which vectors of only one panel do not repay.
    if constexpr (R * C / 2 == LANES) return product<PairBlock<R, C>, Widened>();
    if constexpr (R * C / 2 > LANES) return product<PairBlock<R, C>>();
#elif LANES == 8
    if constexpr (C > 1) return product<PairBlock<R, C>>();
#endif
    return product<Widened>();
}
