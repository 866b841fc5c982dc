"""A peer of the kernels: DeepSparse's product with a sparse matrix. native.py runs it.

    PYTHON deepsparse_peer.py HIDDEN DENSITY

PYTHON is of an environment with deepsparse 1.8, which does not go with this project's numpy. Prints
a line of JSON for fp32 and one for int8 (activations quantised by a given scale, as here).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import deepsparse
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LEVELS = 127


def main() -> None:
    hidden, density = int(sys.argv[1]), float(sys.argv[2])
    random = np.random.default_rng(1)
    weight = random.integers(-64, 65, (hidden, 3 * hidden)).astype(np.int8)
    weight[random.random(weight.shape) >= density] = 0
    x = random.uniform(-1, 1, (1, hidden)).astype(np.float32)
    expected = x.astype(np.float64) @ (weight / np.float64(LEVELS))
    # Rounding an activation moves it by half a level at most.
    error_of_int8 = np.abs(weight / LEVELS).sum(axis=0).max() / (2 * LEVELS)
    for name, made, error in (("fp32", fp32(weight), 1e-4), ("int8", int8(weight), error_of_int8)):
        figures = run(made, x, expected, error)
        print(json.dumps({"format": f"deepsparse-{name}", **figures}), flush=True)


def fp32(weight: np.ndarray) -> onnx.GraphProto:
    initial = {"w": weight.astype(np.float32) / np.float32(LEVELS)}
    return graph([helper.make_node("MatMul", ["x", "w"], ["y"])], initial, weight.shape)


def int8(weight: np.ndarray) -> onnx.GraphProto:
    """The form that was fastest: quantising and dequantising nodes around MatMul were slower."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["levels"]),
        helper.make_node("MatMulInteger", ["levels", "w", "zero", "zero_of_weights"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "scale_of_sums"], ["y"]),
    ]
    initial = {
        "w": weight,
        "scale": np.float32(1 / LEVELS),
        "zero": np.uint8(128),
        "zero_of_weights": np.int8(0),
        "scale_of_sums": np.float32(1 / LEVELS**2),
    }
    return graph(nodes, initial, weight.shape)


def graph(nodes: list[Any], initial: dict[str, Any], shape: tuple[int, int]) -> onnx.GraphProto:
    """x [1, shape[0]] to y [1, shape[1]]."""
    return helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, shape[0]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, shape[1]])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in initial.items()],
    )


def run(
    graph: onnx.GraphProto, x: np.ndarray, expected: np.ndarray, error: float
) -> dict[str, float]:
    """The least microseconds of a product, by DeepSparse's own clock, on one core."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "product.onnx")
        onnx.save(model, path)
        engine = deepsparse.compile_model(str(path), batch_size=1, num_cores=1)
    found = float(np.abs(engine.run([x])[0] - expected).max())
    if found > error:
        raise SystemExit(f"deepsparse: expected an error up to {error:g}, got {found:g}")
    times = engine.benchmark([x], num_iterations=1000, num_warmup_iterations=200).batch_times
    return {"product_us": round(min(times) * 1e6, 3)}


if __name__ == "__main__":
    main()
