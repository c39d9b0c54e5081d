"""Shows that an imported engine works: one picture through the real engine, beside the model's own answer. Passive."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import numpy as np

from streamseg import overlay
from streamseg.encode import jpeg
from streamseg.engine.bundle import Bundle
from streamseg.engine.engine import Engine
from streamseg.errors import ConfigError, EngineError
from streamseg.importing.onnx_model import Adapted, fitted
from streamseg.ingest.frames import file_frames
from streamseg.types import U8, Frame

STREET = "synthetic://street?pace=max&frames=61&size=1280x720"
FRAME = 60
"""Of a clip: the first ones are often black, or nobody is in the picture yet. Its last where it has fewer."""
LEAST_AGREEMENT = 0.9
"""Below this share of equal labels the import is taken for wrong. bf16 and another upsampling cost 0.01 to 0.03."""
RUNS = 5


@dataclass(frozen=True, slots=True)
class Proof:
    """`shares` of the picture by class, those found only, the largest first; `agreement` with the model's own labels
    (None where there is no such model); milliseconds a picture, the median of `RUNS`."""

    picture: str
    size: tuple[int, int]
    shares: dict[str, float]
    agreement: float | None
    infer_ms: float
    labels_ms: float
    backend: str


def pictured(source: str | None) -> Frame:
    """The picture to prove it on: of a picture file, of a clip, or of the synthetic street. Raises SourceError."""
    frames: Generator[Frame] = file_frames(source or STREET)
    with closing(frames):
        last = next(iter(deque(islice(frames, FRAME + 1), maxlen=1)), None)
    if last is None:
        raise ConfigError(f"--picture {source}: there is no picture in it")
    return last


def prove(bundle: Bundle, frame: Frame, adapted: Adapted | None) -> Proof:
    """Runs `bundle` on `frame` and writes proof.jpg into it. Raises EngineError when it disagrees with the model."""
    agreement = None
    width, height = bundle.fit(frame.picture.width, frame.picture.height)
    if adapted is not None:
        width, height = bundle.manifest.input.width, bundle.manifest.input.height
        agreement = _agreement(bundle, adapted, fitted(frame.picture.rgb(width, height), (width, height)))
    engine = Engine(bundle)
    (result,) = engine.run([frame])  # compiles
    labels = result.labels
    infer_ms, labels_ms = _timed(engine, frame.picture.rgb(labels.shape[1], labels.shape[0]))
    drawn = overlay.annotate(overlay.full_range(frame.picture.planes()), labels, bundle.classes, undrawn=bundle.undrawn)
    (bundle.path / "proof.jpg").write_bytes(jpeg(drawn, 90))
    counts = np.bincount(labels.ravel(), minlength=256)[: len(bundle.classes)]
    found = sorted(((int(n), c.name) for n, c in zip(counts, bundle.classes, strict=True) if n), reverse=True)
    shares = {name: count / labels.size for count, name in found}
    size = (labels.shape[1], labels.shape[0])
    return Proof(frame.stream, size, shares, agreement, infer_ms, labels_ms, engine.backend)


def _agreement(bundle: Bundle, adapted: Adapted, rgb: U8) -> float:
    """In fp32 and without smoothing, at the size that the model is meant for."""
    size = (rgb.shape[1], rgb.shape[0])
    program = Engine(bundle, smoothing="off", precision="fp32", size=size).program(size)
    (make_labels,) = program.run([rgb], [program.new_state()], [-1.0])
    share = float((make_labels() == adapted.own_labels(rgb)).mean())
    if share < LEAST_AGREEMENT:
        raise EngineError(
            f"the imported engine agrees with the model on {share:.1%} of the picture only: it was read wrongly "
            f"({adapted.notes['output']}: {adapted.notes['taken']}); say more with --layout, --output or --pixels"
        )
    return share


def _timed(engine: Engine, rgb: U8) -> tuple[float, float]:
    """(milliseconds of inference, of making labels): medians on one thread."""
    program = engine.program((rgb.shape[1], rgb.shape[0]))
    state = program.new_state()
    spent = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        (make_labels,) = program.run([rgb], [state], [0.04])
        between = time.perf_counter()
        make_labels()
        spent.append((between - begin, time.perf_counter() - between))
    infer, labels = np.median(np.array(spent), axis=0) * 1000
    return float(infer), float(labels)


def lines(proof: Proof) -> list[str]:
    """The report, for a terminal."""
    shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in proof.shares.items())
    text = [f"found:     {shares}"]
    if proof.agreement is not None:
        text.append(f"agreement: {100 * proof.agreement:.2f} % of the pixels with the model's own answer (fp32)")
    width, height = proof.size
    text.append(
        f"time:      {proof.infer_ms:.1f} ms a picture of {width}x{height} on one thread ({proof.backend}), "
        f"and {proof.labels_ms:.1f} ms beside it for its labels"
    )
    return text
