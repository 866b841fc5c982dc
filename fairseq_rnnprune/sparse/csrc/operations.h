// Products and sequences with the chosen kernels and threads. Part of kernels.cpp, which defines
// `kernels` and includes this in its namespace.

// Calls f(thread, threads) in each thread; a barrier in f needs every thread.
template <class F> void in_threads([[maybe_unused]] int threads, F f) {
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp parallel num_threads(threads)
        f(omp_get_thread_num(), omp_get_num_threads());
        return;
    }
#endif
    f(0, 1);
}

void barrier([[maybe_unused]] int threads) {
#ifdef _OPENMP
    if (threads > 1) {
#pragma omp barrier
    }
#endif
}

// The first of a gate's panels that a thread owns: an equal part of the stored blocks for each.
int first_panel(const Matrix &m, int thread, int threads) {
    if (thread == 0) return 0;
    if (thread == threads) return m.gate_panels();
    const int64_t wanted = m.blocks(m.gate_panels()) * thread / threads;
    int low = 0, high = m.gate_panels();
    while (low < high) {
        const int middle = (low + high) / 2;
        if (m.blocks(middle) < wanted) low = middle + 1;
        else high = middle;
    }
    return low;
}

// Memory that a thread keeps between calls, because calls are short and many. It begins where a cache line
// does: a vector of activations that lies across two is two reads.
char *scratch(int which, size_t bytes) {
    constexpr size_t LINE = 64;
    thread_local std::vector<char> kept[6];
    if (kept[which].size() < bytes + LINE) kept[which].resize(bytes + LINE);
    return (char *)(((uintptr_t)kept[which].data() + LINE - 1) / LINE * LINE);
}

int padded_batch(int batch, int tile) { return (batch + tile - 1) / tile * tile; }

// How a product wants its activations: which tile, and where they go.
Activations layout(const Matrix &m, const Product &product, int batch, int which) {
    int tile = 1;
    while (tile < batch && tile < product.max_tile) tile *= 2;
    const size_t size = (size_t)padded_batch(batch, tile) * m.block_width() * m.block_columns;
    return {scratch(which, size * product.activation_bytes), nullptr, batch, tile};
}

// The scale of each activation row: the largest of |x| and `least`, in so many levels. NaN for a row
// with NaN or inf, which makes its results NaN.
float *activation_scales(const float *x, const Activations &packed, int width, int levels,
                         float least) {
    const int padded = padded_batch(packed.batch, packed.tile);
    float *scales = (float *)scratch(2, padded * sizeof(float));
    for (int b = 0; b < padded; b++) {
        const bool real = b < packed.batch;
        const float size = real ? kernels->magnitude(x + (size_t)b * width, width) : 0.0f;
        const float bound = size < least ? least : size;
        scales[b] = (bound - bound == 0.0f ? bound : __builtin_nanf("")) / levels;
    }
    return scales;
}

// No panel reads beyond K if whole blocks make up K, so x itself is in the right layout.
bool is_packed(const Matrix &m, const Product &product, int batch) {
    return batch == 1 && m.width % m.block_columns == 0 && product.in_order;
}

int at_most(int64_t x, int limit) { return x < limit ? (int)x : limit; }

// y [B, M] = x [B, K] W^T + bias, in the panels first to last - 1 of every gate. x is given twice: as
// it came and as the product reads it.
void multiply(const Matrix &m, const Product &product, int first, int last, const float *x,
              const Activations &packed, const float *bias, float *y) {
    product.rows(m, first, last, packed, bias, y);
    if (m.diagonal)
        kernels->add_diagonal(m, first * m.block_rows,
                              at_most((int64_t)last * m.block_rows, m.gate_rows()), x, y,
                              packed.batch);
}

// y [B, M] = x [B, K] W^T + bias.
void matmul(const Matrix &m, const Product &product, const float *x, const float *bias, float *y,
            int batch, int threads) {
    Activations packed{x, nullptr, batch, 1};
    const bool copies = !is_packed(m, product, batch);
    if (copies) packed = layout(m, product, batch, 0);
    if (product.levels) packed.scales = activation_scales(x, packed, m.width, product.levels, 1e-30f);
    in_threads(threads, [&](int t, int n) {
        if (copies) {
            const int64_t width = m.block_width();
            product.pack(m, width * t / n, width * (t + 1) / n, x, packed);
            barrier(n);
        }
        multiply(m, product, first_panel(m, t, n), first_panel(m, t + 1, n), x, packed, bias, y);
    });
}

