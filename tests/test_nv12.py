"""NV12 in GPU memory to an engine's input: against numpy and swscale; on a GPU where there is one, else interpreted."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation

torch = pytest.importorskip("torch", reason="no torch")
pytest.importorskip("triton", reason="no Triton (pip install 'streamseg[cuda]')")

import nv12 as pictures  # noqa: E402

from streamseg.motion import thumbnail  # noqa: E402
from streamseg.nvidia import nv12  # noqa: E402
from streamseg.nvidia.surface import Resident, Surface, surface_of  # noqa: E402
from streamseg.types import Roi  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter's time goes by the program, not by its size."""
    if DEVICE == "cpu":
        monkeypatch.setattr(nv12, "BLOCK", (64, 128))


def whole(surface: Surface) -> Roi:
    return Roi(0, 0, surface.y.shape[1], surface.y.shape[0])


def assert_same(got: np.ndarray, wanted: np.ndarray) -> None:
    """Rounded the same, but for what lies half way between two levels."""
    assert np.abs(got - wanted).max() < 0.51


@pytest.mark.parametrize(
    ("source", "size"),
    [
        ((192, 108), (48, 27)),
        ((192, 108), (48, 28)),
        ((322, 182), (61, 33)),  # to an odd width, by ratios that are not whole
        ((127, 75), (48, 28)),  # from odd sides
        ((64, 36), (64, 36)),
        ((48, 28), (96, 64)),  # enlarged
        ((96, 28), (48, 64)),  # each way differently
    ],
    ids=lambda size: "x".join(map(str, size)),
)
def test_a_picture_is_scaled_and_converted_as_numpy_does(source: tuple[int, int], size: tuple[int, int]) -> None:
    made = pictures.surface(*source, device=DEVICE)
    asked = Resident(made, whole(made), size)
    if source[0] % 2:  # the decoder leaves half a chroma sample out, and so does the reference
        made = Surface(made.y[:74, :126], made.uv, made.matrix, made.full_range)
        asked = Resident(made, whole(made), size)
    assert_same(nv12.rgb(asked), pictures.reference(asked))


@pytest.mark.parametrize("matrix", ["bt601", "bt709", "bt2020"])
@pytest.mark.parametrize("full_range", [False, True], ids=["television", "full"])
def test_every_matrix_and_range_gives_its_own_colours(matrix: str, full_range: bool) -> None:
    made = pictures.surface(64, 36, matrix=matrix, full_range=full_range, device=DEVICE)
    asked = Resident(made, whole(made), (32, 18))
    assert_same(nv12.rgb(asked), pictures.reference(asked))


def test_the_padding_of_rows_is_never_seen() -> None:
    padded = pictures.surface(98, 54, pitch=256, device=DEVICE)
    plain = pictures.surface(98, 54, device=DEVICE)
    got, wanted = (nv12.rgb(Resident(s, whole(s), (40, 30))) for s in (padded, plain))
    assert np.array_equal(got, wanted)


def test_a_part_is_scaled_as_if_there_were_nothing_else() -> None:
    made = pictures.surface(192, 108, device=DEVICE)
    part = Roi(34, 12, 90, 66)
    cut = Surface(made.y[part.rows, part.columns], made.uv[6:39, 17:62], made.matrix, made.full_range)
    got = nv12.rgb(Resident(made, part, (40, 28)))
    assert np.array_equal(got, nv12.rgb(Resident(cut, Roi(0, 0, 90, 66), (40, 28))))
    assert_same(got, pictures.reference(Resident(made, part, (40, 28))))


def test_a_batch_is_put_together_from_pictures_of_several_sizes_in_its_own_order() -> None:
    made = [
        pictures.surface(192, 108, seed=1, device=DEVICE),
        pictures.surface(64, 48, seed=2, pitch=80, device=DEVICE),
    ]
    asked = [Resident(each, whole(each), (48, 28)) for each in made]
    out = torch.full((4, 28, 48, 3), 7, dtype=torch.uint8, device=DEVICE)
    nv12.launch(torch.tensor(nv12.table(asked, [3, 1]), device=DEVICE), out)
    got = out.cpu().numpy()
    assert_same(got[3], pictures.reference(asked[0]))
    assert_same(got[1], pictures.reference(asked[1]))
    assert (got[[0, 2]] == 7).all(), "rows that were not asked for"


def test_tiles_are_cut_from_the_scaled_picture_without_making_it() -> None:
    made = pictures.surface(192, 108, device=DEVICE)
    wanted = nv12.rgb(Resident(made, whole(made), (96, 54)))
    out = torch.zeros((2, 40, 50, 3), dtype=torch.uint8, device=DEVICE)
    tiles = [Resident(made, whole(made), (96, 54), at) for at in ((0, 0), (45, 14))]
    nv12.launch(torch.tensor(nv12.table(tiles, [0, 1]), device=DEVICE), out)
    got = out.cpu().numpy()
    assert np.array_equal(got[0], wanted[:40, :50])
    assert np.array_equal(got[1, :, :50], wanted[14:54, 45:95])


