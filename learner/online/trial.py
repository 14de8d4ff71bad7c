"""Actions against a drift on trial: beside the learner that acts, a copy of it goes on as if nothing had happened.

Both rank every event and learn from it. Whoever leads answers; the learner that acts must win, or the copy takes its
place. So an action that does not pay costs what it lost until this was seen, and nothing after that.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from learner.config import LearnerConfig
from learner.drift.fallback import gain_of
from learner.drift.paired import PairedDifference
from learner.online.network import Network, strip_prefix
from learner.online.prequential import Model

PREFIX: Final = "control."
_HALF_LIFE: Final = 2000.0  # events; the end of a trial counts more than its beginning
_DEPTH: Final = 100  # places of a list beyond which a rank is worth nothing
_LEAST: Final = 64  # events compared before the control may answer
_LEAST_VERDICT: Final = 512  # events compared before a trial is lost
_LOST: Final = -2.5  # lead of the learner that acts, standard errors, below which its trial ends
_WON: Final = 2.0  # lead from which on the actions were worth it when they end


class Trial:
    """The control: network, statistics and ranker without the actions, and how the learner that acts compares.

    Parameters
    ----------
    control
        Copies that only this trial changes.
    random
        Draws the pairs that the learner that acts replays: those of the control come from the generator that would
        have drawn without a trial.
    """

    def __init__(self, control: Model, random: np.random.Generator) -> None:
        self.control = control
        self.random = random
        self._lead = PairedDifference(_HALF_LIFE)

    @classmethod
    def of(cls, model: Model, config: LearnerConfig, size: int, seed: int) -> Trial:
        """A trial that begins: the control is a copy of the model, whose table has `size` rows in use."""
        network = Network(config)
        network.grow(model.network.rows)
        network.load_tensors(model.network.to_tensors(size))
        ranker = model.ranker.copy()
        control = Model(network, model.statistics.copy(size), ranker)
        return cls(control, np.random.Generator(np.random.PCG64(seed)))

    @property
    def control_leads(self) -> bool:
        """Whether the control answers."""
        return self._lead.lead(_LEAST) < 0

    @property
    def lost(self) -> bool:
        """Whether the actions do harm, so that the trial can end before they do."""
        return self._lead.lead(_LEAST_VERDICT) < _LOST

    @property
    def won(self) -> bool:
        """Whether the actions pay."""
        return self._lead.lead(_LEAST_VERDICT) >= _WON

    def compare(self, acting: NDArray[np.int64], control: NDArray[np.int64]) -> None:
        """Add the ranks (m,) of the items taken in the same events, by both."""
        self._lead.add(gain_of(acting, _DEPTH) - gain_of(control, _DEPTH))

    def grow(self, rows: int) -> None:
        """Make room for `rows` table rows."""
        self.control.network.grow(rows)
        self.control.statistics.grow(rows)

    def admit(self, rows: NDArray[np.int64]) -> None:
        """Begin anew with rows (m,), which belong to new items."""
        self.control.statistics.clear(rows)
        self.control.network.start_items(rows)

    # -- durable ----------------------------------------------------------------------------------------------------

    def tensors(self, size: int) -> dict[str, Tensor]:
        """The control's network, for rows 0 to size - 1."""
        return {f"{PREFIX}{name}": value for name, value in self.control.network.to_tensors(size).items()}

    def arrays(self, size: int) -> dict[str, NDArray[Any]]:
        """The control's statistics and ranker, for rows 0 to size - 1."""
        arrays = {
            f"{PREFIX}item_statistics.{name}": value for name, value in self.control.statistics.to_arrays(size).items()
        }
        return arrays | {f"{PREFIX}mix.{name}": value for name, value in self.control.ranker.to_arrays().items()}

    def to_state(self) -> dict[str, Any]:
        """The rest, JSON-able, exact."""
        return {"random": dict(self.random.bit_generator.state), "lead": self._lead.to_list()}

    def load(self, tensors: dict[str, Tensor], arrays: dict[str, NDArray[Any]], state: dict[str, Any]) -> None:
        """Continue from what `tensors`, `arrays` and `to_state` gave."""
        self.control.network.load_tensors(strip_prefix(PREFIX, tensors))
        self.control.statistics.load_arrays(strip_prefix(f"{PREFIX}item_statistics.", arrays))
        self.control.ranker.load_arrays(strip_prefix(f"{PREFIX}mix.", arrays))
        self.random.bit_generator.state = state["random"]
        self._lead.load_list(state["lead"])


__all__ = ["Trial"]
