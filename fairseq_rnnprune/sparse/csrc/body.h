// Everything that is compiled once per instruction set: instruction_sets.h defines NAMESPACE, NAME, LANES
// and DOT (whether one instruction adds up dot products of bytes), and includes this where the compiler's
// target is set. Nothing here may include a system header, nor call a function that another instruction
// set could share.

namespace NAMESPACE {
#include "simd.h"

#include "panels.h"

#include "pairs.h"

#include "dot.h"

#include "joined.h"

#include "integers.h"

#include "quantise.h"

#include "activations.h"

#include "rows.h"

#include "recurrent.h"

#define FLOAT_PRODUCT(R, C) product<FloatBlock<float, R, C>>(),
#define BFLOAT_PRODUCT(R, C) bfloat_product<R, C>(),
#define INT8_PRODUCT(R, C) integer_product<int8_t, R, C>(),
#define INT16_PRODUCT(R, C) integer_product<int16_t, R, C>(),

static const Kernels KERNELS = {
    NAME,
    {{BLOCK_SHAPES(FLOAT_PRODUCT)},
     {BLOCK_SHAPES(BFLOAT_PRODUCT)},
     {BLOCK_SHAPES(INT8_PRODUCT)},
     {BLOCK_SHAPES(INT16_PRODUCT)}},
    magnitude,
    add_diagonal,
    {units<GRUCell<FineTanh>>, units<ReLUCell>, units<TanhCell<FineTanh>>},
    {units<GRUCell<CoarseTanh>>, units<ReLUCell>, units<TanhCell<CoarseTanh>>},
};

#undef FLOAT_PRODUCT
#undef BFLOAT_PRODUCT
#undef INT8_PRODUCT
#undef INT16_PRODUCT
}  // namespace NAMESPACE

#undef NAMESPACE
#undef NAME
#undef LANES
#undef DOT
