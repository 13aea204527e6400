"""The Lightning Trainer as a reranker run needs it."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import Logger

from crossrank.training.whole_step import StepMode

Precision = Literal["auto", "32-true", "bf16-mixed"]


@dataclass(frozen=True)
class TrainerSpec:
    """Device and precision of a run.

    `precision: auto` is bf16-mixed where the hardware multiplies bfloat16 (CUDA from Ampere on, CPUs with
    avx512_bf16 or AMX), float32 elsewhere. `accumulate_grad_batches` splits the pairs of a step into micro-batches;
    `gradient_clip_val` is the norm to clip to.

    `cuda_graph` replays a whole step as one graph for each number of tokens, rounded up to a multiple of
    `bucket_tokens`; `compile` runs the model through torch.compile. Either makes a step one call (see `WholeStep`), and
    what the machine cannot do is left out with a warning.
    """

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: int = 1
    precision: Precision = "auto"
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = 1.0
    threads: int | None = None
    cuda_graph: bool = False
    compile: bool = False
    bucket_tokens: int = 128

    def __post_init__(self) -> None:
        if self.accumulate_grad_batches < 1 or self.devices < 1:
            raise ValueError(
                f"accumulate_grad_batches and devices must be at least 1, got {self.accumulate_grad_batches} and "
                f"{self.devices}"
            )
        if self.bucket_tokens < 8:
            raise ValueError(f"bucket_tokens counts tokens and must be at least 8, got {self.bucket_tokens}")
        if self.step_mode and (self.accumulate_grad_batches > 1 or self.devices > 1):
            raise ValueError(
                "cuda_graph and compile make a step one call on one device: they need accumulate_grad_batches=1 and "
                f"devices=1, got {self.accumulate_grad_batches} and {self.devices}"
            )
        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise ValueError("accelerator is gpu and torch sees none; set trainer=cpu or install the CUDA build")

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
            precision=self.resolved_precision,
            accumulate_grad_batches=self.accumulate_grad_batches,
            gradient_clip_val=self.gradient_clip_val,
            max_steps=max_steps,
            max_epochs=-1,
            callbacks=list(callbacks),
            logger=list(loggers),
            plugins=[AtomicCheckpointIO()],
            default_root_dir=run_dir,
            use_distributed_sampler=False,
            enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),  # none unasked for
            enable_model_summary=False,
            num_sanity_val_steps=0,
            log_every_n_steps=max_steps,  # our callbacks log, at the steps they say
        )


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its final name, syncs it and renames it: a kill or a full disk spoils no older one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save `checkpoint` under `path` in one step."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.tmp-{os.getpid()}")
        try:
            with temporary.open("wb") as stream:
                torch.save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
