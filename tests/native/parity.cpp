// The C functions against double arithmetic, without Python: for a sanitizer's build and for other
// processors under an emulator (see check.sh). Exit status 0 if every instruction set agrees.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "kernels.h"

namespace {

std::mt19937 random_bits(1);

float normal() { return std::normal_distribution<float>()(random_bits); }

std::vector<float> normals(size_t n) {
    std::vector<float> values(n);
    for (float &value : values) value = normal();
    return values;
}

// A matrix and what it means. Every array has exactly its documented size, on the heap, so that a
// sanitizer sees any step beyond it.
struct Sample {
    std::vector<float> floats, scales, diagonal;
    std::vector<uint16_t> halves, columns;
    std::vector<int8_t> bytes;
    std::vector<int16_t> words;
    std::vector<int32_t> pointers{0}, offsets;
    std::vector<double> dense;  // [rows, width]
    Matrix m{};

    Sample(int gates, int height, int width, int r, int c, int dtype, double density) {
        m.rows = gates * height, m.width = width, m.gates = gates;
        m.block_rows = r, m.block_columns = c, m.dtype = dtype;
        const int panels = gates * m.gate_panels();
        dense.assign((size_t)m.rows * width, 0.0);
        scales.assign((size_t)panels * r, dtype == INT16 ? 0.01f / 80 : 0.01f);
        offsets.assign((size_t)panels * r, 0);
        for (int p = 0; p < panels; p++) {
            for (int j = 0; j < m.block_width(); j++)
                if (random_bits() % 1000 < 1000 * density) add_block(p, j);
            pointers.push_back((int32_t)columns.size());
        }
        const void *values[] = {floats.data(), halves.data(), bytes.data(), words.data()};
        m.values = values[dtype], m.columns = columns.data(), m.pointers = pointers.data();
        m.scales = has_scales(dtype) ? scales.data() : nullptr;
        m.offsets = dtype == INT8 ? offsets.data() : nullptr;
    }

    void add_diagonal() {
        diagonal = normals(m.rows);
        m.diagonal = diagonal.data();
    }

    void add_block(int panel, int column) {
        columns.push_back((uint16_t)column);
        const int gate = panel / m.gate_panels(), first = panel % m.gate_panels() * m.block_rows;
        for (int i = 0; i < m.block_rows; i++)
            for (int j = 0; j < m.block_columns; j++) {
                const int row = first + i, k = column * m.block_columns + j;
                const bool inside = row < m.gate_rows() && k < m.width;
                const double value = add_value(inside, panel * m.block_rows + i);
                if (inside) dense[(size_t)(gate * m.gate_rows() + row) * m.width + k] = value;
            }
    }

    // Stores a random value, or 0 in the padding, and returns the number it stands for.
    double add_value(bool inside, int padded_row) {
        const int level = inside ? (int)(random_bits() % 255) - 127 : 0;
        if (m.dtype == INT8) {
            bytes.push_back((int8_t)level);
            offsets[padded_row] += 128 * level;
            return level * (double)scales[padded_row];
        }
        if (m.dtype == INT16) {
            // So large that 50 of them come near to what fits 32 bits.
            words.push_back((int16_t)(80 * level));
            return 80 * level * (double)scales[padded_row];
        }
        // Of these numbers bfloat16 has all the bits.
        const float value = level / 64.0f;
        uint32_t bits;
        __builtin_memcpy(&bits, &value, 4);
        m.dtype == FLOAT32 ? floats.push_back(value) : halves.push_back((uint16_t)(bits >> 16));
        return value;
    }

    // In so many the kernels take activations, on either side of 0; 0: as they are.
    int levels() const { return m.block_columns == 1 ? 0 : m.dtype == INT8 ? 127 : m.dtype == INT16 ? 4095 : 0; }

