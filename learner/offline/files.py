"""Model files: the authors' published weights, and the folder that `fit` writes. Reading one runs no code."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from learner.errors import ModelFileError
from learner.model.config import EncoderConfig, IntentConfig, ModelConfig
from learner.model.elcrec import ELCRec
from learner.tensor_files import TensorFileError, load_tensors, save_tensors

FORMAT = 1
MODEL_FILE, ITEMS_FILE, WEIGHTS_FILE = "model.json", "items.json", "weights.pt"

_LAYER = re.compile(r"item_encoder\.layer\.(\d+)\.(.+)")
_TOP = {
    "item_embeddings.weight": "items",
    "position_embeddings.weight": "encoder.positions",
    "LayerNorm.weight": "encoder.input_norm.weight",
    "LayerNorm.bias": "encoder.input_norm.bias",
    "cluster_centers": "intents.weight",
}
_IN_LAYER = {
    "attention.dense": "out",
    "attention.LayerNorm": "attention_norm",
    "intermediate.dense_1": "up",
    "intermediate.dense_2": "down",
    "intermediate.LayerNorm": "norm",
}


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file, on the CPU.

    Raises
    ------
    ModelFileError
        a missing file, not a weights file, or one with anything but tensors (a pickle with code is refused unread)
    """
    try:
        loaded = load_tensors(path)
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read: {error.strerror or error}") from None
    except TensorFileError as error:
        raise ModelFileError(f"{path}: refused, {error}; expected a PyTorch state_dict of tensors") from None
    if not isinstance(loaded, Mapping) or not loaded:
        raise ModelFileError(f"{path}: holds a {type(loaded).__name__}; expected a PyTorch state_dict of tensors")
    for key, value in loaded.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise ModelFileError(f"{path}: entry {key!r} is a {type(value).__name__}; expected names and tensors only")
        if value.layout != torch.strided or value.is_complex() or value.is_quantized:
            raise ModelFileError(
                f"{path}: {key!r} is {value.layout}, {value.dtype}; expected a dense tensor of numbers"
            )
    return dict(loaded)


def load_authors(path: Path, *, items: int | None = None, heads: int = 2) -> ELCRec:
    """A model with the published weights of the authors, in evaluation mode.

    Parameters
    ----------
    path
        `ELCRec-*.pt`
    items
        number of items N of the data; None: as in the file
    heads
        attention heads, which are not in the file; the authors use 2

    Raises
    ------
    ModelFileError
        not a weights file, or other keys or sizes; the message names the key
    """
    weights = read_weights(path)
    missing = [key for key in _TOP if key not in weights]
    if missing:
        raise ModelFileError(
            f"{path}: key {missing[0]!r} is missing; expected the authors' keys, found {_some(weights)}"
        )
    for key in ("item_embeddings.weight", "position_embeddings.weight", "cluster_centers"):
        if weights[key].dim() != 2:
            raise ModelFileError(f"{path}: {key!r} has shape {_shape(weights[key])}, expected two dimensions")
        if not weights[key].numel():
            raise ModelFileError(f"{path}: {key!r} is empty, its shape is {_shape(weights[key])}")
    table = weights["item_embeddings.weight"]
    rows, d = table.shape
    if items is not None and rows != items + 2:
        raise ModelFileError(
            f"{path}: 'item_embeddings.weight' has {rows} rows, expected {items + 2}: the data's items and two more"
        )
    layers = 1 + max((int(match[1]) for key in weights if (match := _LAYER.fullmatch(key))), default=0)
    config = ModelConfig(
        max_len=len(weights["position_embeddings.weight"]),
        encoder=_checked(path, EncoderConfig, hidden=d, layers=layers, heads=heads),
        intents=IntentConfig(count=len(weights["cluster_centers"]), clustering="paper", queue=0),
        next_item="bce",
        pool="mean",
        compat="authors",
    )
    model = ELCRec(config, rows - 2)
    _fill(path, model, _translate(path, weights, layers), _theirs)
    return model.eval()


