// A peer of the kernels: those of Opus (dnn/vec_avx.h), blocks of 8 x 4, in float and in int8. They
// are not part of this project: native.py has them included from a checkout that the user names.

// Per 8 rows: the number of blocks, then their first columns. A block lies column by column in
// float and row by row in int8.
struct OpusMatrix {
    int H;
    std::vector<int> index;
    std::vector<float> floats, scales;
    std::vector<opus_int8> bytes;

    OpusMatrix(int hidden, double density) : H(hidden), scales(3 * hidden, 1 / 127.0f) {
        for (int row = 0; row < 3 * H; row += 8) {
            const size_t count = index.size();
            index.push_back(0);
            for (int column = 0; column < H; column += 4)
                if (random_bits() % 10000 < 10000 * density) {
                    index.push_back(column);
                    index[count]++;
                }
        }
        floats.resize(index.size() * 32), bytes.resize(index.size() * 32);
        for (size_t i = 0; i < floats.size(); i++) {
            // So small that two products fit 16 bits, which Opus's weights are trained for.
            bytes[i] = (opus_int8)((int)(random_bits() % 129) - 64);
            floats[i] = bytes[i] / 127.0f;
        }
    }

    void product(bool is_int8, const float *x, float *y) const {
        if (is_int8)
            sparse_cgemv8x4(y, bytes.data(), index.data(), scales.data(), 3 * H, H, x);
        else
            sparse_sgemv8x4(y, floats.data(), index.data(), 3 * H, x);
    }

    // Largest error of a product of x in [-1, 1]; int8's activations are 127 x + 127, rounded.
    double error(bool is_int8, const std::vector<float> &x) const {
        std::vector<float> y(3 * H);
        product(is_int8, x.data(), y.data());
        double largest = 0.0;
        const int *p = index.data();
        size_t block = 0;
        for (int row = 0; row < 3 * H; row += 8) {
            double expected[8] = {};
            for (int n = *p++; n > 0; n--, p++, block++)
                for (int i = 0; i < 32; i++) {
                    const float here = x[*p + (is_int8 ? i % 4 : i / 8)];
                    const double level = std::nearbyint(std::fma(here, 127.0f, 127.0f));
                    if (is_int8) expected[i / 4] += bytes[block * 32 + i] * level / 127.0;
                    else expected[i % 8] += (double)floats[block * 32 + i] * here;
                }
            for (int r = 0; r < 8; r++)
                largest = std::max(largest, std::abs(expected[r] - y[row + r]));
        }
        return largest;
    }
};

// A step as Opus's GRU takes it: gates in the order z, r, h, the reset gate after the product.
inline void opus_step(const OpusMatrix &m, bool is_int8, const float *gates_x, const float *bias,
                      float *h, float *gates, float *recurrent) {
    const int H = m.H;
    m.product(is_int8, h, recurrent);
    for (int i = 0; i < 3 * H; i++) recurrent[i] += bias[i];
    for (int i = 0; i < 2 * H; i++) gates[i] = gates_x[i] + recurrent[i];
    vec_sigmoid(gates, gates, 2 * H);
    float *z = gates, *r = gates + H, *n = gates + 2 * H;
    for (int i = 0; i < H; i++) n[i] = gates_x[2 * H + i] + recurrent[2 * H + i] * r[i];
    vec_tanh(n, n, H);
    for (int i = 0; i < H; i++) h[i] = z[i] * h[i] + (1 - z[i]) * n[i];
}

inline void time_opus(const char *name, int H, double density, bool is_int8) {
    // Opus quantises into an array of fixed size.
    if (is_int8 && H > MAX_INPUTS - 32) return;
    const OpusMatrix m(H, density);
    std::vector<float> x(H), y(3 * H), bias(3 * H, 0.1f), h(H), gates(3 * H), recurrent(3 * H);
    std::vector<float> gates_x((size_t)STEPS * 3 * H, 0.1f);
    for (float &value : x) value = (int)(random_bits() % 2001 - 1000) / 1000.0f;
    const double error = m.error(is_int8, x);
    if (error > 1e-2) {
        std::fprintf(stderr, "%s: error %g\n", name, error);
        std::exit(1);
    }
    const double step = least_us([&] {
        std::fill(h.begin(), h.end(), 0.1f);
        for (int t = 0; t < STEPS; t++)
            opus_step(m, is_int8, &gates_x[(size_t)t * 3 * H], bias.data(), h.data(), gates.data(),
                      recurrent.data());
    }) / STEPS;
    const double product = least_us([&] { m.product(is_int8, x.data(), y.data()); });
    const size_t blocks = m.index.size() - 3 * H / 8;
    print_row(name, step, product, blocks * 32 * (is_int8 ? 1 : 4) + 4 * m.index.size());
}
