"""The page of the claims: tables and pictures of whatever runs there are."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hf_maskssl.evaluation.reports import markdown_table
from hf_maskssl.evaluation.statistics import mean_interval

from .claim import Claim, Comparison
from .runs import Run
from .verdict import NO_DIFFERENCE, OPPOSITE, SHOWN, UNDECIDED, Difference, Ledger

PAPERS = {
    "metamae": "[MetaMAE](https://arxiv.org/abs/2310.16318)",
    "sma": "[SMA](https://arxiv.org/abs/2402.14789)",
    "multimae": "[MultiMAE](https://arxiv.org/abs/2204.01678)",
    "task_robust_pretraining": "[minimax pre-training](https://arxiv.org/abs/2306.12070)",
}
# Okabe and Ito's palette.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
VERDICT_COLORS = {SHOWN: "#009E73", OPPOSITE: "#D55E00", NO_DIFFERENCE: "#0072B2", UNDECIDED: "#999999"}


PICTURES = "evidence"  # folder beside the page


def write_page(ledger: Ledger, pictures: Path | None) -> str:
    """The page's Markdown; its pictures are written to the folder `pictures` unless it is None."""
    parts = [_summary(ledger)]
    for claim in ledger.claims.values():
        found = [difference for difference in ledger.differences(claim) if difference.pairs]
        if found:
            parts.append(_section(ledger, claim, found, pictures))
    return "\n\n".join(parts)


def _summary(ledger: Ledger) -> str:
    """A row for each comparison that has been begun, and one for each claim that has not."""
    rows: list[list[Any]] = []
    for claim in ledger.claims.values():
        title = f"[{claim.title}](#{claim.name}) ({PAPERS.get(claim.paper, claim.paper)}, {claim.source})"
        differences = ledger.differences(claim)
        if not any(one.pairs for one in differences):
            rows.append(
                [
                    title.replace(f"](#{claim.name})", f"](../benchmarks/claims/{claim.name}.yaml)"),
                    "–",
                    "–",
                    "not begun",
                ]
            )
            continue
        for comparison in claim.comparisons:
            found = [one for one in differences if one.comparison is comparison]
            names: dict[str, list[str]] = {}
            for one in found:
                if one.pairs:
                    names.setdefault(_said(one), []).append(one.data_set)
            said = [f"**{verdict}**: {', '.join(sets)}" for verdict, sets in names.items()]
            waiting = sum(not one.pairs for one in found)
            said += [f"{waiting} data set{'s' if waiting > 1 else ''} not begun"] if waiting else []
            rows.append([title, _versus(claim, comparison), comparison.paper or "–", "; ".join(said)])
            title = ""
    return markdown_table(rows, ["claim", "comparison", "the paper's difference", "verdict here, by data set"])


def _section(ledger: Ledger, claim: Claim, found: list[Difference], pictures: Path | None) -> str:
    name = claim.name
    curves = _curves_of(ledger, claim)
    if pictures is not None:
        pictures.mkdir(parents=True, exist_ok=True)
        _forest(claim, found, pictures / f"{name}-differences.png")
        if curves:
            _draw_curves(claim, curves, pictures / f"{name}-curves.png")
    lines = [
        f'<a id="{name}"></a>\n\n### {claim.title}',
        f"{claim.says} ({PAPERS.get(claim.paper, claim.paper)}, {claim.source}.)",
        _scale(ledger, claim),
    ]
    for score in dict.fromkeys(comparison.score for comparison in claim.comparisons):
        table = _scores(ledger, claim, score)
        if table:
            lines.append(f"Test scores, {claim.scores[score].title}; mean and 95 % interval over seeds:\n\n{table}")
    lines.append("Differences, seed by seed; positive where the first is better:\n\n" + _differences(claim, found))
    lines.append(f"![Differences with 95 % intervals]({PICTURES}/{name}-differences.png)")
    if curves:
        lines.append(f"![Validation accuracy over steps and over time]({PICTURES}/{name}-curves.png)")
    if claim.paper_numbers:
        columns = list(dict.fromkeys(column for row in claim.paper_numbers.values() for column in row))
        rows = [[title, *(row.get(column) for column in columns)] for title, row in claim.paper_numbers.items()]
        lines.append("The paper's numbers:\n\n" + markdown_table(rows, ["", *columns]))
    if claim.notes:
        lines.append(claim.notes.strip())
    return "\n\n".join(lines)


