"""The study's table and plots.

python studies/report.py --results out/variants/results.json --plot docs/images/variants.svg
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

INK, DOT, MARK = "#444444", "#3f7fd0", "#d1495b"
KINDS = {"inside": "inside latent frames", "latents": "between them", "chunks": "between chunks"}


def figures(row: dict[str, Any], start: dict[str, Any]) -> dict[str, float]:
    """One value each, of all clips. *_more: how much more of an error than the start's; *_sure: the standard error of
    that, clip by clip. Errors and amounts of change are over the truth's change."""
    clips, before = ({name: np.array(values) for name, values in one["clips"].items()} for one in (row, start))
    long = row["long"]
    found = {
        "updates": row.get("updates", 0),
        "lips_r": np.nanmean(clips["lips_r"]),
        "motion": clips["motion_made"].sum() / clips["motion_true"].sum(),
        "drift_distance": long["distance_late"] / long["distance_early"],
        "drift_error": long["error_late"] / long["error_early"],
        "chunk_ms": row["chunk_ms"],
    }
    units = {"x0": ("x0", 1.0)}
    for kind in KINDS:
        true = clips[f"{kind}_true"].mean()
        found[f"{kind}_made"] = clips[f"{kind}_made"].mean() / true
        units[kind] = f"{kind}_error", true
    for name, (measured, unit) in units.items():
        more = (clips[measured] - before[measured]) / unit
        found |= {
            name: clips[measured].mean() / unit,
            f"{name}_more": more.mean(),
            f"{name}_sure": more.std(ddof=1) / len(more) ** 0.5,
        }
    return {name: float(value) for name, value in found.items()}


def line(row: dict[str, Any]) -> str:
    """A row in short, for the eye."""
    found = ", ".join(f"{name} {value:.4g}" for name, value in figures(row, row).items())
    return f"{found}; at the end of training {row.get('end')}; failed: {row.get('failed')}"


def table(results: dict[str, Any]) -> str:
    """Markdown."""
    titles = ["", "updates", "x0 error", *(f"error of change {said}" for said in KINDS.values())]
    titles += ["change, of the three kinds", "lips r", "motion", "late: distance, x0 error", "ms a chunk"]
    lines = [titles, ["---"] * len(titles)]
    for name, row in results.items():
        f = figures(row, results["start"])
        changed = {error: f" ({f[f'{error}_more']:+.4f} ± {f[f'{error}_sure']:.4f})" for error in ("x0", *KINDS)}
        lines.append(
            [
                row["said"],
                f"{f['updates']:.0f}",
                *(f"{f[error]:.3f}{'' if name == 'start' else more}" for error, more in changed.items()),
                ", ".join(f"{f[f'{kind}_made']:.2f}" for kind in KINDS),
                f"{f['lips_r']:.3f}",
                f"{f['motion']:.2f}",
                f"{f['drift_distance']:.3f}, {f['drift_error']:.3f}",
                f"{f['chunk_ms']:.0f}",
            ]
        )
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def plot(results: dict[str, Any], path: Path) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    start = results["start"]
    rows = [figures(row, start) for row in results.values()]
    panels = {
        "x0 error": ("x0", None),
        "error of the change inside latent frames": ("inside", None),
        "error of the change between chunks": ("chunks", None),
        "change inside latent frames, over the truth's": ("inside_made", 1.0),
        "change between chunks, over the truth's": ("chunks_made", 1.0),
        "lips, r": ("lips_r", None),
        "x0 error after two minutes, over before": ("drift_error", 1.0),
        "ms of one core for a chunk": ("chunk_ms", None),
    }
    said = [row["said"] for row in results.values()]
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "variants", "font.size": 8, "font.family": "sans-serif"}):
        canvas = Figure(figsize=(12, 1.2 + 0.44 * len(rows)), layout="constrained")
        for axes, (title, (name, ideal)) in zip(canvas.subplots(2, 4, sharey=True).flat, panels.items(), strict=True):
            values, places = np.array([row[name] for row in rows]), np.arange(len(rows))
            sure = [row[f"{name}_sure"] for row in rows] if f"{name}_sure" in rows[0] else None
            axes.errorbar(values, places, xerr=sure, fmt="o", color=DOT, ecolor=INK, markersize=5)
            axes.axvline(ideal or values[0], color=MARK, linewidth=1)
            # Differences of a few in a thousand are not to look like a landslide.
            near, far = min(*values, ideal or values[0]), max(*values, ideal or values[0])
            room = max(0.1 * (far - near), 0.03 * far)
            axes.set_xlim(near - room, far + room)
            axes.set_yticks(places, said)
            axes.set_title(title, fontsize=8, color=INK)
            axes.tick_params(colors=INK, length=2)
            axes.grid(color=INK, alpha=0.12)
            axes.spines[["top", "right"]].set_visible(False)
        canvas.axes[0].invert_yaxis()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        canvas.savefig(path, format=path.suffix[1:], facecolor="white", metadata=nothing)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True)
    parser.add_argument("--plot", type=Path, required=True)
    given = parser.parse_args()
    results = json.loads(given.results.read_text())
    print(table(results))
    plot(results, given.plot)


if __name__ == "__main__":
    main()
