"""ELCRec learning online: vocabulary, encoder, intents, memories and the mix of them. No Kafka, no RocksDB."""

from learner.api import OnlineLearner
from learner.baselines import ItemToItemBaseline, PopularBaseline
from learner.config import LearnerConfig
from learner.drift import DriftConfig, Observed
from learner.encoder import Encoder, EncoderConfig
from learner.episodes import Change, DriftMonitor, Effects
from learner.errors import LearnerError, LearnerStateError
from learner.evidence import EvidenceConfig
from learner.gate import Gate, GateConfig
from learner.identity import IdentityConfig, name_intent
from learner.intents import IntentCenters, IntentConfig
from learner.merging import MergeConfig
from learner.metrics import NOT_EVALUATED, UNRANKED, RankMetrics, WindowedRankMetrics
from learner.online import IntentInfo, IntentView, Learner, LearnReport, Ranking, StepBatch, Taken
from learner.runtime import release_freed_memory, set_threads
from learner.shifts import ShiftConfig, ShiftRule, Standing, history_before, strongest
from learner.tracker import IntentTracker
from learner.vocabulary import Vocabulary

__all__ = [
    "Change",
    "DriftConfig",
    "DriftMonitor",
    "Effects",
    "Encoder",
    "EncoderConfig",
    "EvidenceConfig",
    "Gate",
    "GateConfig",
    "IdentityConfig",
    "IntentCenters",
    "IntentConfig",
    "IntentInfo",
    "IntentTracker",
    "IntentView",
    "ItemToItemBaseline",
    "LearnReport",
    "Learner",
    "LearnerConfig",
    "LearnerError",
    "LearnerStateError",
    "MergeConfig",
    "NOT_EVALUATED",
    "Observed",
    "OnlineLearner",
    "PopularBaseline",
    "RankMetrics",
    "Ranking",
    "ShiftConfig",
    "ShiftRule",
    "Standing",
    "StepBatch",
    "Taken",
    "UNRANKED",
    "Vocabulary",
    "WindowedRankMetrics",
    "history_before",
    "name_intent",
    "release_freed_memory",
    "set_threads",
    "strongest",
]
