"""ELCRec learning online: vocabulary, encoder, intents, memories and the mix of them. No Kafka, no RocksDB."""

from learner.config import LearnerConfig
from learner.drift.episodes import ActiveActions, DriftMonitor, EpisodeChange
from learner.drift.fallback import FallbackConfig, FallbackPolicy
from learner.drift.signals import DriftConfig, Observed
from learner.errors import LearnerError, LearnerStateError
from learner.intents.change_point import ChangePointConfig
from learner.intents.identity import IdentityConfig, name_intent
from learner.intents.merging import MergeConfig
from learner.intents.shifts import IntentState, ShiftConfig, ShiftRule, history_before, strongest
from learner.intents.tracker import IntentTracker
from learner.metrics import NOT_EVALUATED, UNRANKED, RankMetrics, WindowedRankMetrics
from learner.model.centers import IntentCenters, IntentConfig
from learner.model.encoder import Encoder, EncoderConfig
from learner.online.learner import IntentInfo, IntentView, Learner, LearnReport, PrequentialResult, Ranking, StepBatch
from learner.online.online_learner import OnlineLearner
from learner.online.vocabulary import Vocabulary
from learner.runtime import release_freed_memory, set_threads

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