def _translate(path: Path, weights: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Rename the authors' tensors to ours; query, key and value become one matrix."""
    ours = {_TOP[key]: value for key, value in weights.items() if key in _TOP}
    for key, value in weights.items():
        match = _LAYER.fullmatch(key)
        if match is None:
            if key not in _TOP:
                raise ModelFileError(f"{path}: key {key!r} is not one of the authors'")
            continue
        module, _, kind = match[2].rpartition(".")
        if module in _IN_LAYER:
            ours[f"encoder.layers.{match[1]}.{_IN_LAYER[module]}.{kind}"] = value
        elif module not in ("attention.query", "attention.key", "attention.value"):
            raise ModelFileError(f"{path}: key {key!r} is not one of the authors'")
    for layer in range(layers):
        for kind in ("weight", "bias"):
            names = [f"item_encoder.layer.{layer}.attention.{part}.{kind}" for part in ("query", "key", "value")]
            absent = [name for name in names if name not in weights]
            if absent:
                raise ModelFileError(f"{path}: key {absent[0]!r} is missing")
            shapes = {tuple(weights[name].shape) for name in names}
            if len(shapes) > 1:
                raise ModelFileError(f"{path}: {names[0]!r} and its key and value differ in shape: {sorted(shapes)}")
            ours[f"encoder.layers.{layer}.qkv.{kind}"] = torch.cat([weights[name] for name in names])
    return ours


def _theirs(key: str) -> str:
    """The authors' name of one of our tensors, for messages; for query, key and value that of the query."""
    for theirs, ours in _TOP.items():
        if key == ours:
            return theirs
    _, _, layer, module, kind = key.split(".")  # encoder.layers.N.out.weight
    inner = next((theirs for theirs, ours in _IN_LAYER.items() if ours == module), "attention.query")
    return f"item_encoder.layer.{layer}.{inner}.{kind}"


def _fill(path: Path, model: ELCRec, state: Mapping[str, Tensor], named: Callable[[str], str] = str) -> None:
    """Copy `state` into the model, whose keys it must have and no others; the queue may be missing."""
    own = model.state_dict()
    for key, value in own.items():
        if key not in state:
            if key.startswith("intents.queue"):
                continue
            raise ModelFileError(f"{path}: {named(key)!r} is missing")
        if state[key].shape != value.shape:
            raise ModelFileError(f"{path}: {named(key)!r} has shape {_shape(state[key])}, expected {_shape(value)}")
        if state[key].is_floating_point() != value.is_floating_point():
            raise ModelFileError(f"{path}: {named(key)!r} holds {state[key].dtype}, expected {value.dtype}")
        if not torch.isfinite(state[key]).all():
            raise ModelFileError(f"{path}: {named(key)!r} has a number that is not finite")
    unknown = sorted(set(state) - set(own))
    if unknown:
        raise ModelFileError(f"{path}: {unknown[0]!r} is not part of the model")
    model.load_state_dict({**own, **state})


@dataclass(frozen=True)
class Fitted:
    """A fitted model: what `fit` writes and `evaluate` and `--init` read.

    items: names of items 1 to N, item i at row i of `model.items`; mix: weight of the network and floor of the counts,
    None without counts; settings: everything else that `fit` recorded, as JSON.
    """

    model: ELCRec
    items: tuple[str, ...]
    mix: tuple[float, float] | None
    settings: dict[str, Any]


class _ModelFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model.json`."""

    format: int
    model: ModelConfig
    items: int
    mix: tuple[float, float] | None
    settings: dict[str, Any]
    checksums: dict[str, str]


def save_fitted(folder: Path, fitted: Fitted) -> None:
    """Write weights and items, then `model.json` with their checksums: a partial folder is not a model."""
    replace(folder / ITEMS_FILE, lambda path: path.write_text(json.dumps(fitted.items), encoding="utf-8"))
    replace(folder / WEIGHTS_FILE, lambda path: save_tensors(fitted.model.state_dict(), path))
    description = _ModelFile(
        format=FORMAT,
        model=fitted.model.config,
        items=len(fitted.items),
        mix=fitted.mix,
        settings=fitted.settings,
        checksums={name: _digest(folder / name) for name in (ITEMS_FILE, WEIGHTS_FILE)},
    )
    text = msgspec.json.format(msgspec.json.encode(description), indent=1)
    replace(folder / MODEL_FILE, lambda path: path.write_bytes(text))


def load_fitted(folder: Path) -> Fitted:
    """Read the folder of `save_fitted`; the model is in evaluation mode.

    Raises
    ------
    ModelFileError
        a missing folder, another format, or a file that is damaged or belongs to another model
    """
    try:
        description = msgspec.json.decode((folder / MODEL_FILE).read_bytes(), type=_ModelFile)
        names = msgspec.json.decode((folder / ITEMS_FILE).read_bytes(), type=tuple[str, ...])
        checksums = {name: _digest(folder / name) for name in description.checksums}
    except OSError as error:
        raise ModelFileError(
            f"{folder}: no fitted model: {error.filename}: {error.strerror}; `intentstream fit` makes one"
        ) from None
    except msgspec.MsgspecError as error:
        raise ModelFileError(f"{folder / MODEL_FILE}: not a description of a fitted model: {error}") from None
    if description.format != FORMAT:
        raise ModelFileError(f"{folder}: format {description.format}, this version reads {FORMAT}; fit the model again")
    for name, checksum in description.checksums.items():
        if checksums[name] != checksum:
            raise ModelFileError(f"{folder / name}: damaged, its checksum is not the one in {MODEL_FILE}")
    if len(names) != description.items:
        raise ModelFileError(f"{folder / ITEMS_FILE}: {len(names)} items, expected {description.items}")
    model = ELCRec(description.model, description.items)
    _fill(folder / WEIGHTS_FILE, model, read_weights(folder / WEIGHTS_FILE))
    return Fitted(model.eval(), names, description.mix, description.settings)


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a file beside `path`, then rename it: a crash leaves the old file whole.

    Raises
    ------
    ModelFileError
        the file cannot be written; the partial file is removed
    """
    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise ModelFileError(f"{path}: cannot be written: {error.strerror or error}") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(path: Path, kind: type[EncoderConfig], **fields: Any) -> EncoderConfig:
    try:
        return msgspec.convert(fields, kind)
    except (msgspec.ValidationError, ValueError) as error:
        raise ModelFileError(f"{path}: no encoder of this shape: {error}") from None


def _shape(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "()"


def _some(weights: Mapping[str, Tensor]) -> str:
    return ", ".join(repr(key) for key in list(weights)[:3]) + (", ..." if len(weights) > 3 else "")


__all__ = ["FORMAT", "Fitted", "load_authors", "load_fitted", "read_weights", "replace", "save_fitted"]
