"""The file of an unfinished training, with which an interrupted `fit` continues with the same bits.

`fit` writes it after every epoch: weights, optimizer moments, moving average, generators, and the best model so far.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import msgspec

from learner.errors import ModelFileError
from learner.offline.config import FitConfig
from learner.offline.files import replace
from learner.offline.sequences import Sequences
from learner.offline.trainer import Trainer
from learner.tensor_files import load_tensors, save_tensors

logger = logging.getLogger(__name__)

FORMAT = 3
FILE = "training.pt"


def save(trainer: Trainer, folder: Path) -> None:
    """Write the training to `folder`, whole or not at all.

    Raises
    ------
    ModelFileError
        The file cannot be written.
    """
    state = {
        "format": FORMAT,
        "fingerprint": fingerprint(trainer.config, trainer.sequences),
        "device": trainer.device.type,
        **trainer.state(),
    }
    replace(folder / FILE, lambda path: save_tensors(state, path))


def resume(trainer: Trainer, folder: Path) -> bool:
    """Continue the training in `folder`; False where there is none.

    Raises
    ------
    ModelFileError
        The file is damaged, of another version, settings, data or device.
    """
    path = folder / FILE
    if not path.exists():
        return False
    try:
        state = load_tensors(path)
        known = state["format"] == FORMAT and all(isinstance(state[key], str) for key in ("fingerprint", "device"))
    except Exception as error:
        raise ModelFileError(f"{path}: not a training that can be continued; delete it to start again") from error
    if not known:
        raise ModelFileError(f"{path}: format {state['format']}, this version reads {FORMAT}; delete it to start again")
    if state["fingerprint"] != fingerprint(trainer.config, trainer.sequences):
        raise ModelFileError(
            f"{path}: a training with other settings or data; delete it to start again, or choose another folder"
        )
    if state["device"] != trainer.device.type:
        raise ModelFileError(
            f"{path}: begun on device = '{state['device']}', this run is on '{trainer.device.type}' and would draw "
            f"other numbers; take '{state['device']}' to go on, or delete it to start again"
        )
    try:
        trainer.restore(state)
        trainer.best_model()
    except Exception as error:
        raise ModelFileError(f"{path}: not a training that can be continued; delete it to start again") from error
    logger.info("fit continues %s after epoch %d", path, len(trainer.log))
    return True


def fingerprint(config: FitConfig, sequences: Sequences) -> str:
    """Equal for equal settings and data. The device is compared separately: `auto` may be either."""
    digest = hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(config, device="auto")))
    digest.update(sequences.items.tobytes())
    digest.update(sequences.offsets.tobytes())
    return digest.hexdigest()


__all__ = ["FILE", "FORMAT", "fingerprint", "resume", "save"]
