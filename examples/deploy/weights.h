// A matrix as the kernels want it, with the memory it lies in.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.h"

// An array that begins where a cache line does, as the kernels like it. It may move, which leaves its
// memory where it is; in that of a copy the elements would begin elsewhere.
template <class T>
class Aligned {
public:
    explicit Aligned(size_t n = 0) : memory(n ? n * sizeof(T) + 64 : 0), count(n) {}
    Aligned(Aligned &&) = default;
    Aligned &operator=(Aligned &&) = default;
    size_t size() const { return count; }
    const T *data() const {
        return count ? (const T *)(((uintptr_t)memory.data() + 63) / 64 * 64) : nullptr;
    }
    T *data() { return const_cast<T *>(((const Aligned *)this)->data()); }
    const T &operator[](size_t i) const { return data()[i]; }
    T &operator[](size_t i) { return data()[i]; }

private:
    std::vector<char> memory;
    size_t count;
};

inline float widen(uint16_t bfloat16) {
    const uint32_t bits = (uint32_t)bfloat16 << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

class Weights {
public:
    Matrix shape{};  // without its arrays
    Aligned<char> values;
    Aligned<uint16_t> columns;
    Aligned<int32_t> pointers, offsets;
    Aligned<float> scales, diagonal;

    // What the kernels take; it points into this object.
    Matrix matrix() const {
        Matrix m = shape;
        m.values = values.data(), m.columns = columns.data(), m.pointers = pointers.data();
        m.scales = scales.data(), m.offsets = offsets.data(), m.diagonal = diagonal.data();
        return m;
    }

    // Row i as floats, out [width]: so an embedding is looked up, whatever its values are.
    void row(int i, float *out) const {
        std::fill(out, out + shape.width, 0.f);
        const int height = shape.gate_rows(), r = shape.block_rows, c = shape.block_columns;
        const int panel = i / height * shape.gate_panels() + i % height / r, inside = i % height % r;
        for (int b = pointers[panel]; b < pointers[panel + 1]; b++)
            for (int j = 0, k = columns[b] * c; j < c && k < shape.width; j++, k++)
                out[k] = value(((size_t)b * r + inside) * c + j, panel * r + inside);
        if (diagonal.size()) out[i % height] += diagonal[i];
    }

    // Throws if the arrays are not those of a matrix of this shape: kernels do not look.
    void check() const {
        bool has_sizes = shape.rows > 0 && shape.gates > 0 && shape.rows % shape.gates == 0;
        has_sizes = has_sizes && shape.block_rows > 0 && shape.block_columns > 0;
        // Columns are numbered in 16 bits, also in what in_columns makes.
        has_sizes = has_sizes && shape.width > 0 && shape.width <= 1 << 16;
        if (!has_sizes) throw std::runtime_error("expected the sizes of a matrix, got others");
        const size_t panels = (size_t)shape.gates * shape.gate_panels(), blocks = columns.size();
        bool fits = pointers.size() == panels + 1 && pointers[0] == 0 && pointers[panels] == (int)blocks;
        fits = fits && std::is_sorted(pointers.data(), pointers.data() + panels + 1);
        const size_t block = (size_t)value_bytes(shape.dtype) * shape.block_rows * shape.block_columns;
        fits = fits && values.size() % block == 0 && values.size() / block == blocks;
        fits = fits && (!has_scales(shape.dtype) || scales.size() == panels * shape.block_rows);
        const bool has_diagonal = diagonal.size() == (size_t)shape.rows && shape.gate_rows() == shape.width;
        fits = fits && (!diagonal.size() || has_diagonal);
        for (size_t b = 0; fits && b < blocks; b++) fits = columns[b] < shape.block_width();
        // -128 has no opposite, which kernels without dot products need.
        const int8_t *bytes = (const int8_t *)values.data();
        if (shape.dtype == INT8) fits = fits && !std::count(bytes, bytes + values.size(), -128);
        if (!fits) throw std::runtime_error("expected the arrays of a matrix, got others");
    }

    bool has_kernel() const {
#define IS_SHAPE(R, C) || (shape.block_rows == R && shape.block_columns == C)
        return false BLOCK_SHAPES(IS_SHAPE);
#undef IS_SHAPE
    }

    // The same in blocks of 16x1 and float32: scattered and dense matrices have no kernel of their own.
    Weights in_columns() const {
        const int R = 16, gate_rows = shape.gate_rows();
        Weights other;
        other.shape = shape;
        other.shape.block_rows = R, other.shape.block_columns = 1, other.shape.dtype = FLOAT32;
        const int panels = other.shape.gate_panels();
        std::vector<float> found, panel((size_t)R * shape.width);
        std::vector<uint16_t> kept;
        other.pointers = Aligned<int32_t>(shape.gates * panels + 1);
        other.pointers[0] = 0;
        for (int p = 0; p < shape.gates * panels; p++) {
            std::fill(panel.begin(), panel.end(), 0.f);
            for (int i = 0, first = p % panels * R; i < R && first + i < gate_rows; i++)
                row(p / panels * gate_rows + first + i, &panel[(size_t)i * shape.width]);
            for (int k = 0; k < shape.width; k++) {
                float column[R];
                for (int i = 0; i < R; i++) column[i] = panel[(size_t)i * shape.width + k];
                if (std::all_of(column, column + R, [](float x) { return x == 0; })) continue;
                kept.push_back(k);
                found.insert(found.end(), column, column + R);
            }
            other.pointers[p + 1] = kept.size();
        }
        other.values = Aligned<char>(found.size() * 4);
        std::memcpy(other.values.data(), found.data(), found.size() * 4);
        other.columns = Aligned<uint16_t>(kept.size());
        std::copy(kept.begin(), kept.end(), other.columns.data());
        return other;
    }

private:
    float value(size_t i, int padded_row) const {
        if (shape.dtype == FLOAT32) return ((const float *)values.data())[i];
        if (shape.dtype == BFLOAT16) return widen(((const uint16_t *)values.data())[i]);
        const bool is_wide = shape.dtype == INT16;
        return (is_wide ? ((const int16_t *)values.data())[i] : ((const int8_t *)values.data())[i]) * scales[padded_row];
    }
};
