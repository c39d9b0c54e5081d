"""The loop that a user would write by hand: cv2.VideoCapture, a network, BGR blend, cv2.imencode, PUB. Sequential.

Same network, analysed size and outputs (JPEG with overlay at the source's size, label map) as the pipeline.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable
from typing import Any, Protocol

import cv2
import numpy as np
import zmq

from streamseg.engine.bundle import Bundle
from streamseg.types import U8


class Network(Protocol):
    """The part that differs: labels of one picture. Made, opened and used in one thread."""

    name: str

    def open(self) -> None: ...

    def labels(self, bgr: U8) -> U8:
        """`bgr` u8 [H, W, 3] as OpenCV decodes it -> class ids u8 [h, w] at the analysed size."""
        ...


class OnnxNetwork:
    """ONNX Runtime in fp32, with the program as the bundle has it, smoothing off."""

    name = "ONNX Runtime fp32"

    def __init__(self, bundle: Bundle, size: tuple[int, int]) -> None:
        self._bundle, self._size = bundle, size

    def open(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        data = str(self._bundle.path / "model.onnx")
        self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        self._inputs = self._first_inputs()

    def labels(self, bgr: U8) -> U8:
        small = cv2.cvtColor(cv2.resize(bgr, self._size), cv2.COLOR_BGR2RGB)
        self._inputs["frames"] = small[None]
        labels: U8 = self._session.run(["labels"], self._inputs)[0][0]
        return labels

    def _first_inputs(self) -> dict[str, Any]:
        """The program's inputs for one picture, reset at every frame, and one run to warm up."""
        width, height = self._size
        inputs: dict[str, Any] = {"frames": np.zeros((1, height, width, 3), np.uint8)}
        if any(value.name == "state" for value in self._session.get_inputs()):
            from streamseg.engine.program import state_shape

            inputs["state"] = np.zeros((1, *(state_shape(self._bundle.program, width, height) or ())), np.float32)
            inputs["elapsed_s"] = np.array([-1.0], np.float32)
        self._session.run(["labels"], inputs)
        return inputs


class Baseline:
    """`open`, `run`, `close`; all libraries at their own defaults, as a first version would leave them."""

    def __init__(self, bundle: Bundle, path: str, network: Network, quality: int) -> None:
        self._bundle, self._path, self._network, self._quality = bundle, path, network, quality

    def open(self) -> str:
        self._network.open()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, 0)
        port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self._colours = np.zeros((256, 3), np.uint8)
        for each in self._bundle.classes:
            self._colours[each.id] = each.colour[::-1]
        return f"tcp://127.0.0.1:{port}"

    def run(self, frames: int, connected: Callable[[], None]) -> int:
        """Processes up to `frames` frames; returns how many."""
        connected()
        capture = cv2.VideoCapture(self._path)
        done = 0
        while done < frames:
            arrived_ns = time.time_ns()
            good, picture = capture.read()
            if not good:
                break
            labels = self._network.labels(np.asarray(picture, np.uint8))
            colour = cv2.resize(self._colours[labels], picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
            jpeg = cv2.imencode(
                ".jpg", cv2.addWeighted(picture, 0.5, colour, 0.5, 0), [cv2.IMWRITE_JPEG_QUALITY, self._quality]
            )[1]
            header = {"stream": "baseline", "frame": done, "seq": done, "captured_ns": arrived_ns}
            for kind, payload in (("frame", jpeg.tobytes()), ("labels", zlib.compress(labels.tobytes(), 1))):
                head = json.dumps(header | {"kind": kind, "published_ns": time.time_ns()}).encode()
                self._socket.send_multipart([f"{kind}/baseline/".encode(), head, payload])
            done += 1
        capture.release()
        return done

    def wait_for_subscriber(self) -> None:
        """A PUB socket cannot tell; half a second is what such a script would sleep."""
        time.sleep(0.5)

    def close(self) -> None:
        self._socket.close(5000)
        self._context.term()
