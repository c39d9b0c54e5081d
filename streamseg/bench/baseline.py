"""The loop that a user would write by hand: cv2.VideoCapture, a network, BGR blend, cv2.imencode, PUB. Sequential.

Same network, analysed size and outputs (JPEG with overlay at the source's size, label map) as the pipeline.
"""

from __future__ import annotations

import json
import time
import zlib
from typing import Any, Protocol

import cv2
import numpy as np
import zmq

from streamseg.bench.sink import sink, taken
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


def fps(bundle: Bundle, path: str, network: Network, quality: int) -> float:
    """Of the loop over a whole file, as a subscriber in another process sees it. All libraries are at their own
    defaults, as a first version would leave them."""
    network.open()
    colours = np.zeros((256, 3), np.uint8)
    for each in bundle.classes:
        colours[each.id] = each.colour[::-1]
    context = zmq.Context()
    socket = context.socket(zmq.PUB)
    socket.setsockopt(zmq.SNDHWM, 0)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    with sink(f"tcp://127.0.0.1:{port}") as subscriber:
        try:
            time.sleep(0.5)  # a PUB socket cannot tell who is there; it is what such a script would sleep
            _run(path, network, colours, quality, socket)
        finally:  # before the subscriber is killed
            socket.close(5000)
            context.term()
        arrived: list[int] = sorted(message[4] for message in taken(subscriber) if message[0] == "frame")
    return round((len(arrived) - 1) / ((arrived[-1] - arrived[0]) / 1e9), 1)


def _run(path: str, network: Network, colours: U8, quality: int, socket: zmq.Socket[bytes]) -> None:
    capture = cv2.VideoCapture(path)
    number = 0
    while True:
        arrived_ns = time.time_ns()
        good, picture = capture.read()
        if not good:
            break
        labels = network.labels(np.asarray(picture, np.uint8))
        colour = cv2.resize(colours[labels], picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        blend = cv2.addWeighted(picture, 0.5, colour, 0.5, 0)
        jpeg = cv2.imencode(".jpg", blend, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        header = {"stream": "baseline", "frame": number, "seq": number, "captured_ns": arrived_ns}
        for kind, payload in (("frame", jpeg.tobytes()), ("labels", zlib.compress(labels.tobytes(), 1))):
            head = json.dumps(header | {"kind": kind, "published_ns": time.time_ns()}).encode()
            socket.send_multipart([f"{kind}/baseline/".encode(), head, payload])
        number += 1
    capture.release()
