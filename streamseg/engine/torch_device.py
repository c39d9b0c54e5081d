"""Where torch computes: a CPU, or a CUDA GPU with its streams, pinned memory and graphs. Made and used in one thread.

A program is written against `Device` once. On a CPU every step happens as it is called, and a graph is the function
itself; what is tested there is the same code that runs on a GPU, but for the two dozen lines of `CudaDevice`.
"""

from __future__ import annotations

import logging
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch

from streamseg.engine import machine
from streamseg.errors import EngineError

log = logging.getLogger("streamseg")
WARM_UPS = 3
"""Runs before a capture: libraries choose their kernels and allocate then, which a capture must not see."""
HANDS = 4
"""Threads that fill pinned memory together."""
CAPTURE = threading.RLock()
"""Held while graphs are warmed up and captured. torch allows one capture at a time in a process (a program may be
captured while another one serves), and cuDNN's flags, under which that happens, are the process's."""
_STREAMS = 32
"""So many does torch hand out on a GPU, in turn; then the same ones again."""
_DEVICES: weakref.WeakSet[CudaDevice] = weakref.WeakSet()


def no_cuda() -> str:
    """Why torch cannot use a GPU that the driver has told of; "" where it can. To be asked before torch is told to do
    anything there: the GPUs are given the flags that FFmpeg insists on, which must not come after torch's context."""
    machine.gpu_names()
    if torch.version.cuda is None:
        return f"torch {torch.__version__} is built without CUDA"
    return "" if torch.cuda.is_available() else f"torch {torch.__version__} finds no GPU; is the driver too old for it?"


@contextmanager
def tried_out() -> Iterator[None]:
    """cuDNN tries its kernels out and takes the fastest; fp32 is fp32 to it, not TF32. What torch warns of meanwhile is
    of kernels that were tried and cannot be used, and of what torch itself is made of: it is passed over."""
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.conv.fp32_precision
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cudnn.benchmark, cudnn.conv.fp32_precision = True, "ieee"
        try:
            yield
        finally:
            cudnn.benchmark, cudnn.conv.fp32_precision = before


class Download(Protocol):
    def wait(self) -> torch.Tensor:
        """The tensor in host memory, once it is there; any thread, any number of times."""
        ...


class Device(Protocol):
    """`where` tensors live. Work is queued in order; only `Download.wait` waits for it. `hands` fill what `staging`
    gives, where that is worth their while."""

    where: torch.device
    hands: Executor | None

    def staging(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Host memory that `upload` can take from without a copy in between."""
        ...

    def upload(self, staged: torch.Tensor) -> torch.Tensor:
        """Its copy on the device, for what is queued from now on in `work`."""
        ...

    def work(self) -> AbstractContextManager[object]:
        """What torch is told within it is queued behind earlier work."""
        ...

    def after_current(self) -> None:
        """Work waits for what the calling thread has queued on torch's current stream (frames made on the device)."""
        ...

    def download(self, tensor: torch.Tensor) -> Download:
        """Of a tensor that nobody writes to any more."""
        ...

    def graph(self, function: Callable[[], None]) -> Callable[[], None]:
        """What does again, in `work`, what the function does now; its tensors must stay where they are."""
        ...


@dataclass(frozen=True, slots=True)
class _There:
    tensor: torch.Tensor

    def wait(self) -> torch.Tensor:
        return self.tensor


class CpuDevice:
    where = torch.device("cpu")
    hands: Executor | None = None

    def staging(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype)

    def upload(self, staged: torch.Tensor) -> torch.Tensor:
        return staged

    def work(self) -> AbstractContextManager[object]:
        return nullcontext()

    def after_current(self) -> None:
        pass

    def download(self, tensor: torch.Tensor) -> Download:
        return _There(tensor)

    def graph(self, function: Callable[[], None]) -> Callable[[], None]:
        return function


@dataclass(frozen=True, slots=True)
class _OnItsWay:
    tensor: torch.Tensor
    done: torch.cuda.Event
    lent: list[torch.Tensor]
    """What its work reads on other streams than it was allocated on. (`record_stream` would do, but what it keeps is
    never freed again once a capture has failed: the allocator believes for ever that one is under way.)"""

    def wait(self) -> torch.Tensor:
        self.done.synchronize()
        self.lent.clear()
        return self.tensor


class CudaDevice:
    """Three streams, so that copies to and from the GPU go on while it computes.

    Semantics: https://docs.pytorch.org/docs/stable/notes/cuda.html (CUDA graphs, streams, pinned memory buffers).
    """

    def __init__(self, index: int = 0) -> None:
        self.where = torch.device("cuda", index)
        self.streams = self._up, self._work, self._down = self._fresh()
        self._lent: list[torch.Tensor] = []
        self.hands: Executor | None = ThreadPoolExecutor(HANDS, "streamseg-staging")  # started when first used
        _DEVICES.add(self)
        self._pool = torch.cuda.graph_pool_handle()  # graphs of one program never run at once: they share memory

    def _fresh(self) -> tuple[torch.cuda.Stream, ...]:
        """Three that no other program has: work on one that is being captured would be recorded, not done."""
        taken = {stream.cuda_stream for each in list(_DEVICES) for stream in each.streams}
        every = (torch.cuda.Stream(self.where) for _ in range(_STREAMS))
        free = {stream.cuda_stream: stream for stream in every if stream.cuda_stream not in taken}
        if len(free) < 3:
            raise EngineError(f"{self.where} has no streams left for another program")
        return tuple(free.values())[:3]

    def staging(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """From torch's cache of pinned memory, which gives a block out again only after its copies are done."""
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def upload(self, staged: torch.Tensor) -> torch.Tensor:
        with torch.cuda.stream(self._up):
            there = staged.to(self.where, non_blocking=True)
        self._work.wait_stream(self._up)
        self._lent.append(there)
        return there

    def work(self) -> AbstractContextManager[object]:
        context: AbstractContextManager[object] = torch.cuda.stream(self._work)
        return context

    def after_current(self) -> None:
        self._work.wait_stream(torch.cuda.current_stream(self.where))

    def download(self, tensor: torch.Tensor) -> Download:
        self._down.wait_stream(self._work)
        with torch.cuda.stream(self._down):
            there = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            there.copy_(tensor, non_blocking=True)
            # blocking: whoever waits sleeps; spinning would take a core from decoding
            done = torch.cuda.Event(blocking=True)
            done.record(self._down)
        lent, self._lent = [*self._lent, tensor], []
        return _OnItsWay(there, done, lent)

    def graph(self, function: Callable[[], None]) -> Callable[[], None]:
        """Falls back to the function itself, with a line in the log, where it cannot be captured."""
        with torch.cuda.device(self.where):
            with self.work():
                for _ in range(WARM_UPS):
                    function()
            self._work.synchronize()
            captured = torch.cuda.CUDAGraph()
            try:
                # thread_local: another program may serve, and allocate, in its own thread meanwhile
                with (
                    CAPTURE,
                    torch.cuda.graph(captured, pool=self._pool, stream=self._work, capture_error_mode="thread_local"),
                ):
                    function()
            except RuntimeError as error:
                log.warning("no CUDA graph (%s): kernels are launched one by one", str(error).splitlines()[0])
                return function
        replay: Callable[[], None] = captured.replay
        return replay
