"""Train and use cross-encoder rerankers."""

from crossrank.errors import (
    AssetError,
    CacheError,
    ConfigError,
    CrossrankError,
    DataError,
    ModelError,
    ResumeError,
    TrainingError,
)

__all__ = [
    "AssetError",
    "CacheError",
    "ConfigError",
    "CrossrankError",
    "DataError",
    "ModelError",
    "ResumeError",
    "TrainingError",
]
