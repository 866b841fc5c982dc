// A peer of the kernels: those of Lyra (sparse_matmul/), in float and in fixed point. They are not
// part of this project: native.py has them included from a checkout that the user names.

using namespace csrblocksparse;
typedef Matmul<fixed16<2>, fixed16<2>> FixedProduct;
typedef fixed32<11> FixedSum;

struct alignas(64) CacheLine {
    char bytes[64];
};
template <class T> struct LyraVector {
    std::vector<CacheLine> lines;
    explicit LyraVector(size_t n, T value = 0) : lines(n * sizeof(T) / 64 + 1) {
        std::fill_n(data(), n, value);
    }
    T *data() const { return (T *)lines.data(); }
};

// T is float or int16_t. Blocks lie one after the other, each row by row.
template <class T> struct LyraMatrix {
    static constexpr bool FIXED = std::is_same<T, int16_t>::value;
    typedef typename std::conditional<FIXED, int32_t, float>::type Sum;
    static constexpr double VALUE_UNIT = FIXED ? 1 << 13 : 1, SUM_UNIT = FIXED ? 1 << 20 : 1;
    int H, r;
    std::vector<int32_t> counts;           // per row of blocks
    std::vector<int16_t> indices, deltas;  // columns in blocks; steps between them in bytes
    LyraVector<T> values{0};
    LyraVector<Sum> bias;  // 0.1: a quarter of it in float, in a product's unit in fixed point
    mutable FixedProduct fixed;

    LyraMatrix(int hidden, double density, int rows)
        : H(hidden), r(rows), bias(3 * H, (Sum)(FIXED ? 0.1 * (1 << 26) : 0.025)) {
        for (int row = 0, last = 0; row < 3 * H; row += r) {
            counts.push_back(0);
            for (int j = 0; j < H / 4; j++)
                if (random_bits() % 10000 < 10000 * density) {
                    indices.push_back((int16_t)j);
                    deltas.push_back((int16_t)((j - last) * 4 * sizeof(T)));
                    last = j, counts.back()++;
                }
        }
        values = LyraVector<T>(indices.size() * r * 4);
        for (size_t i = 0; i < indices.size() * r * 4; i++)
            values.data()[i] = (T)((random_bits() % 2001 / 1e4 - 0.1) * VALUE_UNIT);
    }

    void product(const float *x, float *y) const {
        detail::SpMV_4x4<float, float, float>(values.data(), deltas.data(), counts.data(), x,
                                              bias.data(), y, 3 * H / 4, 3 * H, H, 0);
    }
    void product(const int16_t *x, int32_t *y) const {
        (fixed.*(r == 8 ? &FixedProduct::MatVec8x4<FixedSum> : &FixedProduct::MatVec4x4<FixedSum>))(
            values.data(), x, bias.data(), counts.data(), indices.data(), 0, 3 * H / r, false, 1, 0,
            (FixedSum *)y);
    }

    double error(const T *x, const Sum *y) const {
        double largest = 0.0;
        const T *value = values.data();
        size_t block = 0;
        for (int row = 0; row < 3 * H; row += r) {
            double expected[8] = {};
            for (int n = counts[row / r]; n > 0; n--, block++)
                for (int i = 0; i < r * 4; i++)
                    expected[i / 4] += (double)*value++ * x[indices[block] * 4 + i % 4];
            for (int i = 0; i < r; i++) {
                const double exact = expected[i] / VALUE_UNIT / VALUE_UNIT + 0.1;
                largest = std::max(largest, std::abs(exact - y[row + i] / SUM_UNIT));
            }
        }
        return largest;
    }
};

// Products only: Lyra has no float gates for AVX, and GCC rejects those in fixed point.
template <class T> void time_lyra(const char *name, int H, double density, int rows) {
    const LyraMatrix<T> m(H, density, rows);
    LyraVector<T> x(H);
    LyraVector<typename LyraMatrix<T>::Sum> y(3 * H);
    for (int i = 0; i < H; i++) x.data()[i] = (T)((random_bits() % 2001 / 1e3 - 1) * m.VALUE_UNIT);
    m.product(x.data(), y.data());
    const double error = m.error(x.data(), y.data());
    if (!(error < (m.FIXED ? 1 / m.SUM_UNIT : 1e-3))) {
        std::fprintf(stderr, "%s: error %g\n", name, error);
        std::exit(1);
    }
    const double product = least_us([&] { m.product(x.data(), y.data()); });
    print_row(name, 0, product, m.indices.size() * (rows * 4 * sizeof(T) + 2));
}
