"""The results of a sweep: JSON, one table with the paper's numbers beside, one plot."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...evaluation.metrics import LOWER_IS_BETTER
from ...evaluation.reports import markdown_table
from ...evaluation.statistics import interval_of, paired_interval
from ...files import JsonObject, JsonView, write_json, write_whole
from ...pictures.sweeps import Course, Series, draw_courses, draw_series
from .execute import FAILURE, RESULT, stored
from .plan import SweepRun
from .sweep_file import PaperNumbers, Setting, Sweep, recipe_label

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collected:
    """A run and what there is of it.

    Attributes:
        run: The run.
        folder: Its folder.
        result: Content of its result; None where there is none.
    """

    run: SweepRun
    folder: Path
    result: JsonView | None


def collect(runs: Sequence[SweepRun], output: Path) -> list[Collected]:
    """The results of all runs of a sweep."""
    return [Collected(run, run.folder(output), stored(run.folder(output) / RESULT)) for run in runs]


def score_names(sweep: Sweep, collected: Sequence[Collected]) -> list[str]:
    """The scores that the table shows, the leading one first; none as long as no run has ended. A warning names a score that the
    sweep asks for and no run has."""
    results = [one.result for one in collected if one.result is not None]
    if not results:
        return []
    names = list(dict.fromkeys(name for result in results for name in result["headline"]))
    if sweep.score is None:
        return names
    known = sorted({name for result in results for name in result["scores"]})
    if sweep.score not in known:
        logger.warning("score: no run has %r, so %r leads the table; expected one of %s", sweep.score, names[0], known)
        return names
    return [sweep.score, *(name for name in names if name != sweep.score)]


def is_share(name: str) -> bool:
    """Whether a score lies between 0 and 1, or -1 and 1, and is shown in per cent."""
    group, _, metric = name.partition("/")
    return group in ("probe", "finetune") and metric not in LOWER_IS_BETTER and metric != "rankme"


def title_of(name: str) -> str:
    """A score's name in tables."""
    return f"{name} (%)" if is_share(name) else name


def summarise(sweep: Sweep, collected: Sequence[Collected]) -> list[JsonObject]:
    """Each setting of each recipe.

    Returns:
        [{"setting", "recipe", "overrides", "scores" {name: {"mean", "half_width"}} over the seeds (95 %, Student's t; in per cent
        where `is_share`), "seconds" and "pretraining_seconds" the same, "runs" [{"seed", "digest", "scores", "seconds", ...}],
        "failed" [{"seed", "error"}], "missing": seeds without a result}].
    """
    found = []
    for setting in sweep.settings():
        for recipe in sweep.recipes:
            own = [one for one in collected if one.run.setting.name == setting.name and one.run.recipe == recipe]
            results = [one.result for one in own if one.result is not None]
            names = [
                name
                for name in (results[0]["scores"] if results else {})
                if all(name in one["scores"] for one in results)
            ]
            kept = (
                "seed",
                "digest",
                "scores",
                "headline",
                "curve",
                "seconds",
                "pretraining_seconds",
                "device",
                "versions",
            )
            entry: JsonObject = {
                "setting": setting.name,
                "recipe": recipe,
                "overrides": setting.overrides,
                "scores": {
                    name: interval_of([one["scores"][name] for one in results], 100 if is_share(name) else 1)
                    for name in names
                },
                "seconds": interval_of([one["seconds"] for one in results]),
                "pretraining_seconds": interval_of(
                    [one["pretraining_seconds"] for one in results if one["pretraining_seconds"] is not None]
                ),
                "runs": [{name: one[name] for name in kept} for one in results],
                "failed": [
                    {"seed": one.run.seed, "error": failure["error"]}
                    for one in own
                    if one.result is None and (failure := stored(one.folder / FAILURE)) is not None
                ],
                "missing": [one.run.seed for one in own if one.result is None],
            }
            found.append(entry)
    return found


