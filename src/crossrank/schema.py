"""The keys at the root of each program's config; any other key there is a typo."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from crossrank.analysis.probabilities import CalibrationMethod
from crossrank.evaluation import Protocols
from crossrank.gate import Component


class CardSettings(BaseModel):
    """The key `card` of conf/train.yaml: what nobody but the author of a model knows."""

    model_config = ConfigDict(extra="forbid", strict=True)
    language: str | list[str] | None = None  # ISO 639
    license: str | None = None  # as the hub spells it, such as apache-2.0
    datasets: list[str] = []  # hub ids
    samples: Annotated[int, Field(ge=0, le=10)] = 3  # training pairs that are shown


class RunConfig(BaseModel):
    """The keys at the root of conf/train.yaml; any other key there is a typo."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    seed: int
    run_dir: str
    cache_dir: str
    protocol: str
    main_metric: str
    monitor: str
    calibration: CalibrationMethod
    resume: str | None
    rerun: str | None
    retry_failed: bool
    resume_anyway: bool
    card: CardSettings = CardSettings()
    source: Component
    miner: Component
    policy: Component
    teacher: Component | None = None
    data: Component
    model: Component
    adapter: Component | None = None
    loss: Component
    optimizer: Component
    schedule: Component
    trainer: Component
    evaluators: dict[str, Component]
    callbacks: dict[str, Component]
    logger: dict[str, Component]


class AuditSettings(BaseModel):
    """The key `audit` of conf/audit.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True)
    sample: int = Field(ge=1)
    sheet: int = Field(ge=0)
    seed: int = Field(ge=0)
    labels: str | None
    run: str | None


class AuditConfig(RunConfig):
    """The keys of conf/audit.yaml."""

    audit: AuditSettings


class RerankConfig(BaseModel):
    """The keys of conf/rerank.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True)
    reranker: str
    max_length: int | None = Field(ge=8)
    tokens_per_batch: int | None = Field(ge=1)
    precision: Literal["fp32", "bf16"]
    rerank_k: int = Field(ge=1)
    top_k: int | None = Field(ge=1)
    query: str | None
    documents: str | None
    run: str | None
    candidates: str | None
    queries: str | None
    corpus: str | None
    with_titles: bool
    output: str | None
    pairs_per_chunk: int = Field(ge=1)
    cache_dir: str


class CompareConfig(BaseModel):
    """The keys of conf/compare.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True)
    systems: list[str]
    names: list[str] | None
    metrics: list[str] | None
    pairs: Literal["all", "baseline"]
    qrels: str | None
    at_k: int = Field(ge=1)
    relevant_from: int = Field(ge=1)
    common_only: bool
    output: str | None
    confidence: float = Field(gt=0, lt=1)
    resamples: int = Field(ge=1)
    seed: int = Field(ge=0)
    cache_dir: str
    protocol: Protocols
    main_metric: str
    source: Component
    miner: Component
    evaluators: dict[str, Component]


class EvaluateConfig(BaseModel):
    """The keys of conf/evaluate.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True)
    name: str
    reranker: str
    max_length: int | None = Field(ge=8)
    tokens_per_batch: int | None = Field(ge=1)
    precision: Literal["fp32", "bf16"]
    budget: bool
    depths: list[Annotated[int, Field(ge=1)]] = Field(min_length=1)
    lengths: Annotated[list[Annotated[int, Field(ge=8)]], Field(min_length=1)] | None
    latency_queries: int = Field(ge=1)
    run_dir: str
    cache_dir: str
    protocol: Protocols
    main_metric: str
    source: Component
    miner: Component
    evaluators: dict[str, Component] = Field(min_length=1)


class VerifyConfig(BaseModel):
    """The keys of conf/verify.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True)
    run: str
    cache_dir: str | None


class ReportConfig(BaseModel):
    """The keys of conf/report.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True)
    run: str
    output: str | None


class ExportConfig(BaseModel):
    """The keys of conf/export.yaml."""

    model_config = ConfigDict(extra="forbid", strict=True)
    run: str
    output: str | None
    consumers: list[str]
    onnx: bool
    push: str | None
    private: bool
    branch: str | None
    create_pr: bool
    dry_run: bool
