"""Repairs of fairseq: each test fails without the repair it is about."""

from __future__ import annotations

import argparse
import io
import re
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils, models, utils
from fairseq.data import Dictionary, MonolingualDataset, TokenBlockDataset, data_utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed.utils import _split_tensors_from_obj
from fairseq.tasks.language_modeling import LanguageModelingTask
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from omegaconf.errors import ConfigAttributeError

from fairseq_rnnprune import compat
from fairseq_rnnprune.compat.loading import checkpoint_classes

compat.apply()


def test_apply_again_changes_nothing() -> None:
    before = (data_utils.batch_by_size, models.build_model, len(warnings.filters))
    compat.apply()
    compat.apply()
    assert (data_utils.batch_by_size, models.build_model) == before[:2]
    assert len(warnings.filters) <= before[2] + 5


def test_sentences_as_blocks_need_numpy_compat() -> None:
    tokens = [torch.tensor([4, 5, 2]), torch.tensor([6, 2])]
    blocks = TokenBlockDataset(tokens, [3, 2], None, pad=1, eos=2, break_mode="eos")
    assert [block.tolist() for block in blocks] == [[4, 5, 2], [6, 2]]


def test_checkpoint_with_namespace_loads(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    torch.save({"args": argparse.Namespace(arch="lstm_lm"), "cfg": None, "model": {}}, path)
    # fairseq goes on to upgrade the state, which needs a whole checkpoint.
    with pytest.raises((KeyError, AttributeError, ConfigAttributeError)):
        checkpoint_utils.load_checkpoint_to_cpu(str(path))


def broadcast_buffer() -> io.BytesIO:
    """Return what fairseq sends to the other processes on a resume."""
    state = {
        "cfg": OmegaConf.create({"model": {"_name": "m", "sizes": [1, 2], "dropout": 0.1}}),
        "args": argparse.Namespace(arch="m"),
        "model": {"weight": torch.ones(2)},
    }
    buffer = io.BytesIO()
    torch.save(_split_tensors_from_obj(state, []), buffer)
    buffer.seek(0)
    return buffer


def test_broadcast_checkpoint_loads() -> None:
    state = torch.load(broadcast_buffer(), map_location="cpu")
    assert state["cfg"].model.sizes == [1, 2]


@pytest.mark.parametrize("left_out", range(11), ids=lambda i: str(checkpoint_classes()[i]))
def test_no_trusted_class_is_idle(left_out: int) -> None:
    classes = checkpoint_classes()
    allowed = torch.serialization.get_safe_globals()
    try:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(classes[:left_out] + classes[left_out + 1 :])
        with pytest.raises(Exception, match="was not an allowed global|Unsupported"):
            torch.load(broadcast_buffer(), weights_only=True)
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(allowed)


@given(
    sizes=st.lists(st.integers(1, 9), max_size=60),
    multiple=st.integers(1, 8),
    max_sentences=st.one_of(st.none(), st.integers(1, 20)),
    max_tokens=st.one_of(st.none(), st.integers(9, 60)),
)
def test_batches_keep_every_index_in_order(
    sizes: list[int], multiple: int, max_sentences: int | None, max_tokens: int | None
) -> None:
    batches = data_utils.batch_by_size(
        np.arange(len(sizes)),
        num_tokens_fn=sizes.__getitem__,
        num_tokens_vec=np.array(sizes, dtype=np.int64),
        max_tokens=max_tokens,
        max_sentences=max_sentences,
        required_batch_size_multiple=multiple,
    )
    assert [int(i) for batch in batches for i in batch] == list(range(len(sizes)))
    for batch in batches:
        assert len(batch) <= max(max_sentences or 60, multiple)
        assert max_tokens is None or max(sizes[i] for i in batch) * len(batch) <= max_tokens


@pytest.mark.parametrize(("sentences", "expected"), [(150, [64, 64, 22]), (5, [5]), (0, [])])
def test_last_batch_is_kept(sentences: int, expected: list[int]) -> None:
    batches = data_utils.batch_by_size(
        iter(range(sentences)),
        num_tokens_fn=lambda index: 3,
        max_sentences=64,
        required_batch_size_multiple=8,
    )
    assert [len(batch) for batch in batches] == expected


def language_modeling(tokens_per_sample: int) -> tuple[LanguageModelingTask, MonolingualDataset]:
    """Return a task and its data: 20 tokens in blocks of `tokens_per_sample`."""
    dictionary = Dictionary()
    args = argparse.Namespace(tokens_per_sample=tokens_per_sample, seed=1)
    tokens = torch.full((20,), dictionary.unk())
    blocks = TokenBlockDataset([tokens], [20], tokens_per_sample, pad=1, eos=2, break_mode="none")
    dataset = MonolingualDataset(blocks, blocks.sizes, dictionary, dictionary, False, False)
    return LanguageModelingTask(args, dictionary), dataset


def test_evaluation_over_no_tokens_is_refused() -> None:
    task, dataset = language_modeling(tokens_per_sample=10)
    with pytest.raises(
        ValueError, match=r"at most 8 tokens.* got 0 among 2 samples; set --tokens-per-sample to 8"
    ):
        task.eval_lm_dataloader(dataset, max_positions=8)


def test_evaluation_over_tokens_goes_on() -> None:
    task, dataset = language_modeling(tokens_per_sample=8)
    assert len(task.eval_lm_dataloader(dataset, max_positions=8, batch_size=1)) == 3


def test_bf16_without_xla_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected torch_xla for --bf16.*; leave --bf16 out"):
        utils.get_tpu_device()


@pytest.mark.parametrize("node", [{"dropout": 0.1, "layers": 1}, {"_name": "nothing", "layers": 1}])
def test_unknown_model_is_named(node: dict) -> None:
    message = f"`_name` in the configuration's model node, got {node.get('_name')!r}; write"
    with pytest.raises(ValueError, match=re.escape(message)):
        models.build_model(OmegaConf.create(node), task=None)


def test_known_model_reaches_fairseq() -> None:
    with pytest.raises(Exception, match="Could not infer model type from directory"):
        models.build_model(OmegaConf.create({"layers": 1}), task=None)
    with pytest.raises(AttributeError, match="source_dictionary"):
        models.build_model(OmegaConf.create({"_name": "transformer_lm"}), task=None)


def test_hydra_is_silent_and_others_are_not() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        compat.apply()
        convert_namespace_to_omegaconf(argparse.Namespace(arch=None, task="dummy_lm"))
        warnings.warn("another", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["another"]


def import_with(tmp_path: Path, init: str | None) -> str:
    """Return the error of `require_fairseq` in a new process where fairseq is `init`, or absent."""
    folder = tmp_path / "fairseq"
    if init is not None:
        folder.mkdir()
        (folder / "__init__.py").write_text(init)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "sys.modules.update({n: None for n in sys.argv[2:]})\n"
        "import types; sys.modules['torch'] = sys.modules['numpy'] = types.ModuleType('stub')\n"
        "from fairseq_rnnprune.compat import require_fairseq\n"
        "try: require_fairseq()\n"
        "except ImportError as error: print(error)"
    )
    absent = [] if init is not None else ["fairseq"]
    return subprocess.run(
        [sys.executable, "-c", code, tmp_path, *absent],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


INSTALL = r"; run pip install (ve-fairseq|fairseq-fixed)==\S+ 'hydra-core<1.4' 'omegaconf<2.4'"


def test_missing_fairseq_names_the_command(tmp_path: Path) -> None:
    assert re.search("got no such module" + INSTALL, import_with(tmp_path, None))


def test_broken_fairseq_names_cause_and_command(tmp_path: Path) -> None:
    error = import_with(tmp_path, "raise ValueError('mutable default')")
    assert re.search("got one that fails: ValueError: mutable default" + INSTALL, error)


def test_folder_called_fairseq_is_not_fairseq(tmp_path: Path) -> None:
    error = import_with(tmp_path, "")
    assert re.search("got one that fails: No module named 'fairseq.tasks'" + INSTALL, error)


def test_working_fairseq_is_returned() -> None:
    assert isinstance(compat.require_fairseq(), types.ModuleType)
