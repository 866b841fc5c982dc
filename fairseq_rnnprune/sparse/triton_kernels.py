"""Triton kernels for panels of blocks: a product with few activations, and a step of a GRU.

The only file that imports Triton, and imported by the backend that launches them alone, at its
first use. A program owns one panel and BATCH rows of activations. It takes BLOCKS blocks at a time
in the order in which they lie in memory, multiplies each of their values with its activation in
float32 and adds up what belongs together once, at the end. Every array is contiguous.

Nothing is compiled anew for another B, unless it is the first above 1: B changes while a beam
search runs, and with it where the rows of activations begin.
"""

import triton
import triton.language as tl

VERSION: str = triton.__version__


@triton.jit
def _sigmoid(v):
    # exp of a negative number cannot overflow.
    e = tl.exp(-tl.abs(v))
    return tl.where(v >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def _tanh(v):
    size = tl.abs(v)
    e = tl.exp(-2.0 * size)
    large = (1.0 - e) / (1.0 + e)
    # 1 - e has no digits left for a small v; the first terms of the series have all of them.
    s = v * v
    series = s * (-1 / 3 + s * (2 / 15 + s * (-17 / 315 + s * (62 / 2835))))
    small = size + size * series
    t = tl.where(size < 0.25, small, large)
    return tl.where(v < 0, -t, t)


@triton.jit
def _panel_product(
    x, W, panel, first_row, B, K,
    R: tl.constexpr, C: tl.constexpr, BLOCKS: tl.constexpr, BATCH: tl.constexpr,
):  # fmt: skip
    """float32 [BATCH, R]: rows of x [B, K], from first_row on, times the R rows of one panel."""
    values, columns, pointers, scales = W
    n, r, c = tl.arange(0, BLOCKS), tl.arange(0, R), tl.arange(0, C)
    b = tl.arange(0, BATCH)
    start, end = tl.load(pointers + panel), tl.load(pointers + panel + 1)
    # Where arrays begin can be beyond 32 bits. BATCH * K cannot: a panel has no fewer rows than
    # BATCH, and a matrix has less than 2**31 elements.
    x += first_row.to(tl.int64) * K
    values += start.to(tl.int64) * (R * C)
    columns += start
    x_row = b * K
    within = (n[:, None, None] * R + r[None, :, None]) * C + c[None, None, :]
    sums = tl.zeros([BATCH, BLOCKS, R, C], dtype=tl.float32)
    for block in range(start, end, BLOCKS):
        stored = block + n < end
        column = tl.load(columns + n, mask=stored, other=0).to(tl.int32)[:, None] * C + c[None, :]
        inside = stored[:, None] & (column < K)
        x_mask = (first_row + b < B)[:, None, None] & inside[None, :, :]
        taken = tl.load(x + x_row[:, None, None] + column[None, :, :], mask=x_mask, other=0.0)
        w = tl.load(values + within, mask=stored[:, None, None], other=0).to(tl.float32)
        sums += taken[:, :, None, :] * w[None, :, :, :]
        values += BLOCKS * R * C
        columns += BLOCKS
    product = tl.sum(tl.sum(sums, axis=3), axis=1)
    if scales is not None:
        product *= tl.load(scales + panel * R + r)[None, :]
    return product


@triton.jit(do_not_specialize=["B", "gates"], do_not_specialize_on_alignment=["x", "bias", "out"])
def matmul(
    x, bias, out, values, columns, pointers, scales, B, M, K, gates,
    R: tl.constexpr, C: tl.constexpr, BLOCKS: tl.constexpr, BATCH: tl.constexpr,
):  # fmt: skip
    """out [B, M] = x [B, K] times the transpose of W [M, K], plus bias [M]."""
    # Neighbours share a panel, so that its values are read from memory once.
    tiles = tl.cdiv(B, BATCH)
    panel = tl.program_id(0) // tiles
    first_row = tl.program_id(0) % tiles * BATCH
    row = first_row + tl.arange(0, BATCH)
    height = M // gates
    panels = tl.cdiv(height, R)
    row_of_gate = panel % panels * R + tl.arange(0, R)
    column = panel // panels * height + row_of_gate
    exists = row_of_gate < height
    W = (values, columns, pointers, scales)
    y = _panel_product(x, W, panel, first_row, B, K, R, C, BLOCKS, BATCH)
    if bias is not None:
        y += tl.load(bias + column, mask=exists, other=0.0)[None, :]
    mask = (row < B)[:, None] & exists[None, :]
    tl.store(out + row.to(tl.int64)[:, None] * M + column[None, :], y, mask=mask)


@triton.jit(do_not_specialize=["B"], do_not_specialize_on_alignment=["gates_x", "h", "bias", "out"])
def gru_step(
    gates_x, h, bias, out, values, columns, pointers, scales, B, H,
    R: tl.constexpr, C: tl.constexpr, BLOCKS: tl.constexpr, BATCH: tl.constexpr,
):  # fmt: skip
    """out [B, H]: the state after h [B, H], as `reference.gru_step`; gates_x [B, 3H], bias [3H].

    A program owns the same hidden units in all three gates; out must not be h.
    """
    tiles = tl.cdiv(B, BATCH)
    panel = tl.program_id(0) // tiles
    first_row = tl.program_id(0) % tiles * BATCH
    row = first_row + tl.arange(0, BATCH)
    panels = tl.cdiv(H, R)
    unit = panel * R + tl.arange(0, R)
    exists = unit < H
    mask = (row < B)[:, None] & exists[None, :]
    W = (values, columns, pointers, scales)
    h_r = _panel_product(h, W, panel, first_row, B, H, R, C, BLOCKS, BATCH)
    h_z = _panel_product(h, W, panels + panel, first_row, B, H, R, C, BLOCKS, BATCH)
    h_n = _panel_product(h, W, 2 * panels + panel, first_row, B, H, R, C, BLOCKS, BATCH)
    if bias is not None:
        h_r += tl.load(bias + unit, mask=exists, other=0.0)[None, :]
        h_z += tl.load(bias + H + unit, mask=exists, other=0.0)[None, :]
        h_n += tl.load(bias + 2 * H + unit, mask=exists, other=0.0)[None, :]
    x = gates_x + row.to(tl.int64)[:, None] * (3 * H) + unit[None, :]
    r = _sigmoid(tl.load(x, mask=mask, other=0.0) + h_r)
    z = _sigmoid(tl.load(x + H, mask=mask, other=0.0) + h_z)
    n = _tanh(tl.load(x + 2 * H, mask=mask, other=0.0) + r * h_n)
    state = row.to(tl.int64)[:, None] * H + unit[None, :]
    before = tl.load(h + state, mask=mask, other=0.0)
    # As in torch.lerp: z = 1 keeps the state to the last bit, z = 0 takes n.
    difference = before - n
    after = tl.where(z < 0.5, n + z * difference, before - (1.0 - z) * difference)
    tl.store(out + state, after, mask=mask)


@triton.jit
def _nothing():
    pass


def start() -> None:
    """Starts Triton's driver of the GPU and compiles for it, as a first launch would."""
    _nothing.warmup(grid=(1,))


# The environment said so when they were defined; later changes of it mean nothing to them.
INTERPRETED = not isinstance(matmul, triton.JITFunction)
