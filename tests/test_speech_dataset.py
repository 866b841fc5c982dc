"""Items, batches and their order."""

import dataclasses
import pickle

import numpy as np
import pytest
import torch
from fairseq.data.iterators import EpochBatchIterator
from speech_corpus import RATE, make_corpus

from fairseq_rnnprune.speech import cache as cache_module
from fairseq_rnnprune.speech.cache import FeatureCache
from fairseq_rnnprune.speech.config import SpeechConfig
from fairseq_rnnprune.speech.dataset import SpeechDataset, make_spec_augment
from fairseq_rnnprune.speech.dictionary import make_dictionary
from fairseq_rnnprune.speech.features import frame_count, normalize
from fairseq_rnnprune.speech.manifest import read_manifest
from fairseq_rnnprune.speech.units import CharacterUnits

CONFIG = SpeechConfig(
    mel_bins=20, normalization="global", mean=[10.0] * 20, std=np.linspace(1, 3, 20).tolist()
)
UNITS = CharacterUnits()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"), ("train",))


@pytest.fixture
def utterances(folder):
    return read_manifest(folder / "train.tsv")


def make_dataset(utterances, folder, **options):
    dictionary = make_dictionary(UNITS.counts(u.text for u in utterances))
    options = {"config": CONFIG, "cache": FeatureCache(folder / "features")} | options
    config, cache = options.pop("config"), options.pop("cache")
    return SpeechDataset(utterances, config, dictionary, UNITS, cache, **options)


def augmented(utterances, folder, **options):
    masks = make_spec_augment(20, 2, 8, 2, 10, 0.5)
    options = {"spec_augment": masks, "speeds": (0.9, 1.0, 1.1), "shuffle": True} | options
    return make_dataset(utterances, folder, **options)


def test_items_are_normalised_and_their_targets_have_no_end(utterances, folder):
    dataset = make_dataset(utterances, folder)
    item = dataset[3]
    features = dataset.cache.features(utterances[3].path, CONFIG)
    assert item["row"] == 3
    assert item["source"].dtype == torch.float32
    assert np.array_equal(item["source"].numpy(), normalize(features, CONFIG))
    assert [dataset.dictionary[i] for i in item["target"]] == list("ONE|TWO")


def test_features_may_be_normalised_by_utterance(utterances, folder):
    dataset = make_dataset(utterances, folder, config=SpeechConfig(mel_bins=20))
    source = dataset[0]["source"]
    assert source.mean(0).abs().max() < 1e-5
    torch.testing.assert_close(source.std(0, correction=0), torch.ones(20))


def test_nothing_is_read_before_an_item_is_asked_for(utterances, folder, tmp_path, monkeypatch):
    def read(*arguments):
        raise AssertionError("audio was read")

    monkeypatch.setattr(cache_module, "read_audio", read)
    dataset = make_dataset(utterances, folder, cache=FeatureCache(tmp_path), shuffle=True)
    assert dataset.num_tokens(1) == dataset.size(1) == frame_count(12000, RATE)
    assert list(dataset.num_tokens_vec(np.array([1, 0]))) == [frame_count(12000, RATE), 23]
    assert len(dataset.batch_by_size(dataset.ordered_indices(), max_sentences=3)) == 3
    with pytest.raises(AssertionError, match="audio was read"):
        dataset[0]


def test_a_batch_is_padded_with_the_mean_and_masked(utterances, folder):
    dataset = make_dataset(utterances, folder)
    items = [dataset[i] for i in (2, 0, 3)]
    batch = dataset.collater(items)
    assert batch["id"].tolist() == [2, 0, 3]
    assert batch["nsentences"] == 3 and batch["ntokens"] == 2 + 5 + 7
    source, mask = batch["net_input"]["source"], batch["net_input"]["padding_mask"]
    assert source.dtype == torch.float32 and mask.dtype == torch.bool
    assert source.shape == (3, max(len(i["source"]) for i in items), 20)
    for row, padded, item in zip(source, mask, items, strict=True):
        length = len(item["source"])
        assert torch.equal(row[:length], item["source"]) and not row[length:].any()
        assert not padded[:length].any() and padded[length:].all()
    assert batch["target"].dtype == batch["target_lengths"].dtype == torch.int64
    assert batch["target_lengths"].tolist() == [2, 5, 7]
    assert (batch["target"][0, 2:] == dataset.dictionary.pad()).all()
    assert torch.equal(batch["target"][2], items[2]["target"])


def test_a_batch_names_rows_of_the_manifest(utterances, folder):
    dataset = make_dataset([*utterances[1:3], dataclasses.replace(utterances[5], row=-1)], folder)
    batch = dataset.collater([dataset[i] for i in range(3)])
    assert batch["id"].tolist() == [1, 2, 2]


def test_without_padding_there_is_no_mask(utterances, folder):
    dataset = make_dataset(utterances, folder)
    batch = dataset.collater([dataset[1], dataset[1]])
    assert batch["net_input"]["padding_mask"] is None
    assert dataset.collater([]) == {}


def test_training_batches_have_similar_lengths_at_random(utterances, folder):
    many = [u for u in utterances for _ in range(8)]
    dataset = augmented(many, folder, speeds=(1.0,))
    order = dataset.ordered_indices()
    assert sorted(order) == list(range(64))
    assert (np.diff(dataset.sizes[order]) >= 0).all()
    batches = dataset.batch_by_size(order, max_sentences=8)
    assert all(len(set(dataset.sizes[batch])) == 1 for batch in batches)
    assert any(list(batch) != sorted(batch) for batch in batches)
    assert np.array_equal(order, augmented(many, folder, speeds=(1.0,)).ordered_indices())
    other = augmented(many, folder, speeds=(1.0,), seed=2).ordered_indices()
    assert not np.array_equal(order, other)


