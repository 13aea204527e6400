"""The Lightning Trainer as a reranker run needs it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import FSDPStrategy, Strategy

from crossrank.training.checkpoints import AtomicCheckpointIO
from crossrank.training.whole_step import StepMode

Precision = Literal["auto", "32-true", "bf16-mixed"]
IN_ONE = {  # what a step in pieces needs
    "accumulate_grad_batches": 1, "devices": 1, "num_nodes": 1, "strategy": "auto", "cuda_graph": False,
    "compile": False,
}  # fmt: skip


@dataclass(frozen=True)
class TrainerSpec:
    """Device and precision of a run.

    `precision: auto` is bf16-mixed where the hardware multiplies bfloat16 (CUDA from Ampere on, CPUs with
    avx512_bf16 or AMX), float32 elsewhere. `devices` on each of `num_nodes` machines share the pairs of a step, one
    process a device; `ddp` keeps the model on each, `fsdp` (CUDA only) a part of it. `accumulate_grad_batches` splits
    the pairs of a process into micro-batches; `gradient_clip_val` is the norm to clip to.

    `cuda_graph` replays a whole step as one graph for each number of tokens, rounded up to a multiple of
    `bucket_tokens`; `compile` runs the model through torch.compile. Either makes a step one call (see `WholeStep`), and
    what the machine cannot do is left out with a warning.

    `gradient_cache` computes a step in so many pieces, its loss over all of them at once (see `GradientCache`).
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Precision = "auto"
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = 1.0
    threads: int | None = None
    cuda_graph: bool = False
    compile: bool = False
    bucket_tokens: int = 128
    gradient_cache: int = 1

    def __post_init__(self) -> None:
        if self.accumulate_grad_batches < 1 or self.devices < 1 or self.num_nodes < 1:
            raise ValueError(
                "accumulate_grad_batches, devices and num_nodes must be at least 1, got "
                f"{self.accumulate_grad_batches}, {self.devices} and {self.num_nodes}"
            )
        if self.bucket_tokens < 8:
            raise ValueError(f"bucket_tokens counts tokens and must be at least 8, got {self.bucket_tokens}")
        if self.strategy == "fsdp" and (self.accelerator == "cpu" or not torch.cuda.is_available()):
            raise ValueError("strategy fsdp needs CUDA devices and torch sees none; on a CPU use trainer=ddp")
        if self.step_mode and (self.accumulate_grad_batches > 1 or self.processes > 1):
            raise ValueError(
                "cuda_graph and compile make a step one call on one device: they need accumulate_grad_batches=1 and "
                f"devices=1, got {self.accumulate_grad_batches} and {self.processes}"
            )
        if self.gradient_cache < 1:
            raise ValueError(
                f"gradient_cache counts pieces of a step and must be at least 1, got {self.gradient_cache}"
            )
        others = {name: value for name, value in IN_ONE.items() if getattr(self, name) != value}
        if self.gradient_cache > 1 and others:
            needed = ", ".join(f"{name}={value}" for name, value in others.items())
            got = ", ".join(str(getattr(self, name)) for name in others)
            raise ValueError(f"gradient_cache computes a whole step on one device: it needs {needed}, got {got}")
        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise ValueError("accelerator is gpu and torch sees none; set trainer=cpu or install the CUDA build")

    @property
    def processes(self) -> int:
        """How many processes share a step."""
        return self.devices * self.num_nodes

    @property
    def resolved_precision(self) -> Literal["32-true", "bf16-mixed"]:
        """The precision on this machine."""
        if self.precision != "auto":
            return self.precision
        on_gpu = self.accelerator != "cpu" and torch.cuda.is_available()
        fast = torch.cuda.is_bf16_supported() if on_gpu else torch.cpu._is_avx512_bf16_supported()
        return "bf16-mixed" if fast else "32-true"

    @property
    def step_mode(self) -> StepMode | None:
        """How a whole step is run, or None where Lightning runs its parts."""
        return StepMode(self.cuda_graph, self.compile) if self.cuda_graph or self.compile else None

    @property
    def multiple(self) -> int | None:
        """What a step's tokens are rounded up to before they reach the device: graphs need few shapes."""
        return self.bucket_tokens if self.cuda_graph else None

    @property
    def batches_stay(self) -> bool:
        """Whether batches wait on the host for the step, which takes them to the device itself."""
        return self.cuda_graph or self.gradient_cache > 1

    @property
    def autocast(self) -> torch.dtype | None:
        """The dtype of matrix products in evaluation, as in training."""
        return torch.bfloat16 if self.resolved_precision == "bf16-mixed" else None

    def build(
        self, max_steps: int, callbacks: Sequence[pl.Callback], loggers: Sequence[Logger], run_dir: Path
    ) -> pl.Trainer:
        """Return a Trainer for one long epoch of `max_steps` optimizer steps."""
        if self.threads:
            torch.set_num_threads(self.threads)
        return pl.Trainer(
            accelerator=self.accelerator,
            devices=self.devices,
            num_nodes=self.num_nodes,
            strategy=self._strategy(),
            precision=self.resolved_precision,
            accumulate_grad_batches=self.accumulate_grad_batches,
            gradient_clip_val=self.gradient_clip_val,
            max_steps=max_steps,
            max_epochs=-1,
            callbacks=list(callbacks),
            logger=list(loggers),
            plugins=self._plugins(),
            default_root_dir=run_dir,
            use_distributed_sampler=False,
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),  # none unasked for
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=max_steps,  # our callbacks log, at the steps they say
        )

    def _strategy(self) -> str | Strategy:
        # a whole state in one file, so that it loads on any number of devices
        return FSDPStrategy(state_dict_type="full") if self.strategy == "fsdp" else self.strategy

    def _plugins(self) -> list[Any]:
        """Save checkpoints our way; under SLURM leave its signals to our checkpoints, which requeue nothing."""
        slurm = [SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []
        return [AtomicCheckpointIO(), *slurm]