def _scale(ledger: Ledger, claim: Claim) -> str:
    results = [result for (run, _), result in ledger.found.items() if run.claim == claim.name]
    devices = Counter(result["device_name"].partition(",")[0] for result in results)
    hours = sum(result["seconds"] for result in results) / 3600
    steps = sorted({result["pretraining"]["steps"] for result in results if result["pretraining"]})
    trials = sum(run.trial is not None for run, _ in ledger.found if run.claim == claim.name)
    where = ", ".join(f"{count} on {name}" for name, count in devices.most_common())
    shared = (
        f" An arm's seeds share {claim.encoder_seeds} pre-trained encoders: intervals are over seeds of the task, on these."
        if claim.encoder_seeds is not None
        else ""
    )
    return (
        f"{len(results)} runs, {trials} of them trials ({where}; {hours:.1f} hours in all), {claim.seeds} seeds planned, "
        f"pre-trained for {', '.join(f'{count:,}' for count in steps)} steps. Settings: "
        f"[claims/{claim.name}.yaml](../benchmarks/claims/{claim.name}.yaml); runs: "
        f"[results/claims/{claim.name}](../benchmarks/results/claims/{claim.name}).{shared}"
    )


def _scores(ledger: Ledger, claim: Claim, score: str) -> str:
    kind, rows = claim.scores[score], []
    for data_set in claim.sets:
        row: list[Any] = [data_set]
        for arm in claim.arms:
            seeds = range(1 if claim.arms[arm].start in ("raw_inputs", "majority") else claim.seeds)
            values = [
                kind.factor * result["scores"]["test"][score]
                for seed in seeds
                for result in ledger.of(Run(claim.name, data_set, arm, seed))
                if score in result["scores"].get("test", {})
            ]
            row.append(dict(zip(("mean", "half_width"), mean_interval(values), strict=True)) if values else None)
        if any(cell is not None for cell in row[1:]):
            rows.append(row)
    return markdown_table(rows, ["data set", *(arm.title for arm in claim.arms.values())]) if rows else ""


def _differences(claim: Claim, found: list[Difference]) -> str:
    rows: list[list[Any]] = []
    for one in found:
        cell = {"mean": one.mean, "half_width": one.half_width}
        score = claim.scores[one.comparison.score]
        pairs = f"{len(one.pairs)} of {claim.seeds}"
        rows.append([_versus(claim, one.comparison), one.data_set, cell, score.margin, pairs, _said(one)])
    return markdown_table(rows, ["difference", "data set", "mean, 95 % interval", "margin", "seeds", "verdict"])


def _said(one: Difference) -> str:
    if not one.pairs:
        return "no pair yet"
    return one.verdict if one.is_final or one.verdict == UNDECIDED else f"{one.verdict} (so far)"


def _versus(claim: Claim, comparison: Comparison) -> str:
    titles = [claim.arms[name].title for name in (comparison.arm, comparison.against)]
    return f"{titles[0]} − {titles[1]}, {claim.scores[comparison.score].title}"


