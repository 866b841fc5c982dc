// The C functions that Python calls (cpu_library.py).
//
// Every function returns a Status. Arguments are checked in Python; a valid Matrix and arrays of
// the documented sizes are all that is needed to stay within them.

#include "kernels.h"

#include <algorithm>
#include <cstddef>
#include <new>
#include <vector>

#include <unistd.h>

#ifdef _OPENMP
#include <omp.h>
#endif

#include "instruction_sets.h"

enum Status { OK, UNSUPPORTED, OUT_OF_MEMORY };

namespace {

const std::vector<const Kernels *> usable = usable_kernels();
const Kernels *kernels = usable[0];

const Product *find_product(const Matrix &m) {
    if (m.dtype < 0 || m.dtype >= DTYPES) return nullptr;
    for (const Product &product : kernels->products[m.dtype])
        if (product.block_rows == m.block_rows && product.block_columns == m.block_columns)
            return &product;
    return nullptr;
}

#include "operations.h"

#include "network.h"

// Turns what can go wrong into a status: no exception may reach Python.
template <class F> Status guarded(F f) {
    try {
        return f();
    } catch (const std::bad_alloc &) {
        return OUT_OF_MEMORY;
    }
}

}  // namespace

extern "C" {

// y [batch, rows] = x [batch, width] W^T + bias [rows], which may be null. All float, contiguous.
int rnnprune_matmul(const Matrix *m, const float *x, const float *bias, float *y, int batch,
                    int threads) {
    const Product *product = find_product(*m);
    if (!product) return UNSUPPORTED;
    return guarded([&] {
        matmul_in_chunks(*m, *product, x, bias, y, batch, threads);
        return OK;
    });
}

// The states [steps, batch, H] of a Cell with G gates and recurrent weight m [G * H, H], whose bias
// [G * H] may be null; gates_x is [steps, batch, G * H], h [batch, H].
int rnnprune_recurrent(const Matrix *m, int cell, float ceiling, const float *gates_x,
                       const float *bias, const float *h, float *states, int steps, int batch,
                       int threads) {
    const Product *product = find_product(*m);
    if (!product || cell < 0 || cell >= CELLS) return UNSUPPORTED;
    return guarded([&] {
        if (batch > 0)
            recurrent(*m, *product, (Cell)cell, ceiling, false, gates_x, bias, h, h, states, steps,
                      batch, threads);
        return OK;
    });
}

// out [steps, batch, directions * H] and h_n [n, batch, H] of n layers, those of one depth side by
// side, from x [steps, batch, I] and h_0 [n, batch, H].
int rnnprune_network(const Layer *layers, int n, int directions, const float *x, const float *h_0,
                     float *out, float *h_n, int steps, int batch, int threads) {
    return guarded([&] {
        return batch > 0 ? run_network(layers, n, directions, x, h_0, out, h_n, steps, batch, threads)
                         : OK;
    });
}

// The name of instruction set i of those that run here, best first; null from the last one on.
const char *rnnprune_instruction_set(int i) {
    return 0 <= i && i < (int)usable.size() ? usable[i]->name : nullptr;
}

// All calls from now on use instruction set i.
int rnnprune_use_instruction_set(int i) {
    if (!rnnprune_instruction_set(i)) return UNSUPPORTED;
    kernels = usable[i];
    return OK;
}

// For Python to check that it means the same structs and types of values.
int rnnprune_dtypes() { return DTYPES; }
int rnnprune_matrix_bytes() { return sizeof(Matrix); }
int rnnprune_layer_bytes() { return sizeof(Layer); }

// The block shapes with kernels: writes at most n pairs, returns how many there are.
int rnnprune_block_shapes(int32_t *shapes, int n) {
    for (int i = 0; i < SHAPES && i < n; i++) {
        shapes[2 * i] = kernels->products[FLOAT32][i].block_rows;
        shapes[2 * i + 1] = kernels->products[FLOAT32][i].block_columns;
    }
    return SHAPES;
}

}  // extern "C"
