"""ELCRec learning online: vocabulary, encoder, intents, item statistics and the mix of them. No Kafka, no RocksDB.

Every name is imported on first use, so that a configuration can be read without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from learner.config import LearnerConfig
    from learner.drift.config import DriftConfig, FallbackConfig
    from learner.drift.episodes import ActiveActions, DriftMonitor, EpisodeChange
    from learner.drift.fallback import FallbackPolicy
    from learner.drift.signals import Observed
    from learner.errors import LearnerError, LearnerStateError
    from learner.intents.config import ChangePointConfig, IdentityConfig, MergeConfig, ShiftConfig
    from learner.intents.naming import name_intent
    from learner.intents.shifts import IntentState, ShiftRule, history_before, strongest
    from learner.intents.tracker import IntentTracker, IntentView
    from learner.metrics import NOT_EVALUATED, UNRANKED, RankMetrics, WindowedRankMetrics
    from learner.model.centers import IntentCenters
    from learner.model.config import EncoderConfig, IntentConfig
    from learner.model.encoder import Encoder
    from learner.online.learner import Learner
    from learner.online.online_learner import OnlineLearner
    from learner.online.step import IntentInfo, LearnReport, PrequentialResult, Ranking, StepBatch
    from learner.online.vocabulary import Vocabulary
    from learner.runtime import release_freed_memory, set_threads

_MODULES: Final = {
    "ActiveActions": "learner.drift.episodes",
    "ChangePointConfig": "learner.intents.config",
    "DriftConfig": "learner.drift.config",
    "DriftMonitor": "learner.drift.episodes",
    "Encoder": "learner.model.encoder",
    "EncoderConfig": "learner.model.config",
    "EpisodeChange": "learner.drift.episodes",
    "FallbackConfig": "learner.drift.config",
    "FallbackPolicy": "learner.drift.fallback",
    "IdentityConfig": "learner.intents.config",
    "IntentCenters": "learner.model.centers",
    "IntentConfig": "learner.model.config",
    "IntentInfo": "learner.online.step",
    "IntentState": "learner.intents.shifts",
    "IntentTracker": "learner.intents.tracker",
    "IntentView": "learner.intents.tracker",
    "LearnReport": "learner.online.step",
    "Learner": "learner.online.learner",
    "LearnerConfig": "learner.config",
    "LearnerError": "learner.errors",
    "LearnerStateError": "learner.errors",
    "MergeConfig": "learner.intents.config",
    "NOT_EVALUATED": "learner.metrics",
    "Observed": "learner.drift.signals",
    "OnlineLearner": "learner.online.online_learner",
    "PrequentialResult": "learner.online.step",
    "RankMetrics": "learner.metrics",
    "Ranking": "learner.online.step",
    "ShiftConfig": "learner.intents.config",
    "ShiftRule": "learner.intents.shifts",
    "StepBatch": "learner.online.step",
    "UNRANKED": "learner.metrics",
    "Vocabulary": "learner.online.vocabulary",
    "WindowedRankMetrics": "learner.metrics",
    "history_before": "learner.intents.shifts",
    "name_intent": "learner.intents.naming",
    "release_freed_memory": "learner.runtime",
    "set_threads": "learner.runtime",
    "strongest": "learner.intents.shifts",
}
__all__ = [
    "ActiveActions",
    "ChangePointConfig",
    "DriftConfig",
    "DriftMonitor",
    "Encoder",
    "EncoderConfig",
    "EpisodeChange",
    "FallbackConfig",
    "FallbackPolicy",
    "IdentityConfig",
    "IntentCenters",
    "IntentConfig",
    "IntentInfo",
    "IntentState",
    "IntentTracker",
    "IntentView",
    "LearnReport",
    "Learner",
    "LearnerConfig",
    "LearnerError",
    "LearnerStateError",
    "MergeConfig",
    "NOT_EVALUATED",
    "Observed",
    "OnlineLearner",
    "PrequentialResult",
    "RankMetrics",
    "Ranking",
    "ShiftConfig",
    "ShiftRule",
    "StepBatch",
    "UNRANKED",
    "Vocabulary",
    "WindowedRankMetrics",
    "history_before",
    "name_intent",
    "release_freed_memory",
    "set_threads",
    "strongest",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
