"""The page of `rnnprune report --html`: all in one file, nothing in it but text and images."""

import re
from html.parser import HTMLParser

import pytest
import torch
from report_samples import checkpoint

from fairseq_rnnprune.report.overlap import compare_masks, keep_masks
from fairseq_rnnprune.report.page import render_page, write_page
from fairseq_rnnprune.report.survivors import Pair, find_survivors
from fairseq_rnnprune.report.svg import curves_svg, mask_svg
from fairseq_rnnprune.report.table import find_prunable, report_checkpoint
from fairseq_rnnprune.report.trainlog import TrainLog

EVIL = "<script>alert(1)</script>\"'&\x1b[31m"
VOID = {"meta", "img", "path", "polyline"}


class Page(HTMLParser):
    """Reads a page strictly: what is opened is closed, in this order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.texts = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def page_of(plots=None, label="a", name="gru", logs=None, symbols=("a", "b", "c", "d", "e")):
    tensors = {
        f"{name}.weight_ih_l0": torch.ones(6, 4),
        f"{name}.weight_hh_l0": torch.eye(2).repeat(3, 1),
        "embed.weight": torch.eye(5, 4) + torch.eye(5, 1),
    }
    one = checkpoint(tensors)
    masks = keep_masks(tensors, find_prunable(tensors))
    pairs = [Pair(label, "b", compare_masks(masks, masks))]
    return render_page(
        [report_checkpoint(one, label=label)],
        [find_survivors(one, label=label, dictionaries=[symbols])],
        pairs,
        logs or {},
        plots,
    )


def test_the_page_answers_every_question():
    page = Page(page_of())
    titles = ["Summary", "Figures", "Tensors and gates", "Units", "Recurrent diagonals"]
    titles += ["Kept weights per input", "Kept weights per symbol", "Overlap of masks"]
    assert [text for text in page.texts if text in titles] == titles
    assert {"0 of 2", "gru.weight_hh_l0", "a: embed.weight: most kept: a 4, b 1"} <= {
        text.split(", c")[0] for text in page.texts
    }
    # Three gates of U: diagonals only, twice as dense as the whole.
    assert page.texts.count("2.00") >= 3


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    png = tmp_path / "x.png"
    png.write_bytes(b"\x89PNG")
    text = page_of([png])
    page = Page(text)
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert sources == ["data:image/png;base64,iVBORw=="]
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    assert "http" not in re.sub('http-equiv="', "", text) and "@import" not in text
    assert "svg" not in page.tags
    assert ("content", "default-src 'none'; style-src 'unsafe-inline'; img-src data:") in [
        *page.attributes
    ]


def test_what_comes_from_files_is_escaped():
    logs = {EVIL: TrainLog(EVIL, {f"sparsity_{EVIL}": {1: 0.5}, "threshold_input": {1: 0.1}})}
    text = page_of(label=EVIL, name=EVIL, logs=logs, symbols=[EVIL, *"bcde"])
    page = Page(text)
    assert "script" not in page.tags
    assert any(EVIL.replace("\x1b", "\ufffd") in t for t in page.texts)
    assert "\x1b" not in text
    assert all("<" not in (value or "") for _, value in page.attributes)


def test_a_page_can_hold_any_name(tmp_path):
    # A name in a pickle may hold half of a surrogate pair, which UTF-8 cannot write.
    path = write_page(page_of(label="half \ud800"), tmp_path / "a" / "b.html")
    assert "half \ufffd" in path.read_text("utf-8")


def test_masks_and_curves_without_matplotlib():
    log = TrainLog("log", {"sparsity_input": {0: 0.0, 10: 0.5}})
    page = Page(page_of(logs={"run": log}))
    assert page.tags.count("svg") == 2 + 3
    assert ("points", "0.0,150.0 300.0,10.0") in page.attributes
    caption = "".join(page.texts)
    assert "run: sparsity: input; to update 10, highest value 0.5" in caption


def test_masks_as_svg():
    svg = mask_svg(torch.tensor([[0.5, 0.0], [1.0, 1.0]]), "a<b")
    assert 'viewBox="0 0 2 2"' in svg and "a&lt;b" in svg
    assert '<path fill-opacity="0.500" d="M0 0h1v1h-1z"/>' in svg
    assert '<path fill-opacity="1.000" d="M0 1h1v1h-1zM1 1h1v1h-1z"/>' in svg
    assert "path" not in mask_svg(torch.zeros(2, 2), "")


@pytest.mark.parametrize("curves", [{}, {"input": {0: 0.0}}])
def test_curves_without_extent(curves):
    assert "highest value 1" in curves_svg(curves, "empty")
