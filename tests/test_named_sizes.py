"""Named sizes of models, from the command line and as fairseq-hydra-train reads them."""

from dataclasses import fields

import pytest
from fairseq import options
from fairseq.dataclass.initialize import add_defaults
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_DATACLASS_REGISTRY
from omegaconf import OmegaConf

from fairseq_rnnprune.plugin import MODELS

SIZES = [(name, size) for name, (module, _) in MODELS.items() for size in module.SIZES]
# An option that no size has.
OTHER = {"dropout": 0.7}


def expected(name, size):
    """The size's own numbers and the model's defaults, without what other options give."""
    module, model = MODELS[name]
    options = vars(getattr(module, f"{model}Config")()) | module.SIZES[size]
    return {k: v for k, v in options.items() if k != "_name" and not str(v).startswith("${")}


def from_command_line(*arguments):
    parser = options.get_training_parser()
    given = ["data", *arguments, "--task", "language_modeling", "--criterion", "cross_entropy"]
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, given)).model


def from_yaml(model):
    config = OmegaConf.create({"model": model, "task": {"_name": "language_modeling"}})
    add_defaults(config)
    return config.model


@pytest.mark.parametrize("name, size", SIZES)
def test_sizes(name, size):
    arch = f"{name}_{size}"
    for found in (from_command_line("--arch", arch), from_yaml({"_name": arch})):
        for option, value in expected(name, size).items():
            assert found[option] == value, option
        assert found["_name"] == arch
    assert issubclass(ARCH_MODEL_REGISTRY[arch], ARCH_MODEL_REGISTRY[name])


@pytest.mark.parametrize("name, size", SIZES)
def test_what_the_user_gives_wins(name, size):
    arch, sizes = f"{name}_{size}", MODELS[name][0].SIZES[size]
    own = {k: v + 1 for k, v in sizes.items() if type(v) is int} | OTHER
    words = [w for k, v in own.items() for w in (f"--{k.replace('_', '-')}", str(v))]
    for found in (from_command_line("--arch", arch, *words), from_yaml({"_name": arch, **own})):
        assert {k: found[k] for k in own} == own


@pytest.mark.parametrize("name, size", SIZES)
def test_options_are_explained(name, size):
    for arch in (name, f"{name}_{size}"):
        found = {f.name: f.metadata for f in fields(MODEL_DATACLASS_REGISTRY[arch])}
        assert all(found[option]["help"] for option in MODELS[name][0].SIZES[size])


@pytest.mark.parametrize("name", MODELS)
def test_numbers_are_those_of_the_names(name):
    for size, sizes in MODELS[name][0].SIZES.items():
        layers, _, hidden = size.rpartition("x")
        assert {v for k, v in sizes.items() if "hidden_size" in k} == {int(hidden)}
        assert not layers or sizes["rnn_layers"] == int(layers)