def test_blocks_that_reach_beyond_the_picture_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made = pictures.surface(64, 36, device=DEVICE)
    wanted = nv12.rgb(Resident(made, whole(made), (37, 21)))
    monkeypatch.setattr(nv12, "BLOCK", (8, 16))
    assert np.array_equal(nv12.rgb(Resident(made, whole(made), (37, 21))), wanted)


@pytest.mark.parametrize("size", [(96, 54), (97, 55)], ids=["even", "odd"])
@pytest.mark.parametrize("colourspace", [1, 5, 9], ids=["bt709", "bt601", "bt2020"])
def test_the_result_is_that_of_the_cpu_path(size: tuple[int, int], colourspace: int) -> None:
    """swscale's own arithmetic is up to 2 levels too dark where the width is even (measured 1.9, x86)."""
    frame = decoded(192, 108, colourspace)
    scaled = frame.reformat(*size, format="rgb24", interpolation=Interpolation.AREA, threads=1).to_ndarray()
    made = surface_of(frame)
    assert made is not None
    made = replace(made, y=made.y.to(DEVICE), uv=made.uv.to(DEVICE))
    off = np.abs(nv12.rgb(Resident(made, whole(made), size)) - scaled.astype(float))
    assert off.mean() < (2.5 if size[0] % 2 == 0 else 0.5)
    assert np.percentile(off, 99) <= 5


def test_a_decoded_picture_is_taken_over_without_a_copy_and_outlives_its_frame() -> None:
    frame = decoded(192, 108, 1)
    made = surface_of(frame)
    assert made is not None
    frame.planes[0].update(bytes([99]) * frame.planes[0].buffer_size)
    del frame
    assert (made.y == 99).all()
    assert (made.uv.shape, made.matrix, made.full_range) == ((54, 96, 2), "bt709", False)


def test_what_a_stream_does_not_say_is_taken_as_on_the_cpu() -> None:
    assert [surface_of(decoded(64, height, 2)).matrix for height in (480, 720)] == ["bt601", "bt709"]


def test_ten_bit_pictures_are_left_to_the_cpu() -> None:
    assert surface_of(av.VideoFrame(64, 36, "p010le")) is None


@pytest.mark.parametrize("height", [108, 135, 300, 540, 1080])
def test_its_thumbnail_is_that_of_the_cpu_to_a_level(height: int) -> None:
    made = pictures.surface(height * 16 // 9 // 2 * 2, height, pitch=2048, device=DEVICE)
    wanted = thumbnail(made.y.cpu().numpy())
    assert made.thumbnail().shape == wanted.shape
    assert np.abs(made.thumbnail().astype(int) - wanted).max() <= 1


def test_the_kernel_can_be_tried_before_there_is_a_frame() -> None:
    assert nv12.trial(DEVICE) == ""


def test_a_kernel_that_cannot_run_is_told_in_words() -> None:
    assert nv12.trial("cuda:99").startswith("Triton cannot run a kernel: ")


def decoded(width: int, height: int, colourspace: int) -> av.VideoFrame:
    """A frame in NV12, as NVDEC gives it, in host memory."""
    y, uv = pictures.scene(width, height)
    planes = np.concatenate([y, uv.reshape(height // 2, width)]).astype(np.uint8)
    frame = av.VideoFrame.from_ndarray(planes, "nv12")
    frame.colorspace, frame.color_range = colourspace, 1
    return frame


COMPILES = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from streamseg.nvidia import kernels
types, fixed = {
    "nv12_to_rgb": (["*i64", "*fp32", "*u8", "i32", "i32"], {"ROWS": 4, "COLUMNS": 64}),
    "scores_to_labels": (["*fp32", "*u8", *["i32"] * 5], {"COLUMNS": 256}),
}[sys.argv[1]]
kernel = getattr(kernels, sys.argv[1])
signature = dict(zip(kernel.arg_names, [*types, *["constexpr"] * len(fixed)], strict=True))
source = ASTSource(fn=kernel, signature=signature, constexprs=fixed)
made = compile(source, target=GPUTarget("cuda", int(sys.argv[2]), 32), options={"enable_fp_fusion": True})
print(len(made.asm["cubin"]))
"""


@pytest.mark.parametrize("kernel", ["nv12_to_rgb", "scores_to_labels"])
@pytest.mark.parametrize("generation", [80, 90, 120], ids=["A100", "H200", "Blackwell"])
def test_kernels_compile_to_machine_code_of_real_gpus(kernel: str, generation: int, tmp_path: Path) -> None:
    """By Triton's own compiler and the ptxas that it carries; neither needs a GPU."""
    environment = {"TRITON_CACHE_DIR": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [sys.executable, "-c", COMPILES, kernel, str(generation)]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, cwd=root, env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1000
