"""Which block shape a mask gets, and what `auto` makes of it."""

import logging
import re

import pytest
import torch
from needs import needs_kernels

from fairseq_rnnprune.layers import GRU, Linear, packing
from fairseq_rnnprune.sparse import (
    BlockSparseMatrix,
    choose_block_shape,
    cpu,
    cpu_library,
    stored_values,
    torch_csr,
    triton_backend,
)


@pytest.fixture
def on_gpu(monkeypatch):
    """Tensors say that they are on a GPU, which Triton can use."""
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(triton_backend, "unavailable_reasons", list)


def in_blocks(shape, block_shape, density=0.1):
    """Ones [M, K] in random blocks."""
    r, c = block_shape
    kept = torch.rand(-(-shape[0] // r), -(-shape[1] // c)) < density
    whole = kept.repeat_interleave(r, 0).repeat_interleave(c, 1)
    return whole[: shape[0], : shape[1]].float()


@needs_kernels
@pytest.mark.parametrize("block_shape", cpu.BLOCK_SHAPES)
@pytest.mark.parametrize("dtype", list(cpu.DTYPES))
def test_a_mask_in_blocks_is_found_again(block_shape, dtype):
    assert choose_block_shape(in_blocks((384, 128), block_shape), 3, dtype) == block_shape


@needs_kernels
def test_blocks_within_blocks():
    # 8 x 8 and 4 x 4 store the same values; 32 x 32 has no kernel of its own.
    assert choose_block_shape(in_blocks((96, 64), (32, 32)), 3) in ((16, 4), (8, 8))
    assert choose_block_shape(in_blocks((96, 64), (16, 16)), 1, torch.int8) == (16, 4)


@needs_kernels
def test_int8_prefers_a_faster_kernel_to_less_fill_in():
    # Blocks of 16 x 4 store a third more than those of 4 x 4, at half the time each.
    weight = torch.zeros(64, 64)
    weight[:12] = 1.0
    assert choose_block_shape(weight, 1, torch.float32) == (4, 4)
    assert choose_block_shape(weight, 1, torch.int8) == (16, 4)


@pytest.mark.parametrize("block_shape", triton_backend.CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.int8])
def test_a_mask_in_blocks_is_found_again_on_a_gpu(on_gpu, block_shape, dtype):
    assert choose_block_shape(in_blocks((288, 96), block_shape), 3, dtype) == block_shape


def test_unstructured_masks_on_a_gpu_get_the_shape_that_stores_least(on_gpu, monkeypatch):
    weight = in_blocks((384, 128), (1, 1))
    shape = choose_block_shape(weight, 3)
    stored = {other: stored_values(weight, other, 3) for other in triton_backend.CONFIGS}
    assert stored[shape] == min(stored.values()) > 0.7 * weight.numel()
    # Smaller than every block; then without Triton.
    assert choose_block_shape(torch.ones(9, 7), 3) == (1, 1)
    monkeypatch.setattr(triton_backend, "unavailable_reasons", lambda: ["no GPU"])
    assert choose_block_shape(in_blocks((96, 64), (8, 8)), 3) == (1, 1)


def test_unstructured_masks_stay_single_elements():
    assert choose_block_shape(in_blocks((384, 128), (1, 1))) == (1, 1)
    assert choose_block_shape(in_blocks((4608, 1536), (1, 1)), 3) == (1, 1)


@needs_kernels
def test_without_a_csr_product_unstructured_masks_get_the_kernels(monkeypatch):
    monkeypatch.setattr(torch_csr, "unavailable_reasons", lambda: ["needs MKL"])
    assert choose_block_shape(in_blocks((384, 128), (1, 1))) in cpu.BLOCK_SHAPES


@needs_kernels
def test_small_recurrent_layers_run_as_one_call_whatever_they_store():
    assert choose_block_shape(in_blocks((384, 128), (1, 1)), 3) in cpu.BLOCK_SHAPES


def test_what_the_kernels_cannot_run_stays_single_elements(monkeypatch):
    weight = in_blocks((384, 128), (16, 1))
    assert choose_block_shape(weight, 3, torch.float16) == (1, 1)
    assert choose_block_shape(weight.to("meta"), 3) == (1, 1)
    # Smaller than every block.
    assert choose_block_shape(torch.ones(9, 2), 3) == (1, 1)
    monkeypatch.setattr(cpu_library, "load", lambda: None)
    assert choose_block_shape(weight, 3) == (1, 1)


@pytest.mark.parametrize("block_shape", [(1, 1), (2, 3), (5, 1), (3, 7)])
@pytest.mark.parametrize("gates", [1, 3])
def test_stored_values_are_those_that_packing_stores(block_shape, gates):
    weight = in_blocks((15, 11), (1, 1), 0.2)
    W = BlockSparseMatrix.from_dense(weight, block_shape, gates=gates)
    assert stored_values(weight, block_shape, gates) == W.values.numel()


@needs_kernels
@pytest.mark.parametrize(("density", "packs"), [(0.5, True), (0.6, False)])
def test_auto_looks_at_what_the_kernels_store(density, packs):
    # A little below, since blocks are random.
    weight = in_blocks((768, 512), (8, 8), density - 0.03)
    reason = packing.reason_to_stay_dense([weight], 1, False)
    assert reason is None if packs else "stored density 0.5" in reason
    small = in_blocks((96, 64), (8, 8))
    assert "packing pays from 131,072" in packing.reason_to_stay_dense([small], 1, False)


@needs_kernels
def test_auto_packs_recurrent_layers_of_every_size_that_were_pruned():
    for block_shape in ((1, 1), (4, 4)):
        assert (
            packing.reason_to_stay_dense([in_blocks((96, 32), block_shape, 0.5)], 3, True) is None
        )
    # Pruned in the recurrent weights only.
    assert (
        packing.reason_to_stay_dense([torch.ones(96, 32), in_blocks((96, 32), (4, 4))], 3, True)
        is None
    )
    reason = packing.reason_to_stay_dense([torch.ones(96, 32)], 3, True)
    assert reason == "density 1.000 is too high, packing pays up to 0.6"


def test_auto_says_that_its_rule_for_gpus_was_not_measured(on_gpu):
    assert packing.reason_to_stay_dense([in_blocks((6144, 1024), (8, 8), 0.05)], 3, True) is None
    reason = packing.reason_to_stay_dense([in_blocks((6144, 1024), (8, 8), 0.2)], 3, True)
    assert re.match(r"stored density 0\.\d+ is too high, not measured on GPUs, packing is", reason)
    assert reason.endswith("taken to pay up to 0.125")
    # Pruned to 90 %: a row of blocks at an edge may not decide.
    for hidden in (1504, 1760, 2560):
        W = in_blocks((3 * hidden, hidden), (16, 1), 0.0)
        W[:, ::10] = 1.0
        assert packing.reason_to_stay_dense([W], 3, True) is None, hidden
    # Of an unstructured mask of that density, every block shape stores far more.
    assert "stored density" in packing.reason_to_stay_dense(
        [in_blocks((6144, 1024), (1, 1), 0.05)], 1, False
    )
    # One launch takes longer than reading all of these.
    few = packing.reason_to_stay_dense([in_blocks((768, 512), (8, 8), 0.05)], 3, True)
    assert few == (
        "393,216 weights are too few, not measured on GPUs, packing is taken to pay from 4,194,304"
    )


@needs_kernels
@pytest.mark.parametrize("packed", ["auto", "bf16", "int8"])
def test_layers_run_on_the_native_kernels(packed, caplog):
    caplog.set_level(logging.INFO, logger="fairseq_rnnprune")
    gru, linear = GRU(320, 320, packed=packed), Linear(512, 512, packed=packed)
    with torch.no_grad():
        for layer in (gru, linear):
            for parameter in layer.parameters():
                if parameter.dim() == 2:
                    parameter *= in_blocks(parameter.shape, (16, 4))
            layer.eval().pack()
    assert {gru.sparse.layers[0][0].recurrent.W.block_shape, linear.sparse.W.block_shape} == {
        (16, 4)
    }
    assert [" on cpu" in record.getMessage() for record in caplog.records] == [True, True]
    x = torch.randn(3, 2, 320)
    with torch.no_grad():
        packed_out, dense_out = gru(x)[0], super(GRU, gru).forward(x)[0]
    torch.testing.assert_close(packed_out, dense_out, atol=0.02, rtol=0.02)
