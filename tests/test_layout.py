"""The shape of the code: who may import whom, what stays light, how long a file may be."""

from __future__ import annotations

import ast
import graphlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "streamseg"

LAYERS: tuple[set[str], ...] = (
    {"types", "errors", "config", "source", "synthetic"},
    {"channel", "wire", "codec", "rle", "metrics", "motion", "drawing"},
    {
        "ingest",
        "nvidia",
        "engine",
        "overlay",
        "encode",
        "publish",
        "received",
        "subscriber",
        "security",
        "models",
    },
    {"pipeline", "inference", "placement"},
    {"service", "probe", "bench", "training", "evaluation", "viewer", "catalogue"},
    {"importing", "quantising"},
    {"cli", "building", "engines_cli", "bench_cli", "cards", "commandline", "eval_cli", "__main__"},
)
"""From the bottom up. A module imports from its own layer (without going round in circles) or from below."""

PARTS = re.compile(r"^street(\.\w+)?$")
"""The parts of the synthetic street; they belong to its layer."""

ONLY_IN = {
    "av": r"(ingest|bench)(\.|$)",
    "zmq": r"(publish|subscribe|subscriber|security|bench)(\.|$)",
    "torch": r"(models|training|nvidia)(\.|$)|engine\.(torch_\w*|tensorrt_layer)$|bench\.torch_|importing\.checkpoint$",
    "triton": r"nvidia\.kernels$",
}
"""Where a heavy package may be imported: modules whose dotted name begins so."""

LIGHT = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("streamseg", "numpy"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
import streamseg.wire
"""


def modules() -> dict[str, Path]:
    """Dotted name under streamseg -> file; a package goes by its own name."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            found[name] = file
    return found


@cache
def imports(name: str, file: Path) -> list[str]:
    """Every module that `file` imports, at its top or inside a function, under its absolute name."""
    package = ["streamseg", *name.split(".")]
    if file.name != "__init__.py":
        package.pop()
    found: list[str] = []
    for node in running(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            found += [f"{origin}.{alias.name}" for alias in node.names]
    return found


def running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from running(child)


def unit(name: str) -> str:
    """The module or package directly under streamseg that a dotted name belongs to."""
    return name.split(".")[0]


def layer(name: str) -> int:
    name = "synthetic" if PARTS.match(name) else name
    found = [height for height, names in enumerate(LAYERS) if name in names]
    assert found, f"streamseg.{name} has no place in LAYERS: say there what it may import"
    return found[0]


def own_imports() -> dict[str, set[str]]:
    """Unit -> the other units that it imports."""
    known = modules()
    graph: dict[str, set[str]] = {unit(name): set() for name in known}
    for name, file in known.items():
        for target in imports(name, file):
            top, _, rest = target.partition(".")
            if top == "streamseg" and unit(rest) in graph and unit(rest) != unit(name):
                graph[unit(name)].add(unit(rest))
    return graph


def project_files() -> list[Path]:
    """Every file that git tracks, or would."""
    if not shutil.which("git"):
        pytest.skip("no git")
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [file for name in listed.stdout.decode().split("\0") if name and (file := ROOT / name).is_file()]


def test_imports_point_one_way() -> None:
    heights = {name: layer(name) for name in own_imports()}
    upward = [
        f"streamseg.{name} imports streamseg.{target}, which stands above it"
        for name, targets in own_imports().items()
        for target in targets
        if heights[target] > heights[name]
    ]
    assert not upward


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        graphlib.TopologicalSorter(own_imports()).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" <- ".join(error.args[1]), pytrace=False)


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_heavy_package_is_imported_only_where_it_belongs(package: str) -> None:
    users = {name for name, file in modules().items() if package in {unit(target) for target in imports(name, file)}}
    assert not {name for name in users if not re.match(ONLY_IN[package], name)}


def test_the_wire_needs_numpy_alone() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("module", ["cli", "subscriber"])
def test_what_a_user_waits_for_loads_no_inference_library(module: str) -> None:
    code = f"import sys, streamseg.{module}; print({{'torch', 'openvino', 'onnxruntime', 'onnx'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout.strip()) == (0, "set()"), done.stderr


def test_no_source_file_is_longer_than_400_lines() -> None:
    lengths = {file: len(file.read_text().splitlines()) for file in project_files() if file.suffix == ".py"}
    assert not {str(file.relative_to(ROOT)): lines for file, lines in lengths.items() if lines > 400}


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    machine = re.compile(rb"(?<![\w./-])/(work|root|home/\w+)/\w")
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()[:100].decode(errors='replace')}"
        for file in project_files()
        if (data := file.read_bytes()) and b"\0" not in data[:8000]
        for line in data.splitlines()
        if machine.search(line)
    ]
    assert not found
