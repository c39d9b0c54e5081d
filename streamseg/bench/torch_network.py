"""The network of a hand-written torch loop: one picture at a time, each moved to the GPU by itself, all at torch's own
defaults. In the thread of the loop."""

from __future__ import annotations

import cv2
import torch
import torch.nn.functional as F

from streamseg.engine.bundle import Bundle
from streamseg.errors import EngineError
from streamseg.models import build
from streamseg.types import U8

WARM_UPS = 5


class TorchNetwork:
    """The bundle's weights.pt, in fp32, called eagerly. `open` raises EngineError where the bundle has none."""

    def __init__(self, bundle: Bundle, size: tuple[int, int], device: str = "cuda") -> None:
        self._bundle, self._size, self._device = bundle, size, device
        self.name = f"torch fp32 on {device}"

    def open(self) -> None:
        file = self._bundle.path / "weights.pt"
        if not file.is_file():
            raise EngineError(f"the torch loop needs {file}, which an engine that was imported has not")
        stored = torch.load(file, map_location="cpu", weights_only=True)
        model = build(stored["architecture"], len(stored["classes"])).eval()
        model.load_state_dict({n: w.float() if w.is_floating_point() else w for n, w in stored["weights"].items()})
        self._model = model.to(self._device)
        entry = self._bundle.manifest.input
        self._mean, self._std = (
            torch.tensor(values, device=self._device)[:, None, None] for values in (entry.mean, entry.std)
        )
        width, height = self._size
        nothing = torch.zeros((height, width, 3), dtype=torch.uint8).numpy()
        for _ in range(WARM_UPS):
            self.labels(nothing)

    def labels(self, bgr: U8) -> U8:
        """u8 [H, W, 3] BGR -> class ids u8 [h, w] at the analysed size."""
        rgb = cv2.cvtColor(cv2.resize(bgr, self._size), cv2.COLOR_BGR2RGB)
        with torch.no_grad():
            picture = torch.from_numpy(rgb).to(self._device).permute(2, 0, 1).float() / 255
            logits = self._model(((picture - self._mean) / self._std)[None])
            full = F.interpolate(logits, rgb.shape[:2], mode="bilinear", align_corners=False)
            labels: U8 = full.argmax(1)[0].to(torch.uint8).cpu().numpy()
        return labels


def usable() -> bool:
    """Whether there is a GPU for it."""
    return bool(torch.cuda.is_available())