def build_table(sweep: Sweep, entries: Sequence[JsonView], names: Sequence[str]) -> JsonObject:
    """The table as {"columns", "rows"}: a row for each setting.

    Of one recipe it has all `names` and the paired difference of the first one to the first setting; of several recipes the
    leading one of each recipe alone, a column each. The paper's columns stand behind.
    """
    leading = leading_scores(sweep, entries, names)
    settings, paper = sweep.settings(), sweep.paper_numbers()
    several = len(sweep.recipes) > 1
    columns = [*sweep.axes]
    if several and names:
        columns += [f"{recipe_label(recipe)}, {title_of(leading[recipe])}" for recipe in sweep.recipes]
    elif names:
        columns += [title_of(name) for name in names]
    has_difference = not several and bool(names) and len(settings) > 1 and len(sweep.seeds) > 1
    columns += [f"minus {settings[0].name}"] if has_difference else []
    columns += [] if paper is None else [f"paper: {column}" for column in paper.values]
    columns += ["seconds", "runs"]
    rows = []
    for setting in settings:
        own = [entry for entry in entries if entry["setting"] == setting.name]
        shown = (
            [entry["scores"].get(leading[entry["recipe"]]) for entry in own if names]
            if several
            else [own[0]["scores"].get(name) for name in names]
        )
        row: list[object] = [*setting.values, *(shown if names else [])]
        if has_difference:
            row.append(None if setting is settings[0] else _difference(entries, own[0], names[0]))
        row += [] if paper is None else [values.get(setting.name) for values in paper.values.values()]
        ended = sum(len(entry["runs"]) for entry in own)
        every = len(sweep.seeds) * len(own)
        row += [_mean_seconds(own), ended if ended == every else f"{ended} of {every}"]
        rows.append(row)
    return {"columns": columns, "rows": rows}


def leading_scores(sweep: Sweep, entries: Sequence[JsonView], names: Sequence[str]) -> dict[str, str]:
    """Recipe -> its leading score: the sweep's where runs have it, else the recipe's own; empty as long as no run has ended."""
    if not names:
        return {}
    leading = dict.fromkeys(sweep.recipes, names[0])
    for entry in entries:
        for run in entry["runs"]:
            if names[0] != sweep.score:
                leading[entry["recipe"]] = run["headline"][0]
    return leading


def _difference(entries: Sequence[JsonView], own: JsonView, name: str) -> JsonObject | None:
    """The score minus that of the first setting, paired by seed."""
    first, second = ({run["seed"]: run["scores"].get(name) for run in entry["runs"]} for entry in (entries[0], own))
    seeds = [seed for seed in first if first[seed] is not None and second.get(seed) is not None]
    if not seeds:
        return None
    factor = 100 if is_share(name) else 1
    mean, half_width = paired_interval(
        [factor * first[seed] for seed in seeds], [factor * second[seed] for seed in seeds]
    )
    return {"mean": mean, "half_width": half_width}


def _mean_seconds(entries: Sequence[JsonView]) -> float | None:
    seconds = [run["seconds"] for entry in entries for run in entry["runs"]]
    return round(sum(seconds) / len(seconds), 1) if seconds else None


def write_report(name: str, sweep: Sweep, collected: Sequence[Collected], output: Path) -> JsonObject:
    """Write results.json, results.md and, once a run has ended, results.png; returns the content of results.json."""
    names, paper = score_names(sweep, collected), sweep.paper_numbers()
    entries = summarise(sweep, collected)
    table = build_table(sweep, entries, names)
    results: JsonObject = {
        "sweep": name,
        "title": sweep.title,
        "recipes": sweep.recipes,
        "finetune_recipe": sweep.finetune_recipe,
        "verbs": list(sweep.verbs),
        "seeds": sweep.seeds,
        "overrides": sweep.common_overrides,
        "reduced": sorted(sweep.reduced),
        "score": names[0] if names else None,
        "settings": entries,
        "paper": None if paper is None else {"source": paper.source, "what": paper.what, "values": paper.values},
        "table": table,
        "notes": sweep.notes,
    }
    has_picture = bool(names)
    if has_picture:
        draw(sweep, entries, leading_scores(sweep, entries, names), output / "results.png")
    text = markdown(name, sweep, results, has_picture)
    write_whole(output / "results.md", lambda aside: aside.write_text(text, encoding="utf-8"))
    write_json(output / "results.json", results)
    return results


