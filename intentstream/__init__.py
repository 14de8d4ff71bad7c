"""A recommender that learns while the events arrive: what users import.

>>> from intentstream import OnlineLearner
>>> learner = OnlineLearner()
>>> report = learner.learn(users=["ann", "bob", "ann"], items=["tea", "tea", "cup"], ts=[1, 2, 3])
>>> learner.recommend("bob", k=3)
['cup']

Every name is imported on first use, so that `import intentstream` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from intentstream.config import Config, load_config
    from learner.config import LearnerConfig
    from learner.online.online_learner import OnlineLearner
    from stream.errors import ConfigError, StreamError
    from stream.log.open import open_log

_MODULES: Final = {
    "Config": "intentstream.config",
    "ConfigError": "stream.errors",
    "LearnerConfig": "learner.config",
    "OnlineLearner": "learner.online.online_learner",
    "StreamError": "stream.errors",
    "load_config": "intentstream.config",
    "open_log": "stream.log.open",
}

__all__ = [
    "Config",
    "ConfigError",
    "LearnerConfig",
    "OnlineLearner",
    "StreamError",
    "load_config",
    "open_log",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
