"""examples/deploy: a language model in C++ alone says what it says in Python, or why it cannot."""

import re
import shutil
import subprocess

import pytest
import torch
from example_scripts import load_script
from fairseq_runs import PRUNED, run_eval_lm, run_train
from needs import needs_kernels
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from fairseq_rnnprune.checkpoint import checkpoint_of, load_state, write_packed_file
from fairseq_rnnprune.sparse import cpu_library

pytestmark = [
    needs_kernels,
    pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler, g++"),
]

VALUES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int16": torch.int16, "int8": torch.int8}
ADAPTIVE = (
    *("--adaptive-softmax-cutoff", "6,12", "--criterion", "adaptive_loss"),
    *("--adaptive-softmax-factor", "2", "--ddp-backend", "legacy_ddp"),
)
MODELS = {
    "scattered": (*PRUNED,),
    "scattered, with a diagonal": (*PRUNED, "--prune-keep-diagonal"),
    "blocks of two layers": (*PRUNED, "--prune-block-shape", "4,4", "--decoder-layers", "2"),
    "blocks and a diagonal": (*PRUNED, "--prune-block-shape", "8,4", "--prune-keep-diagonal"),
    "all pruned": (*PRUNED, "--prune-types", "recurrent,input,linear,embedding"),
    "tied": (*PRUNED, "--share-decoder-input-output-embed"),
    "dense": ("--optimizer", "adam"),
    "blocks and an adaptive softmax": (*PRUNED, *ADAPTIVE, "--prune-block-shape", "4,4"),
}


@pytest.fixture(scope="module")
def suggest(root, tmp_path_factory):
    """The program with the installed kernels; the sanitizers see what it reads itself."""
    kernels = cpu_library.load()._name
    csrc = root / "fairseq_rnnprune" / "sparse" / "csrc"
    program = tmp_path_factory.mktemp("deploy") / "suggest"
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Wno-psabi", *sanitize]
    source = root / "examples" / "deploy" / "suggest.cpp"
    subprocess.run(["g++", *flags, "-I", csrc, source, kernels, "-o", program], check=True)

    def run(model, dictionary, text=""):
        done = subprocess.run(
            [program, model, dictionary], input=text, capture_output=True, text=True, timeout=60
        )
        return done.returncode, done.stdout, done.stderr

    return run


def export(checkpoint, path, values, factor=1.0):
    """Writes a model whose matrices are so many times as large: a trained one's are."""
    state = load_state(checkpoint)
    model = checkpoint_of(state, checkpoint).model
    for tensor in {id(t): t for t in model.values() if t.dim() == 2}.values():
        tensor *= factor
    write_packed_file(path, state, model, VALUES[values])
    return path


def with_header(content, change):
    """A file of safetensors whose header is another, of the length that it says."""
    header = content[8 : 8 + int.from_bytes(content[:8], "little")]
    changed = change(header)
    return len(changed).to_bytes(8, "little") + changed + content[8 + len(header) :]


def perplexity(output):
    return float(re.search(r"perplexity ([\d.]+)", output)[1])


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    run_train(data, folder, *PRUNED, "--prune-block-shape", "4,4")
    return folder / "checkpoint_last.pt"


@pytest.mark.parametrize("model", MODELS)
def test_perplexity_is_that_of_fairseq(data, tmp_path, suggest, model):
    run_train(data, tmp_path, *MODELS[model])
    text = (data.parent / "test.txt").read_text()
    for values in VALUES:
        file = export(tmp_path / "checkpoint_last.pt", tmp_path / "m.safetensors", values, 5.0)
        status, out, err = suggest(file, data / "dict.txt", text)
        assert status == 0, err
        # Blocks, which dense matrices become as integers, have the kernels; others are floats.
        packed = values if "blocks" in model or model == "dense" else "dense"
        choice = ("--model-overrides", f"{{'packed': '{packed}'}}")
        expected = run_eval_lm(
            data, file, "--sample-break-mode", "eos", "--gen-subset", "test", *choice
        )
        assert perplexity(err) == pytest.approx(expected, abs=0.0051, rel=1e-5)
        lines = [line.split("\t") for line in out.splitlines()]
        assert [line[0] for line in lines] == text.splitlines()
        for _, *suggestions in lines:
            chances = [float(suggestion.split()[1]) for suggestion in suggestions]
            assert len(chances) == 3 and chances == sorted(chances, reverse=True)
            assert 0 < sum(chances) <= 1