def test_other_splits_keep_the_order_of_the_manifest(utterances, folder):
    assert make_dataset(utterances, folder).ordered_indices().tolist() == list(range(8))


def test_a_bound_on_frames_holds_at_every_speed(utterances, folder):
    dataset = augmented(utterances, folder)
    for epoch in range(1, 8):
        dataset.set_epoch(epoch)
        for index in range(8):
            assert len(dataset[index]["source"]) <= dataset.size(index)
    assert dataset.can_reuse_epoch_itr_across_epochs


def test_a_recording_that_no_batch_may_hold_is_named(utterances, folder):
    dataset = make_dataset(utterances, folder)
    longest = int(dataset.sizes.argmax())
    indices, frames = dataset.ordered_indices(), int(dataset.sizes[longest])
    assert sum(map(len, dataset.batch_by_size(indices, max_tokens=frames))) == 8
    with pytest.raises(ValueError, match=rf"{utterances[longest].path}: expected at most --max-t"):
        dataset.batch_by_size(indices, max_tokens=frames - 1)


def same(a, b):
    return torch.equal(a["source"], b["source"]) if len(a["source"]) == len(b["source"]) else False


def test_augmentation_depends_on_seed_epoch_and_index_only(utterances, folder):
    dataset, again = augmented(utterances, folder), augmented(utterances, folder)
    first = [dataset[i] for i in range(8)]
    np.random.seed(5)
    state = np.random.get_state()[1].copy()
    assert all(same(again[i], first[i]) for i in reversed(range(8)))
    assert np.array_equal(np.random.get_state()[1], state)
    assert len({len(item["source"]) - dataset.size(i) for i, item in enumerate(first)}) > 1
    dataset.set_epoch(2)
    assert not any(same(dataset[i], first[i]) for i in range(8))
    other = augmented(utterances, folder, seed=2)
    assert not any(same(other[i], first[i]) for i in range(8))
    twins = augmented([utterances[1]] * 2, folder)
    assert not same(twins[0], twins[1])
    dataset.set_epoch(1)
    assert all(same(dataset[i], first[i]) for i in range(8))


def test_masks_are_the_mean_and_leave_the_cache_alone(utterances, folder):
    plain = make_dataset(utterances, folder)
    masked = make_dataset(
        utterances, folder, cache=plain.cache, spec_augment=make_spec_augment(20, 2, 8, 2, 10, 0.5)
    )
    items = [(plain[i]["source"], masked[i]["source"]) for i in range(8)]
    changed = [before != after for before, after in items]
    assert all((after[where] == 0).all() for (_, after), where in zip(items, changed, strict=True))
    bands, times = (torch.cat([c.all(dim).flatten() for c in changed]) for dim in (0, 1))
    assert bands.any() and times.any()
    assert torch.equal(plain[0]["source"], items[0][0])


def test_workers_give_the_same_batches(utterances, folder):
    dataset = augmented(utterances, folder)
    dataset.set_epoch(3)
    batches = dataset.batch_by_size(dataset.ordered_indices(), max_sentences=3)
    expected = [dataset.collater([dataset[i] for i in batch]) for batch in batches]
    loader = torch.utils.data.DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=dataset.collater,
        num_workers=2,
    )
    for batch, other in zip(loader, expected, strict=True):
        assert torch.equal(batch["net_input"]["source"], other["net_input"]["source"])
        assert torch.equal(batch["target"], other["target"])


def test_workers_that_fairseq_keeps_learn_the_epoch(utterances, folder, monkeypatch):
    # The iterator sets it, for good.
    monkeypatch.setenv("PYTHONWARNINGS", "")
    sources = {}
    for workers in (0, 2):
        dataset = augmented(utterances, folder)
        batches = dataset.batch_by_size(dataset.ordered_indices(), max_sentences=3)
        iterator = EpochBatchIterator(
            dataset, dataset.collater, batches, num_workers=workers, reuse_dataloader=True
        )
        assert iterator.persistent_workers == (workers > 0)
        for epoch in (1, 2):
            found = {i: s for b in iterator.next_epoch_itr() for i, s in by_row(b)}
            sources[workers, epoch] = [found[i] for i in range(8)]
    assert all(map(torch.equal, sources[0, 1], sources[2, 1]))
    assert all(map(torch.equal, sources[0, 2], sources[2, 2]))
    assert not any(map(torch.equal, sources[0, 1], sources[0, 2]))


def by_row(batch):
    return zip(batch["id"].tolist(), batch["net_input"]["source"], strict=True)


def test_a_dataset_can_be_pickled(utterances, folder):
    dataset = augmented(utterances, folder)
    assert same(pickle.loads(pickle.dumps(dataset))[0], dataset[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((20, -1, 8, 0, 0, 0.5), "freq masks >= 0 .* got -1"),
        ((20, 0, 8, 2, 0, 0.5), "time masks .* width >= 1, got 2 of width 0"),
        ((20, 1, 21, 0, 0, 0.5), "frequency masks <= 20, the mel bins, got 21"),
        ((20, 1, 8, 0, 0, 1.5), r"a share in \[0, 1\], got 1.5"),
    ],
)
def test_masks_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_spec_augment(*arguments)


def test_no_masks_and_no_speeds(utterances, folder):
    assert make_spec_augment(20, 0, 0, 0, 0, 0.0) is None
    for speeds in ((), (0.0, 1.0)):
        with pytest.raises(ValueError, match="expected speeds above 0"):
            make_dataset(utterances, folder, speeds=speeds)
