// Products with the chosen kernels and threads. Part of kernels.cpp, which defines
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
    const int64_t wanted = m.blocks(0, m.gate_panels()) * thread / threads;
    int low = 0, high = m.gate_panels();
    while (low < high) {
        const int middle = (low + high) / 2;
        if (m.blocks(0, middle) < wanted) low = middle + 1;
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

// Bytes of a core's second-level cache, or as many as are usual.
const int64_t CACHE = [] {
#ifdef _SC_LEVEL2_CACHE_SIZE
    const int64_t bytes = sysconf(_SC_LEVEL2_CACHE_SIZE);
#else
    const int64_t bytes = 0;
#endif
    return bytes > 0 ? bytes : 1 << 20;
}();

// The panels first to last - 1 of every gate, in parts that are read one after another: one, or several of
// weights that may have left the cache, at least in part, when they are read again. Other weights of the same
// layer may be read in between, so that begins with a quarter of the cache.
class Parts {
  public:
    const int first, last;

    Parts(const Matrix &m, int first, int last) : first(first), last(last), group(GROUP_ROWS / m.block_rows) {
        const int64_t block_bytes = m.block_rows * m.block_columns * value_bytes(m.dtype);
        const int64_t bytes = m.blocks(first, last) * block_bytes;
        groups = (last - first + group - 1) / group;
        count = bytes > CACHE / 4 ? 1 + at_most(16 * bytes / CACHE, groups - 1) : 1;
    }

    // f(first, last) of each.
    template <class F> void each(bool backwards, F f) const {
        for (int i = 0; i < count; i++) {
            const int part = backwards ? count - 1 - i : i;
            f(begin(part), begin(part + 1));
        }
    }

  private:
    int group, groups, count;

    // Where a group of panels begins: in the midst of one, Product::rows would take them one by one.
    int begin(int part) const {
        return at_most(first + (int64_t)groups * part / count * group, last);
    }
};

// y [B, M] = x [B, K] W^T + bias in these panels. x is given twice: as it came and as the product reads
// it. Every other product should go backwards: of weights larger than the cache, the last ones are in it
// since the product before, which has driven the first ones out.
void multiply(const Matrix &m, const Product &product, const Parts &parts, bool backwards, const float *x,
              const Activations &packed, const float *bias, float *y) {
    parts.each(backwards, [&](int first, int last) { product.rows(m, first, last, packed, bias, y); });
    if (m.diagonal)
        kernels->add_diagonal(m, parts.first * m.block_rows,
                              at_most((int64_t)parts.last * m.block_rows, m.gate_rows()), x, y,
                              packed.batch);
}

// y [B, M] = x [B, K] W^T + bias.
void matmul(const Matrix &m, const Product &product, const float *x, const float *bias, float *y,
            int batch, int threads) {
    Activations packed{x, nullptr, batch, 1};
    const bool copies = !is_packed(m, product, batch);
    if (copies) packed = layout(m, product, batch, 0);
    if (product.levels) packed.scales = activation_scales(x, packed, m.width, product.levels, 1e-30f);
    const bool backwards = m.count_products(1) % 2;
    in_threads(threads, [&](int t, int n) {
        if (copies) {
            const int64_t width = m.block_width();
            product.pack(m, width * t / n, width * (t + 1) / n, x, packed);
            barrier(n);
        }
        const Parts parts(m, first_panel(m, t, n), first_panel(m, t + 1, n));
        multiply(m, product, parts, backwards, x, packed, bias, y);
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
