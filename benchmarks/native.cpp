// The kernels without Python: microseconds of a GRU's step and of a product, and the rate at which
// a loop that only adds up reads as many bytes. native.py compiles, runs and records it.
//
//   native HIDDEN DENSITY [INSTRUCTION_SET]

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "instruction_set.h"
#include "random_matrix.h"

#ifdef OPUS
#include "opus_types.h"
#include "vec_avx.h"
#endif
#ifdef LYRA
#include "sparse_matmul/compute/kernels_avx.h"
#include "sparse_matmul/compute/matmul.h"
#endif

namespace {

constexpr int STEPS = 64;

// The least of many calls, after some to warm up.
template <class F> double least_us(F call) {
    using clock = std::chrono::steady_clock;
    double least = 1e30;
    const auto end = clock::now() + std::chrono::milliseconds(150);
    for (int i = 0; i < 20 || clock::now() < end; i++) {
        const auto started = clock::now();
        call();
        const std::chrono::duration<double, std::micro> took = clock::now() - started;
        if (i >= 3) least = std::min(least, took.count());
    }
    return least;
}

// As wide as a register: compilers split wider ones badly.
#ifdef __AVX512F__
enum { WIDTH = 64 };
#elif defined(__AVX__)
enum { WIDTH = 32 };
#else
enum { WIDTH = 16 };
#endif
typedef float V __attribute__((vector_size(WIDTH), aligned(4), may_alias));

constexpr size_t PART = 1 << 16;

// Bytes are a multiple of 512, so that eight sums hide what an addition takes. They start at a line of
// the cache, as weights do: otherwise every load would need two.
double read_us(size_t bytes) {
    const std::vector<char> room(bytes + 64);
    const char *data = aligned(room);
    volatile float result;
    const char *end = data + bytes;
    bool backwards = false;
    return least_us([&] {
        V a{}, b{}, c{}, d{}, e{}, f{}, g{}, h{};
        // In parts, every other time from the last to the first, as products read weights.
        const size_t parts = (bytes + PART - 1) / PART;
        for (size_t i = 0; i < parts; i++) {
            const char *part = data + (backwards ? parts - 1 - i : i) * PART;
            for (const V *p = (const V *)part, *to = (const V *)std::min(part + PART, end); p != to; p += 8)
                a += p[0], b += p[1], c += p[2], d += p[3], e += p[4], f += p[5], g += p[6], h += p[7];
        }
        backwards = !backwards;
        a += b + c + d + e + f + g + h;
        result = a[0] + a[WIDTH / 4 - 1];
    });
}

// A line of JSON: one format's times, and what reading as many bytes takes. A step of 0 was not timed.
void print_row(const char *name, double step, double product, size_t matrix_bytes) {
    const size_t bytes = (matrix_bytes + 511) / 512 * 512;
    std::printf("{\"format\": \"%s\", ", name);
    if (step) std::printf("\"step_us\": %.3f, ", step);
    std::printf("\"product_us\": %.3f, \"bytes\": %zu, \"read_us\": %.3f}\n", product, bytes,
                read_us(bytes));
}

void time_format(const char *name, int H, double density, int r, int c, int dtype) {
    const RandomMatrix matrix(H, density, r, c, dtype);
    const Matrix &m = matrix.m;
    std::vector<float> gates((size_t)STEPS * 3 * H, 0.1f), bias(3 * H, 0.1f), h(H, 0.1f);
    std::vector<float> states((size_t)STEPS * H), y(3 * H);
    const double step = least_us([&] {
        rnnprune_recurrent(&m, GRU, 0, gates.data(), bias.data(), h.data(), states.data(), STEPS,
                           1, 1);
    }) / STEPS;
    const double product =
        least_us([&] { rnnprune_matmul(&m, h.data(), bias.data(), y.data(), 1, 1); });
    print_row(name, step, product, matrix.column.size() * (r * c * value_bytes(dtype) + 2));
}

#ifdef OPUS
#include "opus_peer.h"
#endif
#ifdef LYRA
#include "lyra_peer.h"
#endif

}  // namespace

int main(int count, char **arguments) {
    const int H = std::atoi(arguments[1]);
    const double density = std::atof(arguments[2]);
    if (count > 3) use_instruction_set(arguments[3]);
    time_format("fp32-16x1", H, density, 16, 1, FLOAT32);
    time_format("fp32-4x4", H, density, 4, 4, FLOAT32);
    time_format("fp32-8x4", H, density, 8, 4, FLOAT32);
    time_format("fp32-8x8", H, density, 8, 8, FLOAT32);
    time_format("bf16-16x1", H, density, 16, 1, BFLOAT16);
    time_format("bf16-4x4", H, density, 4, 4, BFLOAT16);
    time_format("bf16-8x4", H, density, 8, 4, BFLOAT16);
    time_format("bf16-8x8", H, density, 8, 8, BFLOAT16);
    time_format("int16-16x4", H, density, 16, 4, INT16);
    time_format("int16-4x4", H, density, 4, 4, INT16);
    time_format("int16-8x4", H, density, 8, 4, INT16);
    time_format("int16-8x8", H, density, 8, 8, INT16);
    time_format("int8-16x1", H, density, 16, 1, INT8);
    time_format("int8-16x4", H, density, 16, 4, INT8);
    time_format("int8-4x4", H, density, 4, 4, INT8);
    time_format("int8-8x4", H, density, 8, 4, INT8);
    time_format("int8-8x8", H, density, 8, 8, INT8);
#ifdef OPUS
    time_opus("opus-fp32-8x4", H, density, false);
    time_opus("opus-int8-8x4", H, density, true);
#endif
#ifdef LYRA
    time_lyra<float>("lyra-fp32-4x4", H, density, 4);
    time_lyra<int16_t>("lyra-fixed16-4x4", H, density, 4);
    time_lyra<int16_t>("lyra-fixed16-8x4", H, density, 8);
#endif
}
