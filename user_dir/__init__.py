"""The target of `--user-dir`: registers everything of fairseq_rnnprune with fairseq.

fairseq puts the folder above this one first on sys.path: a checkout works without installing it.
"""

try:
    import fairseq_rnnprune.plugin  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "fairseq_rnnprune":
        raise
    raise ImportError(
        "user_dir: expected the package fairseq_rnnprune beside this folder or installed, "
        "got none; keep user_dir in its checkout, or run `pip install .` there"
    ) from error
