"""What `make quickstart` may delete."""

import pytest
from example_scripts import EXAMPLES, load_script


class Started(Exception):
    pass


@pytest.fixture
def start(monkeypatch):
    """Runs the script until its first stage."""
    monkeypatch.syspath_prepend(str(EXAMPLES / "quickstart"))
    script = load_script("quickstart/run.py")

    def prepare(out):
        (out / "train.txt").write_text("theirs no more")
        raise Started

    monkeypatch.setattr(script, "prepare", prepare)

    def start(out):
        monkeypatch.setattr("sys.argv", ["run.py", "--out", str(out)])
        script.main()

    return start


def test_a_corpus_is_not_deleted(start, tmp_path, capsys):
    # What any language model's text looks like, and this script's folder, too.
    for name in ("train.txt", "valid.txt", "test.txt"):
        (tmp_path / name).write_text("a b\n")
    with pytest.raises(SystemExit):
        start(tmp_path)
    assert "expected a new folder or one that this script has made" in capsys.readouterr().err
    assert (tmp_path / "train.txt").read_text() == "a b\n"


def test_its_own_folder_is_made_anew(start, tmp_path):
    out = tmp_path / "new" / "out"
    for _ in range(2):
        with pytest.raises(Started):
            start(out)
        assert not (out / "old").exists()
        (out / "old").touch()
