// A GRU's recurrent weight [3H, H] of which a part of the blocks is kept, at random.
#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "kernels.h"

namespace {

std::mt19937 random_bits(1);

const char *aligned(const std::vector<char> &room) {
    return (const char *)(((size_t)room.data() + 63) / 64 * 64);
}

// Its values are zeros, which take as long as other weights.
struct RandomMatrix {
    std::vector<uint16_t> column;
    std::vector<int32_t> pointers{0}, offsets;
    std::vector<char> values;
    std::vector<float> scales;
    Matrix m;

    RandomMatrix(int H, double density, int r, int c, int dtype) {
        const int panels = (H + r - 1) / r, columns = (H + c - 1) / c;
        for (int p = 0; p < 3 * panels; p++) {
            for (int j = 0; j < columns; j++)
                if (random_bits() % 10000 < 10000 * density) column.push_back((uint16_t)j);
            pointers.push_back((int32_t)column.size());
        }
        values.resize(column.size() * r * c * value_bytes(dtype) + 64);
        scales.resize((size_t)3 * panels * r, 1.0f);
        offsets.resize(scales.size());
        m = {aligned(values), column.data(), pointers.data(), has_scales(dtype) ? scales.data() : nullptr,
             dtype == INT8 ? offsets.data() : nullptr, nullptr, 3 * H, H, 3, r, c, dtype};
    }
    RandomMatrix(const RandomMatrix &) = delete;
};

}  // namespace
