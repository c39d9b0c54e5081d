"""What `streamseg bench engine` measured, for people: a table for the terminal, and one in Markdown. No thread."""

from __future__ import annotations

from typing import Any

COLUMNS = ("name", "backend", "precision", "threads", "size", "smoothing", "mIoU %", "median_ms", "min_ms", "graph_ms")
OPTIONAL = ("labels_ms", "cost_percent", "cost_min_percent")


def table(report: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a combination, with every column."""
    rows = [row | {"mIoU %": _percent(row["miou"])} for row in report["results"]]
    return [{key: row.get(key) for key in (*COLUMNS, *OPTIONAL)} for row in rows]


def markdown(report: dict[str, Any]) -> str:
    """A line for each engine, backend, precision and way of smoothing; the threads side by side; what it was measured
    with below. Accuracy stands beside `off` alone where that was measured, as it is of single pictures."""
    threads = sorted({row["threads"] for row in report["results"]})
    several = len({row["smoothing"] for row in report["results"]}) > 1
    titles = ["engine", "classes", "parameters", "GMAC", "MB", "mIoU %", "of", "backend", "precision"]
    titles += ["smoothing"] * several + [f"ms, {n} thread{'s' if n > 1 else ''}" for n in threads]
    lines = {}
    for row in report["results"]:
        key = (row["engine"], row["backend"], row["precision"], row["smoothing"], row["size"])
        lines.setdefault(key, {"row": row, "ms": {}})["ms"][row["threads"]] = row["median_ms"]
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
        row["precision"],
        *[row["smoothing"]] * several,
        *("-" if value is None else f"{value:.1f}" for value in ms),
    ]


def _percent(share: float | None) -> str | None:
    return None if share is None else f"{100 * share:.1f}"