    // Of x and of what the kernels see of it: the diagonal is multiplied by x itself.
    std::vector<double> multiply(const std::vector<float> &x, const std::vector<double> &seen,
                                 const float *bias, int batch) const {
        std::vector<double> y((size_t)batch * m.rows);
        for (int b = 0; b < batch; b++)
            for (int i = 0; i < m.rows; i++) {
                double sum = bias ? bias[i] : 0.0;
                for (int k = 0; k < m.width; k++)
                    sum += dense[(size_t)i * m.width + k] * seen[(size_t)b * m.width + k];
                if (m.diagonal)
                    sum += (double)diagonal[i] * x[(size_t)b * m.width + i % m.gate_rows()];
                y[(size_t)b * m.rows + i] = sum;
            }
        return y;
    }
};

// NaN if one is.
double larger(double a, double b) { return a >= b || std::isnan(a) ? a : b; }

double error(const std::vector<float> &actual, const std::vector<double> &exact) {
    double largest = 0.0, squares = 1e-30;
    for (size_t i = 0; i < exact.size(); i++) {
        largest = larger(largest, std::fabs(actual[i] - exact[i]));
        squares += exact[i] * exact[i];
    }
    return largest / std::sqrt(squares / (double)exact.size() + 1e-12);
}

// The scale of each row of x [batch, width] in such levels.
std::vector<float> scales_of(const Sample &s, const std::vector<float> &x, int batch, float least) {
    const size_t width = x.size() / batch;
    std::vector<float> scales(batch, least);
    for (size_t i = 0; i < x.size(); i++)
        scales[i / width] = std::fmax(scales[i / width], std::fabs(x[i]));
    for (float &scale : scales) scale /= s.levels();
    return scales;
}

// x as the kernels see it.
std::vector<double> seen(const Sample &s, const std::vector<float> &x,
                         const std::vector<float> &scales) {
    std::vector<double> result(x.begin(), x.end());
    const size_t width = x.size() / scales.size();
    const float most = s.levels();
    for (size_t i = 0; most && i < x.size(); i++) {
        const float scale = scales[i / width], level = x[i] * (1.0f / scale);
        result[i] = std::nearbyint(std::fmin(std::fmax(level, -most), most)) * (double)scale;
    }
    return result;
}

double matmul_error(const Sample &s, int batch, int threads) {
    const auto x = normals((size_t)batch * s.m.width), bias = normals(s.m.rows);
    const auto exact =
        s.multiply(x, seen(s, x, scales_of(s, x, batch, 1e-30f)), bias.data(), batch);
    double worst = 0.0;
    // Every other product reads large weights backwards.
    for (int product = 0; product < 2; product++) {
        std::vector<float> y((size_t)batch * s.m.rows, NAN);
        if (rnnprune_matmul(&s.m, x.data(), bias.data(), y.data(), batch, threads)) return INFINITY;
        worst = larger(worst, error(y, exact));
    }
    return worst;
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

constexpr float CEILING = 0.5f;

// The next state of one unit; x and y point to its first gate.
double next_unit(Cell cell, const float *x, const double *y, double h, int H) {
    if (cell == TANH) return std::tanh(x[0] + y[0]);
    if (cell == RELU) return std::fmin(std::fmax(x[0] + y[0], 0.0), CEILING);
    const double r = sigmoid(x[0] + y[0]), z = sigmoid(x[H] + y[H]);
    const double n = std::tanh(x[2 * H] + r * y[2 * H]);
    return n + z * (h - n);
}

double recurrent_error(const Sample &s, Cell cell, int steps, int batch, int threads) {
    const int H = s.m.width, rows = s.m.rows;
    const auto gates_x = normals((size_t)steps * batch * rows), bias = normals(rows);
    auto h = normals((size_t)batch * H);
    std::vector<float> states((size_t)steps * batch * H, NAN);
    if (rnnprune_recurrent(&s.m, cell, CEILING, gates_x.data(), bias.data(), h.data(),
                           states.data(), steps, batch, threads))
        return INFINITY;
    double worst = 0.0;
    auto scales = scales_of(s, h, batch, 1.0f);
    for (int t = 0; t < steps; t++) {
        if (cell == RELU) scales = scales_of(s, h, batch, 1e-30f);
        const auto y = s.multiply(h, seen(s, h, scales), bias.data(), batch);
        std::vector<double> exact;
        for (int b = 0; b < batch; b++)
            for (int i = 0; i < H; i++) {
                const size_t first = (size_t)b * rows + i;
                exact.push_back(next_unit(cell, gates_x.data() + (size_t)t * batch * rows + first,
                                          y.data() + first, h[(size_t)b * H + i], H));
            }
        const size_t size = (size_t)batch * H;
        const std::vector<float> actual(states.begin() + t * size, states.begin() + (t + 1) * size);
        worst = larger(worst, error(actual, exact));
        // Errors of one step must not add to those of the next.
        h = actual;
    }
    return worst;
}

}  // namespace

int main() {
    const int shapes[][2] = {
#define SHAPE(R, C) {R, C},
        BLOCK_SHAPES(SHAPE)};
    int failures = 0, checks = 0;
    for (int set = 0; rnnprune_instruction_set(set); set++) {
        rnnprune_use_instruction_set(set);
        double worst[3] = {0.0, 0.0, 0.0};
        for (const auto &shape : shapes)
            for (int dtype = 0; dtype < DTYPES; dtype++)
                for (const int H : {16, 19, 37})
                    for (const double density : {0.0, 0.3, 1.0})
                        for (const int batch : {1, 2, 3, 5, 17, 66}) {
                            const Cell cell = (Cell)(checks % CELLS);
                            const int gates = cell == GRU ? 3 : 1;
                            Sample s(gates, H, H, shape[0], shape[1], dtype, density);
                            if (checks / 3 % 2) s.add_diagonal();
                            const Sample plain(1, H, 50, shape[0], shape[1], dtype, density);
                            const int threads = 1 + checks++ % 2;
                            const double product = matmul_error(plain, batch, threads);
                            const double state = recurrent_error(s, cell, 3, batch, threads);
                            // Beside integers, gates are less exact: a tanh by 5e-5.
                            failures += !(product <= 2e-5);
                            failures += !(state <= (s.levels() ? 5e-4 : 2e-5));
                            worst[0] = std::fmax(worst[0], product);
                            double &of_states = worst[1 + (s.levels() > 0)];
                            of_states = std::fmax(of_states, state);
                        }
        // More than a quarter of a core's second-level cache, if that has less than 7 MB.
        for (const auto &shape : shapes) {
            const Sample large(3, 210, 700, shape[0], shape[1], FLOAT32, 1.0);
            const double product = matmul_error(large, 2, 1);
            checks++, failures += !(product <= 2e-5);
            worst[0] = std::fmax(worst[0], product);
        }
        std::printf("%-9s largest error / rms: products %.1e, states %.1e, of integers %.1e\n",
                    rnnprune_instruction_set(set), worst[0], worst[1], worst[2]);
    }
    std::printf("%d samples, %d failures\n", checks, failures);
    return failures != 0;
}
