"""What `streamseg bench engine` measured, for people: a table for the terminal, and one in Markdown. No thread."""

from __future__ import annotations

from typing import Any

from streamseg.bench import machine

COLUMNS = (
    "name",
    "backend",
    "precision",
    "threads",
    "batch",
    "size",
    "smoothing",
    "mIoU %",
    "p50_ms",
    "p95_ms",
    "p99_ms",
)
OPTIONAL = ("graph_ms", "labels_ms", "frames_s", "cost_percent")
ON_GPU = {
    "p50_ms": "with transfers p50",
    "p95_ms": "p95",
    "p99_ms": "p99",
    "ahead_ms": "overlapping",
    "ahead_frames_s": "frames/s",
    "work_p50_ms": "without p50",
    "work_p95_ms": "without p95",
    "work_p99_ms": "without p99",
    "kernels_ms": "kernels",
    "floor_ms": "floor",
    "of_floor": "x floor",
}
"""Columns of the table of GPU programs: milliseconds a batch."""


def table(report: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a combination, with every column."""
    rows = [row | {"mIoU %": _percent(row["miou"])} for row in report["results"]]
    return [{key: row.get(key) for key in (*COLUMNS, *OPTIONAL)} for row in rows]


def on_gpu(report: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a GPU program; none where none was measured."""
    rows = [row for row in report["results"] if "ahead_ms" in row]
    first = ("name", "backend", "precision", "batch", "size", "smoothing")
    return [{key: row[key] for key in first} | {title: row.get(key) for key, title in ON_GPU.items()} for row in rows]


def above(report: dict[str, Any]) -> str:
    """The machine, and what the table's columns are."""
    lines = [
        machine.text(report["machine"]),
        f"ms a batch, {report['runs']} runs each: u8 frames in host memory to label maps in host memory, both transfers"
        " included where there are any; cost: of smoothing, in percent of the time without",
    ]
    return "\n".join(lines)


def above_gpu(report: dict[str, Any]) -> str:
    """What the columns of the GPU's table are, and the rates that its floor was made of."""
    rates = [
        f"{each['copy_bytes_s'] / 1e12:.2f} TB/s copied (read and written), {each['matrix_ops_s'] / 1e12:.0f} T{name}/s"
        for name, each in report["ceilings"].items()
    ]
    lines = [
        "on the GPU, ms a batch. with transfers: one batch after the other; overlapping: the next one under way, as in",
        "the pipeline, and its frames/s; without: the graph alone; kernels: their sum without gaps; floor: every",
        f"convolution at the slower of the two rates, which were measured here: {', '.join(rates) or 'none'}",
    ]
    if seen := report["gpu"]:
        held = f"; held back by: {', '.join(seen['held_back'])}" if seen["held_back"] else "; not held back"
        lines.append(f"at most {seen['power_w']} W and {seen['celsius']} °C, at least {seen['least_sm_mhz']} MHz{held}")
    return "\n".join(lines)


def markdown(report: dict[str, Any]) -> str:
    """A line for each engine, backend, precision and way of smoothing; the threads side by side; what it was measured
    with below. Accuracy stands beside `off` alone where that was measured, as it is of single pictures."""
    threads = sorted({row["threads"] for row in report["results"]})
    several = len({row["smoothing"] for row in report["results"]}) > 1
    titles = ["engine", "classes", "parameters", "GMAC", "MB", "mIoU %", "of", "backend", "precision"]
    titles += ["smoothing"] * several + [f"ms, {n} thread{'s' if n > 1 else ''}" for n in threads]
    lines: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in report["results"]:
        key = (row["engine"], row["backend"], row["precision"], row["smoothing"], row["size"], row["batch"])
        lines.setdefault(key, {"row": row, "ms": {}})["ms"][row["threads"]] = row["median_ms"] / row["batch"]
    body = [_line(each["row"], [each["ms"].get(n) for n in threads], several) for each in lines.values()]
    right = {"classes", "parameters", "GMAC", "MB", "mIoU %", *titles[-len(threads) :]}
    rule = ["---:" if title in right else "---" for title in titles]
    sizes = ", ".join(dict.fromkeys(row["size"] for row in report["results"]))
    below = f"Milliseconds from a picture in memory to its label map at {sizes}, median of {report['runs']} runs"
    rows = "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, rule, *body))
    return f"{rows}\n\n{below}; {report['cpu']}."


def _line(row: dict[str, Any], ms: list[float | None], several: bool) -> list[str]:
    name = f"{row['name']}{' (published)' * (row['origin'] == 'published')}"
    return [
        name,
        str(row["classes"]),
        f"{row['parameters'] / 1e6:.2f} M",
        "-" if row["gmac"] is None else f"{row['gmac']:.2f}",
        f"{row['bytes'] / 1e6:.1f}",
        _percent(row["miou"]) or "-",
        row["miou_of"] or "-",
        row["backend"],
        row["precision"] + (f", {row['batch']} at once" if row["batch"] > 1 else ""),
        *[row["smoothing"]] * several,
        *("-" if value is None else f"{value:.1f}" for value in ms),
    ]


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f}"
