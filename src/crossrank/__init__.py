"""Train and use cross-encoder rerankers."""

from typing import TYPE_CHECKING, Any

from crossrank.errors import (
    AssetError,
    CacheError,
    ConfigError,
    CrossrankError,
    DataError,
    ExportError,
    ModelError,
    ResumeError,
    TrainingError,
)

if TYPE_CHECKING:
    from crossrank.inference.reranker import Reranker

__all__ = [
    "AssetError",
    "CacheError",
    "ConfigError",
    "CrossrankError",
    "DataError",
    "ExportError",
    "ModelError",
    "Reranker",
    "ResumeError",
    "TrainingError",
]


def __getattr__(name: str) -> Any:
    """Import the reranker when it is asked for: whoever wants an error need not wait for torch."""
    if name == "Reranker":
        from crossrank.inference.reranker import Reranker

        return Reranker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
