"""Which tensors of a model can be pruned, and of what type each one is."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from torch import Tensor, nn
from torch.nn.utils import parametrize

logger = logging.getLogger(__name__)

TYPES = ("recurrent", "input", "linear", "embedding")

# torch's attention, whose three projections can be one matrix.
_ATTENTION = {"in_proj_weight": 3, "q_proj_weight": 1, "k_proj_weight": 1, "v_proj_weight": 1}
_NORMS = (nn.LayerNorm, nn.RMSNorm)
_RECURRENT_CELL = re.compile(r"(?P<module>.*)weight_(?P<kind>ih|hh)(?P<layer>(_l\d+)?(_reverse)?)$")


@dataclass(frozen=True)
class Prunable:
    """A weight matrix [M, K] that may be pruned.

    `type` is one of TYPES. `gates` row groups of M / gates rows each are stacked in the matrix
    (3 in a GRU); a block never straddles two of them. `padding` is the row of an embedding that is
    zero when a training begins, and trained where an output layer is tied to it.
    """

    name: str
    type: str
    gates: int = 1
    padding: int | None = None

    def __post_init__(self) -> None:
        if self.type not in TYPES:
            raise ValueError(f"Prunable: expected a type among {TYPES}, got {self.type!r}")


def find_prunable(
    tensors: Mapping[str, Tensor], embeddings: Mapping[str, int | None] | None = None
) -> list[Prunable]:
    """Lists the prunable matrices among named tensors: a model's parameters or a state dict.

    torch's names decide: `weight_hh*` is recurrent, `weight_ih*` is input, any other matrix called
    `weight` is linear, as are the projections of torch's attention and LSTMs, unless it is among
    `embeddings`, with their rows of padding, or, where those are not known, its module's name has
    "embed" in it. A matrix that has two names (an output layer
    tied to an embedding) appears once, as linear, because its cost at inference is the output
    layer's. Vectors and convolutions are never prunable (arXiv 1704.05119, section 3).
    """
    if embeddings is None:
        modules = {name: name.rpartition(".")[0].rpartition(".")[2] for name in tensors}
        embeddings = {name: None for name, module in modules.items() if "embed" in module}
    found: dict[object, Prunable] = {}
    for name, tensor in tensors.items():
        if tensor.dim() != 2 or tensor.numel() == 0 or not tensor.is_floating_point():
            continue
        prunable = _classify(name, tensor, tensors, embeddings)
        if prunable is None:
            continue
        identity = tensor_identity(tensor)
        tied = found.get(identity)
        if tied is None:
            found[identity] = prunable
        elif prunable.type == "linear":
            found[identity] = replace(tied, type="linear")
    return list(found.values())


def tensor_identity(tensor: Tensor) -> tuple[object, ...]:
    """Equal for two names of one tensor, as tied weights are; for tensors that have elements."""
    # One that has no memory, as on the meta device, is itself alone.
    memory = tensor.data_ptr() or id(tensor)
    return memory, tuple(tensor.shape), tuple(tensor.stride())


def _classify(
    name: str, tensor: Tensor, tensors: Mapping[str, Tensor], embeddings: Mapping[str, int | None]
) -> Prunable | None:
    cell = _RECURRENT_CELL.match(name)
    if cell:
        recurrent = tensors.get(f"{cell['module']}weight_hh{cell['layer']}")
        if recurrent is None or recurrent.dim() != 2:
            return None
        # An LSTM's projection: its rows are what weight_hh reads, its columns the hidden units.
        projection = tensors.get(f"{cell['module']}weight_hr{cell['layer']}")
        hidden = recurrent.shape[1] if projection is None else projection.shape[1]
        gates = tensor.shape[0] // hidden
        return Prunable(name, "recurrent" if cell["kind"] == "hh" else "input", gates)
    last = name.rpartition(".")[2]
    if last in _ATTENTION or last.startswith("weight_hr"):
        return Prunable(name, "linear", _ATTENTION.get(last, 1))
    if last != "weight":
        return None
    if name in embeddings:
        return Prunable(name, "embedding", padding=embeddings[name])
    return Prunable(name, "linear")


def last_name(name: str, tensors: Mapping[str, Tensor]) -> str:
    """The last name of a matrix: that of the output layer where it is tied to an embedding."""
    identity = tensor_identity(tensors[name])
    return [other for other, t in tensors.items() if tensor_identity(t) == identity][-1]


def prunable_parameters(model: nn.Module) -> list[tuple[Prunable, nn.Parameter]]:
    """The prunable matrices of a model, whose modules tell what an embedding is.

    Parametrised ones, such as those under `weight_norm`, are left out with a warning: what is
    trained there is not the matrix.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    embeddings = {}
    for name, module in model.named_modules(remove_duplicate=False):
        weight = f"{name}.weight".lstrip(".")
        if isinstance(module, nn.Embedding | nn.EmbeddingBag):
            embeddings[weight] = module.padding_idx
        elif isinstance(module, _NORMS):
            parameters.pop(weight, None)
        if _is_parametrised(module):
            logger.warning("%s is parametrised, so its weights are not pruned", name or "the model")
    return [(p, parameters[p.name]) for p in find_prunable(parameters, embeddings)]


def _is_parametrised(module: nn.Module) -> bool:
    """Whether a matrix is computed from others, by torch's parametrisations or its older hooks."""
    if not any(p.dim() == 2 for p in module.parameters()):
        return False
    old = re.compile(r"(.*)(_v|_orig)")
    hooked = (match[1] for match in map(old.fullmatch, module._parameters) if match)
    return parametrize.is_parametrized(module) or any(name in vars(module) for name in hooked)


def tag_prunable(model: nn.Module) -> list[Prunable]:
    """Marks every prunable parameter of `model`, so that an optimizer can recognise it.

    The tag travels in `optim_overrides`, the only custom attribute that fairseq copies from a
    half-precision parameter to its fp32 shadow.
    """
    found = prunable_parameters(model)
    for prunable, parameter in found:
        parameter.optim_overrides = {
            **getattr(parameter, "optim_overrides", {}),
            "rnnprune": asdict(prunable),
        }
    return [prunable for prunable, _ in found]


def remove_tags(model: nn.Module) -> None:
    """Undoes `tag_prunable`."""
    for parameter in model.parameters():
        others = dict(getattr(parameter, "optim_overrides", {}))
        if others.pop("rnnprune", None) is not None:
            del parameter.optim_overrides
            if others:
                parameter.optim_overrides = others


def read_tag(parameter: Tensor) -> Prunable | None:
    """Returns what `tag_prunable` wrote on a parameter, or None."""
    tag = getattr(parameter, "optim_overrides", {}).get("rnnprune")
    return Prunable(**tag) if tag else None
