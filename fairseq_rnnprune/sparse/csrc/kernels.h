// The types that kernels.cpp, cpu_library.py and the bodies compiled per instruction set share.
#pragma once

#include <cstdint>

#if defined(__GNUC__)
#define INLINE __attribute__((always_inline)) inline
#define INLINE_LAMBDA __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#else
#error "the kernels need the vector extensions of GCC or Clang"
#endif

// A BlockSparseMatrix (sparse/matrix.py); cpu_library.py fills it in, so both must list the same fields.
struct Matrix {
    const void *values;        // [blocks, block_rows, block_columns] of dtype
    const uint16_t *columns;   // [blocks]
    const int32_t *pointers;   // [gates * panels of a gate + 1]
    const float *scales;       // [panels, block_rows]: integers only, else null
    const int32_t *offsets;    // [panels, block_rows]: 128 * the row's sum; int8 of 4 or 8 columns only
    const float *diagonal;     // [rows], to be added in column i of row i of every gate, or null
    int32_t rows;              // M, of all gates
    int32_t width;             // K
    int32_t gates;
    int32_t block_rows;
    int32_t block_columns;
    int32_t dtype;             // a Dtype
    mutable uint32_t products = 0;  // so far

    int gate_rows() const { return rows / gates; }
    int gate_panels() const { return (gate_rows() + block_rows - 1) / block_rows; }
    int block_width() const { return (width + block_columns - 1) / block_columns; }
    // Stored blocks in the panels first to last - 1 of every gate.
    int64_t blocks(int first, int last) const {
        int64_t sum = 0;
        const int panels = gate_panels();
        for (int g = 0; g < gates; g++) sum += pointers[g * panels + last] - pointers[g * panels + first];
        return sum;
    }
    // Adds n products and returns how many there were. Threads may share a matrix.
    uint32_t count_products(int n) const { return __atomic_fetch_add(&products, n, __ATOMIC_RELAXED); }
};

enum Dtype { FLOAT32, BFLOAT16, INT8, INT16, DTYPES };
inline int value_bytes(int dtype) { return dtype == FLOAT32 ? 4 : dtype == INT8 ? 1 : 2; }
inline bool has_scales(int dtype) { return dtype == INT8 || dtype == INT16; }

// X(rows, columns) for every block shape with kernels, the same as in cpu_library.py. Rows are a
// multiple of columns, so that a panel of a recurrent weight produces whole blocks of the next step's
// input.
#define BLOCK_SHAPES(X) X(16, 1) X(4, 4) X(8, 4) X(16, 4) X(8, 8)
enum { SHAPES = 5 };

// Activations x [B, K] as a kernel reads them: [tiles, block columns, tile, block_columns], so that
// what a block needs of a whole tile of the batch is contiguous. Beyond B and K there are zeros.
// data is float or, for the integer kernels, words with x = data * scales[b] or bytes with
// x = (data - ZERO) * scales[b] (integers.h).
struct Activations {
    const void *data;
    float *scales;  // [tiles * tile]
    int batch;
    int tile;
};

// The functions of one instruction set for one block shape and dtype.
struct Product {
    int block_rows, block_columns;
    int max_tile;          // a power of two
    int levels;            // of integer activations on either side of 0; 0: they are floats
    int activation_bytes;
    bool in_order;         // activations are floats as they come
    // Writes the block columns first to last - 1 of x [B, K] into the layout of Activations; a scale becomes NaN
    // where integers cannot say that x is.
    void (*pack)(const Matrix &, int first, int last, const float *x, const Activations &);
    // y [B, M] = x W^T + bias, for the panels first to last - 1 of every gate.
    void (*rows)(const Matrix &, int first, int last, const Activations &, const float *bias,
                 float *y);
};

// A multiple of the rows that a Product::rows computes together, whichever it is.
enum { GROUP_ROWS = 64 };

// Recurrent cells, the same as in cpu_library.py.
enum Cell { GRU, RELU, TANH, CELLS };

// next [H] from the gates' products with input and state [G * H] and the state h [H], for the units
// first to last - 1; RELU cuts off at ceiling.
typedef void Units(const float *gates_x, const float *gates_h, const float *h, float *next,
                   int first, int last, int H, float ceiling);

// One direction of one layer of a recurrent network; cpu_network.py fills it in.
struct Layer {
    const Matrix *input;        // [G * H, I]
    const Matrix *recurrent;    // [G * H, H]
    const float *input_bias;    // [G * H] or null
    const float *recurrent_bias;
    int32_t cell;               // a Cell
    float ceiling;
    int32_t reverse;            // from the last step to the first
    int32_t is_large;           // enough for more than one thread
};

struct Kernels {
    const char *name;
    Product products[DTYPES][SHAPES];
    // Largest |x| among n; NaN if one is NaN.
    float (*magnitude)(const float *x, int n);
    // y [B, M] += the diagonal times x [B, K], in the rows first to last - 1 of every gate.
    void (*add_diagonal)(const Matrix &, int first, int last, const float *x, float *y, int batch);
    Units *units[CELLS];
    Units *coarse_units[CELLS];
};

// What other programs call (kernels.cpp). Each returns a Status, 0 if all is well.
extern "C" {
int rnnprune_matmul(const Matrix *, const float *x, const float *bias, float *y, int batch, int threads);
int rnnprune_recurrent(const Matrix *, int cell, float ceiling, const float *gates_x, const float *bias,
                       const float *h, float *states, int steps, int batch, int threads);
int rnnprune_network(const Layer *, int n, int directions, const float *x, const float *h_0, float *out,
                     float *h_n, int steps, int batch, int threads);
const char *rnnprune_instruction_set(int);
int rnnprune_use_instruction_set(int);
}