def markdown(name: str, sweep: Sweep, results: JsonView, has_picture: bool) -> str:
    """The page of the results."""
    changes = ", ".join(f"{field} {value!r}" for field, value in sweep.common_overrides.items())
    recipes = ", ".join(
        f"`{recipe}`" for recipe in [*sweep.recipes, *([sweep.finetune_recipe] if sweep.finetune_recipe else [])]
    )
    lines = [
        f"# {sweep.title or name}",
        "",
        f"Recipe: {recipes}{f', with {changes}' if changes else ''}. Each run does {', '.join(sweep.verbs)}; seeds "
        f"{', '.join(map(str, sweep.seeds))}. Means over the seeds with 95 % t intervals, differences paired by seed; seconds of "
        "a run on this machine.",
        "",
        markdown_table(results["table"]["rows"], results["table"]["columns"]),
        "",
    ]
    if sweep.reduced:
        lines += [f"Reduced, so that it takes minutes: {', '.join(sweep.reduced)}; --recipe names other recipes.", ""]
    if results["paper"] is not None:
        lines += [
            f"The paper's numbers: {results['paper']['source']}, {results['paper']['what']}. They are of other data and sizes "
            "where the recipe is not the paper's: the order can be compared, the values cannot.",
            "",
        ]
    failed = [(entry, failure) for entry in results["settings"] for failure in entry["failed"]]
    if failed:
        lines += ["Failed:", ""]
        lines += [
            f"- {entry['setting']}, {entry['recipe']}, seed {one['seed']}: {one['error']}" for entry, one in failed
        ]
        lines += [""]
    if sweep.notes:
        lines += [sweep.notes.strip(), ""]
    if has_picture:
        lines += ["![The scores of the settings](results.png)", ""]
    return "\n".join(lines).rstrip() + "\n"


def draw(sweep: Sweep, entries: Sequence[JsonView], leading: Mapping[str, str], path: Path) -> None:
    """Draw curves over time where the sweep asks for them, else the leading score of each setting, beside the paper's; a panel
    for each score."""
    if sweep.curve_points:
        draw_courses(*_courses(sweep, entries), path, sweep.title)
        return
    settings, paper = sweep.settings(), sweep.paper_numbers()
    panels = {
        title_of(score): _series([one for one in sweep.recipes if leading[one] == score], settings, entries, score)
        for score in dict.fromkeys(leading.values())
    }
    if paper is not None:
        panels[f"{paper.source}: {paper.what}"] = _paper_series(paper, settings)
    has_one_axis = len(sweep.axes) == 1
    draw_series(
        panels,
        [setting.values[0] if has_one_axis else setting.name for setting in settings],
        path,
        sweep.title,
        sweep.numbers_of_axis(),
        sweep.axes[0] if has_one_axis and not sweep.cases else "",
    )


def _series(
    recipes: Sequence[str], settings: Sequence[Setting], entries: Sequence[JsonView], score: str
) -> list[Series]:
    found = []
    for recipe in recipes:
        own = {entry["setting"]: entry["scores"].get(score) for entry in entries if entry["recipe"] == recipe}
        found.append(Series(recipe_label(recipe), [own[setting.name] for setting in settings]))
    return found


def _paper_series(paper: PaperNumbers, settings: Sequence[Setting]) -> list[Series]:
    return [
        Series(
            column,
            [
                None if values.get(setting.name) is None else {"mean": values[setting.name], "half_width": None}
                for setting in settings
            ],
        )
        for column, values in paper.values.items()
    ]


def _courses(sweep: Sweep, entries: Sequence[JsonView]) -> tuple[list[Course], str]:
    """The curve of each setting of each recipe, at each probe the mean time and the mean score over the seeds; and the scores'
    titles."""
    several = len(sweep.recipes) > 1
    found, titles = [], []
    for entry in entries:
        curves = [run["curve"] for run in entry["runs"] if run["curve"]]
        if curves:
            points = list(zip(*curves, strict=True))
            seconds = [sum(one["seconds"] for one in point) / len(point) for point in points]
            score = curves[0][0]["name"]
            titles.append(title_of(score))
            factor = 100 if is_share(score) else 1
            found_scores = (interval_of([one["score"] for one in point], factor) for point in points)
            scores = [one for one in found_scores if one is not None]
            name = f"{recipe_label(entry['recipe'])}, {entry['setting']}" if several else entry["setting"]
            found.append(Course(name, seconds, scores))
    return found, " or ".join(dict.fromkeys(titles))