def test_what_is_no_whole_file_is_refused(data, checkpoint, tmp_path, suggest):
    whole = export(checkpoint, tmp_path / "m.safetensors", "int8").read_bytes()
    header = int.from_bytes(whole[:8], "little")
    pieces = [whole[:n] for n in (0, 7, 8, 40, header // 2, header + 7, header + 9, len(whole) - 1)]
    pieces += [
        whole.replace(b'"rnnprune 1"', b'"rnnprune 2"'),
        whole.replace(b'"format"', b'"fermat"'),
        whole.replace(b"data_offsets", b"data_0ffsets"),
        whole.replace(b"[", b"]", 1),
        # More than the file has, and than any memory.
        with_header(
            whole,
            lambda header: re.sub(rb'(data_offsets":.\d+),\d+', rb"\1,99999999999999999", header),
        ),
        # Deeper than any stack.
        with_header(whole, lambda header: b'{"a":' + b"[" * 1_000_000),
        b"\xff" * 8 + whole[8:],
    ]
    file = tmp_path / "torn.safetensors"
    for content in pieces:
        assert content != whole
        file.write_bytes(content)
        status, out, err = suggest(file, data / "dict.txt", "the cat\n")
        assert (status, out) == (1, ""), err
        assert re.fullmatch(r"suggest: expected .*, got .*\n", err), err
    status, _, err = suggest(export(checkpoint, file, "int8"), data / "dict.txt")
    assert (status, err) == (1, "suggest: expected lines on the standard input, got none\n")


def test_another_format_is_named(data, checkpoint, tmp_path, suggest):
    file = export(checkpoint, tmp_path / "m.safetensors", "int8")
    file.write_bytes(file.read_bytes().replace(b'"rnnprune 1"', b'"rnnprune 2"'))
    err = suggest(file, data / "dict.txt", "the cat\n")[2]
    assert err == "suggest: expected a file of format rnnprune 1, got rnnprune 2\n"


@pytest.mark.parametrize("values", VALUES)
def test_a_checkpoint_in_half_precision(data, checkpoint, tmp_path, suggest, values):
    state = load_state(checkpoint)
    model = {n: t.half() for n, t in checkpoint_of(state, checkpoint).model.items()}
    write_packed_file(tmp_path / "m.safetensors", state, model, VALUES[values])
    status, _, err = suggest(tmp_path / "m.safetensors", data / "dict.txt", "the cat\n")
    assert status == (values == "fp32"), err
    assert ("got F16: the checkpoint is in half precision" in err) == (values == "fp32")


@pytest.mark.parametrize(
    "old, new",
    [
        (b'\\"gates\\": 3', b'\\"gates\\": 4'),
        (b'\\"gates\\": 3', b'\\"gates\\": 0'),
        (b'\\"shape\\": [48, 16]', b'\\"shape\\": [48, 12]'),
        (b'\\"block_shape\\": [4, 4]', b'\\"block_shape\\": [8, 4]'),
        (b'\\"block_shape\\": [4, 4]', b'\\"block_shape\\": [4, 0]'),
        (b'\\"block_shape\\": [4, 4]', b'\\"block_shape\\": [268435456, 4]'),
        (b'\\"shape\\": [48, 16]', b'\\"shape\\": [48]'),
        (b'\\"shape\\": [48, 16]', b'\\"shape\\": [4294967344, 16]'),
        (b'\\"shape\\": [48, 16]', b'\\"shape\\": [-48, 16]'),
    ],
)
def test_matrices_that_do_not_fit_are_refused(data, checkpoint, tmp_path, suggest, old, new):
    file = export(checkpoint, tmp_path / "m.safetensors", "fp32")
    whole = file.read_bytes()
    assert old in whole
    file.write_bytes(with_header(whole, lambda header: header.replace(old, new)))
    status, _, err = suggest(file, data / "dict.txt", "the cat\n")
    assert status == 1 and re.fullmatch(r"suggest: expected .* got .*\n", err), err


@pytest.mark.parametrize(
    "name, spoil",
    [
        # 16 units are 4 blocks wide.
        ("weight_hh_l0/columns", lambda columns: columns.fill_(4)),
        ("weight_hh_l0/pointers", lambda p: p.index_copy(0, torch.tensor([1]), p[-1:])),
        ("weight_hh_l0/scales", lambda scales: scales[:-1]),
        ("weight_hh_l0/values", lambda values: values.fill_(-128)),
        # Of gates that are not square.
        ("weight_ih_l0/diagonal", lambda _: torch.ones(48)),
    ],
)
def test_arrays_that_are_no_matrix_are_refused(data, checkpoint, tmp_path, suggest, name, spoil):
    file = export(checkpoint, tmp_path / "m.safetensors", "int8")
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    arrays = load_file(file)
    name = f"decoder.gru.{name}"
    arrays[name] = spoil(arrays.get(name, torch.empty(0)).clone()).clone()
    save_file(arrays, file, metadata)
    status, _, err = suggest(file, data / "dict.txt", "the cat\n")
    assert (status, err) == (1, "suggest: expected the arrays of a matrix, got others\n")


def test_other_files_and_models_are_refused(data, checkpoint, tmp_path, suggest):
    dictionary = data / "dict.txt"
    status, _, err = suggest(checkpoint, dictionary)
    assert status == 1 and "expected a whole file of rnnprune export" in err
    status, _, err = suggest(tmp_path / "missing", dictionary)
    assert status == 1 and "expected a whole file of rnnprune export" in err
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    status, _, err = suggest(tmp_path / "other.safetensors", dictionary)
    assert status == 1 and "expected " in err
    file = export(checkpoint, tmp_path / "m.safetensors", "fp32")
    status, _, err = suggest(file, tmp_path / "none")
    assert status == 1 and "expected a dictionary, got " in err and "cannot be read" in err
    (tmp_path / "short.txt").write_text("the 1\n")
    status, _, err = suggest(file, tmp_path / "short.txt")
    assert (status, err) == (1, "suggest: expected a dictionary of 24 symbols, got 5\n")


def test_it_is_measured_beside_python(data, checkpoint, tmp_path, suggest):
    measure = load_script("deploy/measure.py")
    file, text = export(checkpoint, tmp_path / "m.safetensors", "fp32"), data.parent / "test.txt"
    native = suggest(file, data / "dict.txt", text.read_text())[2]
    for output in (native, measure.in_python(file, data, text, "fp32")):
        found = {name: float(re.search(p, output)[1]) for name, p in measure.FIGURES.items()}
        assert found.keys() == {"perplexity", "us_per_symbol", "load_ms", "peak_mb"}
        assert found["perplexity"] == pytest.approx(perplexity(native), abs=0.011)
