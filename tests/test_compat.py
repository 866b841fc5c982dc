"""Repairs of fairseq: each test fails without the repair it is about."""

from __future__ import annotations

import argparse
import functools
import io
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from fairseq import checkpoint_utils, models, utils
from fairseq.data import Dictionary, MonolingualDataset, TokenBlockDataset, data_utils
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.distributed.utils import _split_tensors_from_obj
from fairseq.file_io import PathManager
from fairseq.tasks import FairseqTask
from fairseq.tasks.language_modeling import LanguageModelingTask
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from fairseq_rnnprune import compat
from fairseq_rnnprune.compat.loading import checkpoint_classes
from fairseq_rnnprune.compat.wrap import wrap_once

compat.apply()


def test_apply_again_changes_nothing() -> None:
    def repaired() -> tuple:
        allowed = set(torch.serialization.get_safe_globals())
        return data_utils.batch_by_size, models.build_model, allowed, list(warnings.filters)

    compat.apply()
    once = repaired()
    compat.apply()
    assert repaired() == once


def test_two_replacements_of_one_function_both_hold() -> None:
    owner = argparse.Namespace(name=lambda: "x")

    def quote(original, *args):
        return f"<{original(*args)}>"

    def double(original, *args):
        return 2 * original(*args)

    for replacement in (quote, functools.partial(double), quote, functools.partial(double)):
        wrap_once(owner, "name", replacement)
    assert owner.name() == "<x><x>"


def test_sentences_as_blocks_need_numpy_compat() -> None:
    tokens = [torch.tensor([4, 5, 2]), torch.tensor([6, 2])]
    blocks = TokenBlockDataset(tokens, [3, 2], None, pad=1, eos=2, break_mode="eos")
    assert [block.tolist() for block in blocks] == [[4, 5, 2], [6, 2]]


def test_checkpoint_with_namespace_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Upgrading a state from an old version needs a whole checkpoint.
    monkeypatch.setattr(checkpoint_utils, "_upgrade_state_dict", lambda state: state)
    args = argparse.Namespace(arch="rnnprune_gru_lm_small")
    torch.save({"args": args}, tmp_path / "checkpoint.pt")
    state = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "checkpoint.pt"))
    assert state["args"] == args


def broadcast_buffer() -> io.BytesIO:
    """Return what fairseq sends to the other processes on a resume."""
    state = {
        "cfg": OmegaConf.create({"model": {"_name": "m", "sizes": [1, 2], "dropout": 0.1}}),
        "args": argparse.Namespace(arch="m"),
        "model": {"weight": torch.ones(2)},
        # As --eval-bleu leaves them.
        "extra_state": {"counts": np.array([3, 2])},
    }
    buffer = io.BytesIO()
    torch.save(_split_tensors_from_obj(state, []), buffer)
    buffer.seek(0)
    return buffer


def test_broadcast_checkpoint_loads() -> None:
    state = torch.load(broadcast_buffer(), map_location="cpu")
    assert state["cfg"].model.sizes == [1, 2]
    assert state["extra_state"]["counts"].tolist() == [3, 2]


@pytest.mark.parametrize("left_out", range(16), ids=lambda i: str(checkpoint_classes()[i]))
def test_no_trusted_class_is_idle(left_out: int) -> None:
    classes = checkpoint_classes()
    allowed = torch.serialization.get_safe_globals()
    try:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(classes[:left_out] + classes[left_out + 1 :])
        with pytest.raises(Exception, match="was not an allowed global|Unsupported|allowlisted"):
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


@pytest.mark.parametrize(("sentences", "expected"), [(150, [64, 64, 16, 6]), (5, [5]), (0, [])])
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


def test_killed_while_copying_the_last_checkpoint_stays_as_it_was(tmp_path, monkeypatch) -> None:
    old, new = tmp_path / "checkpoint_last.pt", tmp_path / "checkpoint_1_4.pt"
    old.write_bytes(b"old"), new.write_bytes(b"new and longer")

    def copy_a_part(source, target):
        Path(target).write_bytes(Path(source).read_bytes()[:3])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("shutil.copyfile", copy_a_part)
        PathManager.copy(str(new), str(old), overwrite=True)
    assert old.read_bytes() == b"old"
    assert PathManager.copy(str(new), str(old), overwrite=True)
    assert old.read_bytes() == b"new and longer"
    assert {path.name for path in tmp_path.iterdir()} == {old.name, new.name}


@pytest.mark.parametrize(("rebuilds", "epoch"), [(False, 1), (True, 3)])
def test_batches_that_are_made_anew_in_every_epoch_are_left_alone(
    rebuilds: bool, epoch: int
) -> None:
    # As of fairseq's tasks for wav2vec 2, which resume exactly by themselves.
    task = FairseqTask(argparse.Namespace(rebuild_batches=rebuilds))
    _, dataset = language_modeling(tokens_per_sample=4)
    assert task.get_batch_iterator(dataset, max_sentences=4, epoch=3).epoch == epoch


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


def test_model_named_by_its_only_key_is_left_to_fairseq() -> None:
    with pytest.raises(Exception, match="Could not infer model type from directory"):
        models.build_model(OmegaConf.create({"layers": 1}), task=None)


def test_known_model_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    class Toy:
        build_model = staticmethod(lambda cfg, task: (cfg.layers, task))

    monkeypatch.setitem(models.ARCH_MODEL_REGISTRY, "toy", Toy)
    cfg = OmegaConf.create({"_name": "toy", "layers": 2})
    assert models.build_model(cfg, "task") == (2, "task")


def test_hydra_is_silent_and_others_are_not() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        compat.apply()
        convert_namespace_to_omegaconf(argparse.Namespace(arch=None, task="dummy_lm"))
        warnings.warn("another", UserWarning, stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["another"]


INSTALL = r"; run pip install (ve-fairseq|fairseq-fixed)==\S+ 'hydra-core<1.4' 'omegaconf<2.4'"


@pytest.fixture
def no_fairseq(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make Python forget fairseq for one test."""
    for name in [name for name in sys.modules if name.split(".")[0] == "fairseq"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("no_fairseq")
def test_missing_fairseq_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(ImportError, match="got no such module" + INSTALL):
        compat.apply()


@pytest.mark.usefixtures("no_fairseq")
@pytest.mark.parametrize(
    ("init", "cause"),
    [
        ("raise ValueError('mutable default')", "ValueError: mutable default"),
        ("import a_missing_requirement", "No module named 'a_missing_requirement'"),
        ("", "No module named 'fairseq.tasks'"),
    ],
)
def test_unusable_fairseq_names_cause_and_command(
    init: str, cause: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "fairseq").mkdir()
    (tmp_path / "fairseq" / "__init__.py").write_text(init)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=f"got one that fails: {cause}{INSTALL}"):
        compat.require_fairseq()


def test_a_working_fairseq_is_imported() -> None:
    compat.require_fairseq()
    assert "fairseq.tasks" in sys.modules