// Of larger batches the packed activations would leave the second-level cache.
constexpr int CHUNK = 64;

void matmul_in_chunks(const Matrix &m, const Product &product, const float *x, const float *bias,
                      float *y, int batch, int threads) {
    for (int start = 0; start < batch; start += CHUNK)
        matmul(m, product, x + (size_t)start * m.width, bias, y + (size_t)start * m.rows,
               at_most(batch - start, CHUNK), threads);
}

// states [T, B, H] from gates_x [T, B, G * H], bias [G * H] and h [B, H], which comes before the first
// step or, in reverse, after the last; h_0 [B, H] is what came before the whole sequence of which this
// may be a part. A thread owns the same units in all gates, so that threads
// wait for one another only once per step, for the state.
void recurrent(const Matrix &m, const Product &product, Cell cell, float ceiling, bool reverse,
               const float *gates_x, const float *bias, const float *h, const float *h_0,
               float *states, int steps, int batch, int threads) {
    const int H = m.width;
    const bool copies = !is_packed(m, product, batch);
    Activations state[2] = {{h, nullptr, batch, 1}, {h, nullptr, batch, 1}};
    if (copies)
        for (int i = 0; i < 2; i++) state[i] = layout(m, product, batch, i);
    // States lie between their predecessor and a tanh, so one scale fits a whole sequence. It is kept twice: who
    // packs a NaN sets that of the next state, while others still multiply with this one's. States of a ReLU need
    // one in each step, for which the threads wait once more.
    const bool scales_each_step = product.levels && cell == RELU;
    if (scales_each_step) state[0].scales = activation_scales(h, state[0], H, product.levels, 1e-30f);
    else if (product.levels) {
        const int padded = padded_batch(batch, state[0].tile);
        state[0].scales = activation_scales(h_0, state[0], H, product.levels, 1.0f);
        state[1].scales = (float *)scratch(5, padded * sizeof(float));
        std::copy(state[0].scales, state[0].scales + padded, state[1].scales);
    }
    float *gates_h = (float *)scratch(3, (size_t)batch * m.rows * sizeof(float));
    const auto units = (product.levels ? kernels->coarse_units : kernels->units)[cell];

    in_threads(threads, [&](int t, int n) {
        const int first = first_panel(m, t, n), last = first_panel(m, t + 1, n);
        const int first_unit = at_most((int64_t)first * m.block_rows, H);
        const int last_unit = at_most((int64_t)last * m.block_rows, H);
        // Units that fill a block column in part belong to one thread, as the column does.
        const auto column = [&](int unit) {
            return (unit + m.block_columns - 1) / m.block_columns;
        };
        const int first_column = column(first_unit), last_column = column(last_unit);
        Activations mine[2] = {state[0], state[1]};
        if (copies) {
            product.pack(m, first_column, last_column, h, mine[0]);
            barrier(n);
        }
        for (int step = 0; step < steps; step++) {
            const size_t size = (size_t)batch * H;
            const int64_t at = reverse ? steps - 1 - step : step;
            const float *before = step ? states + (reverse ? at + 1 : at - 1) * size : h;
            float *after = states + at * size;
            Activations &x = mine[step % 2], &next = mine[(step + 1) % 2];
            if (!copies) x.data = before;
            multiply(m, product, first, last, before, x, bias, gates_h);
            for (int b = 0; b < batch; b++)
                units(gates_x + (at * (size_t)batch + b) * m.rows, gates_h + (size_t)b * m.rows,
                      before + (size_t)b * H, after + (size_t)b * H, first_unit, last_unit, H,
                      ceiling);
            if (scales_each_step) {
                barrier(n);
                next.scales = activation_scales(after, next, H, product.levels, 1e-30f);
            }
            if (copies) product.pack(m, first_column, last_column, after, next);
            barrier(n);
        }
    });
}