def _forest(claim: Claim, found: list[Difference], path: Path) -> None:
    """Every difference as a point with its interval, one panel for each score, in units of the score."""
    scores = list(dict.fromkeys(one.comparison.score for one in found))
    heights = [sum(one.comparison.score == score for one in found) for score in scores]
    figure = Figure(figsize=(9, 0.8 * len(scores) + 0.24 * sum(heights) + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(scores), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, score in zip(panels, scores, strict=True):
        shown = [one for one in found if one.comparison.score == score]
        margin = claim.scores[score].margin
        axes.axvspan(-margin, margin, color="#eeeeee")
        axes.axvline(0, color="black", linewidth=0.8)
        for place, one in enumerate(shown):
            color = VERDICT_COLORS[one.verdict]
            if one.half_width is None:
                axes.plot(one.mean, place, marker="o", fillstyle="none", color=color)
            else:
                axes.errorbar(one.mean, place, xerr=one.half_width, fmt="o", color=color, capsize=2, markersize=4)
        labels = [
            f"{claim.arms[one.comparison.arm].title} − {claim.arms[one.comparison.against].title}: {one.data_set}"
            for one in shown
        ]
        axes.set_yticks(range(len(shown)), labels, fontsize=8)
        axes.set_ylim(len(shown) - 0.5, -0.5)
        axes.set_xlabel(f"better by, {claim.scores[score].title}", fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        _limit(axes, shown)
    handles = [figure.axes[0].plot([], [], "o", color=color)[0] for color in VERDICT_COLORS.values()]
    figure.legend(handles, VERDICT_COLORS, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def _limit(axes: Axes, shown: Sequence[Difference]) -> None:
    """The widest intervals of two pairs would hide all others: beyond three times the middle one they are cut."""
    widths = [one.half_width for one in shown if one.half_width is not None]
    if widths:
        reach = max(max(abs(one.mean or 0.0) for one in shown), 3 * float(np.median(widths)))
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, -1.5 * reach), min(high, 1.5 * reach))


Curves = dict[str, dict[str, list[list[dict[str, float]]]]]  # data set -> "arm/device" -> a curve for each seed


def _curves_of(ledger: Ledger, claim: Claim) -> Curves:
    curves: Curves = {}
    for (run, device), result in ledger.found.items():
        curve = result["pretraining"].get("curve") if result["pretraining"] else None
        if run.claim == claim.name and run.trial is None and curve:
            curves.setdefault(run.data_set, {}).setdefault(f"{run.arm}/{device}", []).append(curve)
    return curves


def _draw_curves(claim: Claim, curves: Curves, path: Path) -> None:
    """Validation scores over steps (above) and over seconds of training (below)."""
    names = [name for name in claim.sets if name in curves]
    figure = Figure(figsize=(3.6 * len(names) + 0.4, 6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(names), squeeze=False)
    colors = dict(zip(claim.arms, COLORS * 2, strict=False))
    for column, name in enumerate(names):
        starts = [curve[0]["score"] for group in curves[name].values() for curve in group]
        for row in (0, 1):
            panels[row, column].axhline(100 * float(np.mean(starts)), color="black", linestyle=":", linewidth=1)
        for arm in claim.arms:
            groups = {key: group for key, group in curves[name].items() if key.startswith(f"{arm}/")}
            everything = [curve for group in groups.values() for curve in group]
            if everything:
                _band(panels[0, column], [point["step"] for point in everything[0]], everything, colors[arm])
            for key, group in groups.items():
                seconds = np.mean([[point["seconds"] for point in curve] for curve in group], axis=0)
                style = "-" if key.endswith("cpu") else "--"
                values = 100 * np.mean([[point["score"] for point in curve] for curve in group], axis=0)
                panels[1, column].plot(np.maximum(seconds, 0.1), values, style, color=colors[arm])
        means = [
            100 * np.mean([[p["score"] for p in curve] for curve in group], axis=0) for group in curves[name].values()
        ]
        # The intervals of two or three seeds would hide everything else.
        panels[0, column].set_ylim(min(mean.min() for mean in means) - 3, max(mean.max() for mean in means) + 3)
        panels[0, column].set_title(name, fontsize=9)
        panels[0, column].set_xlabel("steps", fontsize=8)
        panels[1, column].set_xlabel("seconds of training (dashed: GPU, shared by several runs)", fontsize=8)
        panels[1, column].set_xscale("symlog", linthresh=1)
    for row in (0, 1):
        panels[row, 0].set_ylabel("linear probe on validation rows, %", fontsize=8)
    shown = [arm for arm in claim.arms if any(key.startswith(f"{arm}/") for one in curves.values() for key in one)]
    handles = [panels[0, 0].plot([], [], color=colors[arm])[0] for arm in shown]
    handles.append(panels[0, 0].plot([], [], ":", color="black")[0])
    titles = [claim.arms[arm].title for arm in shown] + ["untrained"]
    figure.legend(handles, titles, loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path, dpi=120)


def _band(axes: Axes, steps: list[float], curves: list[list[dict[str, float]]], color: str) -> None:
    """The mean over seeds with its 95 % interval."""
    values = 100 * np.array([[point["score"] for point in curve] for curve in curves])
    axes.plot(steps, values.mean(axis=0), color=color)
    if len(values) > 1:
        widths = np.array([mean_interval(column.tolist())[1] for column in values.T])
        axes.fill_between(steps, values.mean(axis=0) - widths, values.mean(axis=0) + widths, color=color, alpha=0.15)
