"""The dense optimizer inside the pruned one: its options, and how it is built."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import MISSING, field, fields, make_dataclass
from typing import Any, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.optim import OPTIMIZER_DATACLASS_REGISTRY, OPTIMIZER_REGISTRY, FairseqOptimizer
from omegaconf import DictConfig, OmegaConf

# `composite` holds several optimizers of its own and groups parameters by names that ours lack.
_NOT_DENSE = {"composite", "pruned"}


def inner_names() -> list[str]:
    """Names of the dense optimizers that fairseq has registered."""
    return sorted(set(OPTIMIZER_REGISTRY) - _NOT_DENSE)


def inner_options() -> type:
    """A dataclass with the options of every dense optimizer, None standing for its default.

    Optimizers disagree about defaults (momentum is 0.99 in nag and 0 in sgd), so a default can
    only be filled in once the optimizer is known.
    """
    helps: dict[str, tuple[type, dict[str, list[str]], dict[str, Any]]] = {}
    for name in inner_names():
        for option, (type_, default, help_, alias) in _options_of(name).items():
            _, users, metadata = helps.setdefault(option, (type_, {}, {"help": help_}))
            users.setdefault(str(default), []).append(name)
            if alias:
                metadata["argparse_alias"] = alias
    columns = []
    for option, (type_, users, metadata) in helps.items():
        defaults = "; ".join(f"{', '.join(n)}: {default}" for default, n in users.items())
        metadata["help"] = f"{metadata['help']} (inner optimizer; default {defaults})"
        if type_ is bool:
            columns.append((option, bool, field(default=False, metadata=metadata)))
        else:
            type_ = type_ if type_ is Any else Optional[type_]  # noqa: UP045
            columns.append((option, type_, field(default=None, metadata=metadata)))
    return make_dataclass("InnerOptimizerOptions", columns, bases=(FairseqDataclass,))


def build_inner(cfg: DictConfig, params: Iterable[Any]) -> FairseqOptimizer:
    """Builds the optimizer `cfg.prune_inner` over `params` with the options given for it."""
    name = cfg.prune_inner
    if name not in inner_names():
        raise ValueError(f"--prune-inner: expected one of {', '.join(inner_names())}, got {name!r}")
    options = {option: default for option, (_, default, _, _) in _options_of(name).items()}
    given = {o: cfg[o] for o in options if _is_given(cfg, o)}
    shared = {"lr": cfg.lr, "tpu": cfg.tpu}
    dataclass = OPTIMIZER_DATACLASS_REGISTRY.get(name)
    if dataclass is None:
        all_options = argparse.Namespace(**{**options, **shared, **given})
        return OPTIMIZER_REGISTRY[name](all_options, params)
    inner = OmegaConf.structured(dataclass())
    return OPTIMIZER_REGISTRY[name](
        OmegaConf.merge(inner, given, {k: v for k, v in shared.items() if k in inner}), params
    )


def given_in_vain(cfg: DictConfig) -> list[str]:
    """The options that were given of other dense optimizers than `cfg.prune_inner`."""
    others = {option for name in inner_names() for option in _options_of(name)}
    return sorted(o for o in others - _options_of(cfg.prune_inner).keys() if _is_given(cfg, o))


def _is_given(cfg: DictConfig, option: str) -> bool:
    value = cfg.get(option)
    return value is not None and value is not False


def _options_of(name: str) -> dict[str, tuple[type, Any, str, str | None]]:
    """Options of one optimizer: name -> (type, default, help, alias)."""
    dataclass = OPTIMIZER_DATACLASS_REGISTRY.get(name)
    if dataclass is not None:
        return _options_of_dataclass(dataclass)
    parser = argparse.ArgumentParser(add_help=False)
    OPTIMIZER_REGISTRY[name].add_args(parser)
    return {
        action.dest: (
            bool if action.nargs == 0 else action.type or str,
            action.default,
            action.help or "",
            next((s for s in action.option_strings[1:] if s.startswith("--")), None),
        )
        for action in parser._actions
    }


def _options_of_dataclass(dataclass: type) -> dict[str, tuple[type, Any, str, str | None]]:
    scalars = {"int": int, "float": float, "bool": bool, int: int, float: float, bool: bool}
    options = {}
    for f in fields(dataclass):
        default = f.default if f.default is not MISSING else None
        interpolated = isinstance(default, str) and default.startswith("${")
        if f.name == "_name" or interpolated:
            continue
        # Any, as of Adam's betas, holds a list of a YAML file and the text of a command line.
        type_ = Any if f.type in (Any, "Any") else scalars.get(f.type, str)
        options[f.name] = (type_, default, f.metadata.get("help", ""), None)
    return options
