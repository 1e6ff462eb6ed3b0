"""Missing values as masks against means in their place, in the same model, and holes filled in; paired by seed.

    python benchmarks/missing.py [--sets NAME ...] [--shares 30 ...] [--seeds 0 1 2 3 4] [--steps 600] [--ceiling] [--tables_only]

Of each set a share of the values is removed, one by one ("single"), in runs of neighbouring columns or time steps of a
channel ("blocks"), or in runs of time steps of all channels, as loggers fail ("steps"), in the rows of pre-training, of the
probe's training and of the test alike. The same model is then pre-trained and probed on the holed rows ("mask"), and on the
rows with the mean, or the commonest category, of the holed training rows in every hole ("mean"). Beside them stand
scikit-learn's HistGradientBoosting on the holed raw rows, which reads holes and categories, and the error of filling holes
in the test rows, whose values are known: by the model of "mask", means, five nearest neighbours and IterativeImputer. The
table "mixed" is generated (`mixed_table`), so that as many rows as one likes tell what its holes cost at best
(`--ceiling`). Runs with a result in benchmarks/results/missing are left out.
"""

import dataclasses
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import torch
from common import RECIPES, RESULTS, begin, interval, read_runs, seeded_parser
from matplotlib.figure import Figure
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.experimental import enable_iterative_imputer  # noqa: F401  (makes IterativeImputer known)
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from hf_maskssl import impute
from hf_maskssl.evaluation.features import extract_features
from hf_maskssl.evaluation.probe import linear_probe
from hf_maskssl.files import write_json
from hf_maskssl.pictures.figures import grouped_bars
from hf_maskssl.training import Pretrainer, PretrainingRecipe, load_pretraining_recipe

RUNS = RESULTS / "missing"
CEILING = RESULTS / "missing_ceiling.json"
CEILING_ROWS = {"train": 300_000, "test": 50_000}
USUAL_STEPS = 600
SETS = ("higgs_small", "japanese_vowels", "basic_motions", "mixed")
SHARES = (0, 10, 30, 50)
SINGLE, BLOCKS, STEPS = PATTERNS = ("single", "blocks", "steps")
SERIES = ("japanese_vowels", "basic_motions")  # of several channels, so that "steps" differs from "blocks"
VARIANTS = {"mask": "masked", "mean": "means in the holes", "trees": "HistGradientBoosting"}
FILLERS = {"model": "the model", "mean": "means", "neighbours": "5 nearest rows", "iterative": "IterativeImputer"}
MEAN_BLOCK = 4  # columns or time steps
BATCH_SIZES = {"higgs_small": 128, "mixed": 128, "japanese_vowels": 40, "basic_motions": 40}
MOST_ITERATIVE = 64  # columns of IterativeImputer, whose time grows with their square
MIXED_ROWS = {"train": 3000, "test": 1000}
NUMBERS, CATEGORIES = ("a", "b", "c", "d", "income"), ("plan", "region", "active", "colour")
LABEL = "label"


@dataclass
class Rows:
    """A split: values (n, C, T) float64, of categories their class numbers, and labels (n,)."""

    values: np.ndarray
    labels: np.ndarray


def mixed_rows(count: int, seed: int) -> Rows:
    """Rows of `mixed_table`."""
    table = mixed_table(count, seed)
    return Rows(table.drop(columns=LABEL).to_numpy(dtype=np.float64)[:, None], table[LABEL].to_numpy())


def mixed_table(rows: int, seed: int) -> pd.DataFrame:
    """Rows drawn by a stated rule: three hidden normal numbers decide five numbers, four categories and the label.

    a, b, c are the hidden numbers and d their sum, with noise of 0.5; income is exp(hidden 1 + noise). plan and region are the
    likeliest of three and six fixed directions, active and colour come from the second and third number, each replaced by another
    at random in one of ten rows. The label says whether hidden 1 x hidden 2 + hidden 3 is above 0.
    """
    random, fixed = np.random.default_rng(seed), np.random.default_rng(0)
    hidden = random.normal(size=(rows, 3))
    noise = random.normal(0.0, 0.5, (rows, 5))
    numbers = np.column_stack([hidden, hidden.sum(1), np.exp(hidden[:, 0] + noise[:, 4])])
    numbers[:, :4] += noise[:, :4]
    classes = [
        (hidden @ fixed.normal(size=(3, 3))).argmax(1),
        (hidden @ fixed.normal(size=(3, 6))).argmax(1),
        (hidden[:, 1] > 0).astype(int),
        np.digitize(hidden[:, 2], [-1.0, 0.0, 1.0]),
    ]
    table = pd.DataFrame(numbers, columns=list(NUMBERS))
    for name, values in zip(CATEGORIES, classes, strict=True):
        count = values.max() + 1
        drawn = np.where(random.random(rows) < 0.1, random.integers(0, count, rows), values)
        table[name] = drawn
    table[LABEL] = (hidden[:, 0] * hidden[:, 1] + hidden[:, 2] > 0).astype(int)
    return table


def read_set(name: str) -> dict[str, Rows]:
    """Training and test rows of a set, complete."""
    found = {}
    for number, (split, count) in enumerate(MIXED_ROWS.items()):
        if name == "mixed":
            found[split] = mixed_rows(count, 1 + number)
            continue
        folder = name if name == "higgs_small" else f"timeseries/{name}"
        table = pd.read_parquet(Path(os.environ["HF_MASKSSL_SHARED"], "data", folder, f"{split}.parquet"))
        if "series" in table:
            values = np.stack([np.stack(list(row)) for row in table["series"]]).astype(np.float64)
        else:
            values = table.drop(columns=LABEL).to_numpy(dtype=np.float64)[:, None]
        found[split] = Rows(values, table[LABEL].to_numpy())
    return found


def holes(shape: tuple[int, ...], share: float, pattern: str, seed: int) -> np.ndarray:
    """(n, C, T) bool, True = removed; every row keeps something."""
    random = np.random.default_rng(seed)
    if pattern == STEPS:
        return np.broadcast_to(holes((shape[0], 1, shape[2]), share, BLOCKS, seed), shape)
    if pattern == SINGLE:
        removed = random.random(shape) < share
    else:  # in each channel, runs of geometric length whose starts give the share in the mean
        before = 8 * MEAN_BLOCK  # runs may begin before the first value
        wider = (*shape[:-1], before + shape[-1])
        starts = random.random(wider) < -np.log1p(-share) / MEAN_BLOCK
        place = np.arange(wider[-1])
        ends = np.where(starts, place + random.geometric(1 / MEAN_BLOCK, wider), 0)
        removed = (np.maximum.accumulate(ends, axis=-1) > place)[..., before:]
    empty = removed.all(axis=(1, 2))
    removed[empty, 0, 0] = False
    return removed


def holed_rows(whole: dict[str, Rows], share: int, pattern: str, seed: int) -> dict[str, Rows]:
    """Both splits with `share` per cent of their values removed."""
    found = {}
    for number, (split, rows) in enumerate(whole.items()):
        removed = holes(rows.values.shape, share / 100, pattern, 2 * seed + number)
        found[split] = Rows(np.where(removed, np.nan, rows.values), rows.labels)
    return found


def frame_of(values: np.ndarray, labels: np.ndarray, is_mixed: bool) -> pd.DataFrame:
    """Rows as they are written to the file that a recipe reads."""
    if values.shape[1] > 1:
        return pd.DataFrame({"series": [[list(one) for one in row] for row in values], LABEL: labels})
    names = [*NUMBERS, *CATEGORIES] if is_mixed else [f"f{column}" for column in range(values.shape[2])]
    table = pd.DataFrame(values[:, 0], columns=names)
    for name in CATEGORIES if is_mixed else ():
        table[name] = [None if np.isnan(value) else f"{name} {value:.0f}" for value in table[name]]
    return table.assign(**{LABEL: labels})


def recipe_of(
    name: str, folder: Path, steps: int, seed: int, changes: Mapping[str, str] = MappingProxyType({})
) -> PretrainingRecipe:
    """The recipe of a set, on the files of a folder; that of the mixed table is higgs_small's with its columns."""
    settings: dict[str, Any] = {"training.seed": seed, "training.output_dir": folder / "run"}
    settings |= {"training.max_steps": steps, "training.warmup_steps": steps // 10}
    settings |= {"training.batch_size": BATCH_SIZES[name]}
    settings |= {"training.save_steps": 0, "training.picture_steps": 0, "training.quiet": "true"}
    settings |= {"training.logging_steps": max(1, steps // 5), "probe.every_steps": 0}
    settings |= {"data.data_dir": folder, "data.cache": "false"}
    if name == "mixed":
        counts = [0] * len(NUMBERS) + [3, 6, 2, 4]
        settings |= {"model.series_length": len(counts), "model.category_counts": counts}
        settings |= {"data.quantile_columns": "[income]"}
    settings |= changes
    overrides = [word for field, value in settings.items() for word in (f"--{field}", str(value))]
    recipe = "higgs_small" if name == "mixed" else name
    return load_pretraining_recipe(RECIPES / f"{recipe}.yaml", overrides)


def pretrained(
    name: str,
    rows: dict[str, Rows],
    folder: Path,
    steps: int,
    seed: int,
    changes: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Pretrainer, float]:
    """A run on these rows, and the test accuracy of a linear probe on its frozen features."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, part in rows.items():
        frame_of(part.values, part.labels, name == "mixed").to_parquet(folder / f"{split}.parquet", index=False)
    trainer = Pretrainer(recipe_of(name, folder, steps, seed, changes))
    state = trainer.run()
    if state.interrupted:
        raise SystemExit(f"{name}: interrupted at step {state.step}; nothing is written down.")
    prepared: Any = trainer.prepared
    encoder = trainer.bare_model.base_model
    train, test = (extract_features(encoder, part, prepared.collator) for part in (prepared.train, prepared.test))
    args = dataclasses.replace(trainer.recipe.probe, solver="exact")
    return trainer, linear_probe(train, test, trainer.recipe.data.task, args, seed)["accuracy"]


def is_category(name: str, columns: int) -> np.ndarray:
    """(columns,) bool."""
    flags = np.zeros(columns, dtype=bool)
    if name == "mixed":
        flags[len(NUMBERS) :] = True
    return flags


def fill_plainly(rows: Rows, train: Rows, categories: np.ndarray) -> Rows:
    """Means of the training rows in the holes; of categories the commonest."""
    flat = train.values.reshape(len(train.values), *train.values.shape[1:])
    values = rows.values.copy()
    by_step = flat.shape[1] == 1  # a table: each column has its own
    for channel in range(flat.shape[1]):
        for step in range(flat.shape[2]) if by_step else (slice(None),):
            observed = flat[:, channel, step][~np.isnan(flat[:, channel, step])]
            if by_step and categories[step]:
                found = np.bincount(observed.astype(int)).argmax()
            else:
                found = observed.mean()
            part = values[:, channel, step]
            values[:, channel, step] = np.where(np.isnan(part), found, part)
    return Rows(values, rows.labels)


def trees(rows: dict[str, Rows], categories: np.ndarray, seed: int) -> float:
    """Test accuracy of gradient boosting on the holed raw rows."""
    flat = {split: part.values.reshape(len(part.values), -1) for split, part in rows.items()}
    flags = categories if len(categories) == flat["train"].shape[1] else None
    # scikit-learn's 20 rows a leaf leave a set of 40 rows without a single cut.
    leaf = max(1, min(20, len(flat["train"]) // 20))
    model = HistGradientBoostingClassifier(min_samples_leaf=leaf, categorical_features=flags, random_state=seed)
    model.fit(flat["train"], rows["train"].labels)
    return float(model.score(flat["test"], rows["test"].labels))


def filling_errors(
    trainer: Pretrainer, holed: dict[str, Rows], whole: Rows, categories: np.ndarray
) -> dict[str, dict[str, float]]:
    """Filler -> the error on removed test values: of numbers in standard deviations, of categories the share that is wrong."""
    shape = whole.values.shape
    flat = {split: part.values.reshape(len(part.values), -1) for split, part in holed.items()}
    removed, truth = np.isnan(flat["test"]), whole.values.reshape(len(whole.values), -1)
    flags = categories if len(categories) == truth.shape[1] else np.zeros(truth.shape[1], dtype=bool)
    processor: Any = trainer.prepared.processor
    model: Any = trainer.bare_model
    data: Any = holed["test"].values
    if shape[1] == 1:
        data = frame_of(data, holed["test"].labels, bool(flags.any())).drop(columns=LABEL)
    filled = impute(model, data, processor, hidden_share=0.0).data
    if isinstance(filled, pd.DataFrame):
        for name in CATEGORIES if flags.any() else ():
            filled[name] = [float(word.rpartition(" ")[2]) for word in filled[name]]
        filled = filled.to_numpy(dtype=np.float64)
    found = {"model": np.asarray(filled, dtype=np.float64).reshape(truth.shape)}
    fillers: dict[str, Callable[[], Any]] = {"mean": SimpleImputer, "neighbours": lambda: KNNImputer(n_neighbors=5)}
    if truth.shape[1] <= MOST_ITERATIVE:
        fillers["iterative"] = lambda: IterativeImputer(random_state=0)
    deviation = np.nanstd(flat["train"], axis=0) + 1e-9
    for name, make in fillers.items():
        scaled = {split: values / deviation for split, values in flat.items()}
        given = make().fit(scaled["train"]).transform(scaled["test"]) * deviation
        if name == "mean":
            plain = fill_plainly(holed["test"], holed["train"], categories).values.reshape(truth.shape)
            given = np.where(flags, plain, given)
        found[name] = np.where(flags, given.round(), given)
    errors = {}
    for name, guess in found.items():
        squares = ((guess - truth) / deviation) ** 2
        errors[name] = {"numbers": float(np.sqrt(squares[removed & ~flags].mean()))}
        if (removed & flags).any():
            errors[name]["categories"] = float((guess != truth)[removed & flags].mean())
    return errors


def measure(name: str, share: int, pattern: str, seed: int, steps: int) -> None:
    """All variants of one set, share, pattern and seed; one file."""
    longer = "" if steps == USUAL_STEPS else f"-{steps}"
    path = RUNS / f"{name}-{pattern}-{share}-{seed}{longer}.json"
    if path.exists():
        return
    started = time.perf_counter()
    whole = read_set(name)
    categories = is_category(name, whole["train"].values.shape[2])
    holed = holed_rows(whole, share, pattern, seed)
    filled = {split: fill_plainly(rows, holed["train"], categories) for split, rows in holed.items()}
    with tempfile.TemporaryDirectory() as folder:
        trainer, masked = pretrained(name, holed, Path(folder, "mask"), steps, seed)
        _, plain = pretrained(name, filled, Path(folder, "mean"), steps, seed) if share else (None, masked)
        errors = filling_errors(trainer, holed, whole["test"], categories) if share else {}
    result = {
        "data_set": name,
        "share": share,
        "pattern": pattern,
        "seed": seed,
        "steps": steps,
        "removed": float(np.mean([np.isnan(rows.values).mean() for rows in holed.values()])),
        "scores": {"mask": masked, "mean": plain, "trees": trees(holed, categories, seed)},
        "errors": errors,
        "seconds": round(time.perf_counter() - started, 1),
    }
    write_json(path, result)
    print(f"{path.stem}: {result['scores']}, {result['seconds']} s", flush=True)


def measure_ceiling() -> None:
    """What holes cost on the mixed table at best: test accuracy of gradient boosting that learned from 300,000 rows."""
    categories, rows = is_category("mixed", len(NUMBERS) + len(CATEGORIES)), []
    for pattern in PATTERNS:
        for share in SHARES:
            if pattern == STEPS or (not share and pattern != SINGLE):
                continue  # nothing removed is the same in all; a table has no steps
            parts = {}
            for number, (split, count) in enumerate(CEILING_ROWS.items()):
                whole = mixed_rows(count, 100 + number)
                removed = holes(whole.values.shape, share / 100, pattern, 100 + number)
                parts[split] = Rows(np.where(removed, np.nan, whole.values)[:, 0], whole.labels)
            model = HistGradientBoostingClassifier(
                max_iter=400, max_leaf_nodes=63, categorical_features=categories, early_stopping=True, random_state=0
            ).fit(parts["train"].values, parts["train"].labels)
            score = float(model.score(parts["test"].values, parts["test"].labels))
            rows.append([pattern, share, round(100 * score, 2)])
            print(f"ceiling, {pattern} {share} %: {score:.4f}", flush=True)
    write_json(CEILING, {"columns": ["removed", "%", "300,000 rows, HistGradientBoosting"], "rows": rows})


def write_tables() -> None:
    """benchmarks/results/missing.json and .png from whatever runs have ended."""
    runs = read_runs(RUNS)
    keys = sorted({(run["data_set"], run["pattern"], run["share"], run["steps"]) for run in runs})
    accuracy, filling = [], []
    for key in keys:
        own = [run for run in runs if (run["data_set"], run["pattern"], run["share"], run["steps"]) == key]
        scores = [[run["scores"][name] for run in own] for name in VARIANTS]
        difference = [run["scores"]["mask"] - run["scores"]["mean"] for run in own]
        accuracy.append([*key, len(own), *map(interval, scores), interval(difference)])
        for kind, factor in (("numbers", 1), ("categories", 100)):
            errors = {
                name: [run["errors"][name][kind] for run in own if kind in run["errors"].get(name, {})]
                for name in FILLERS
            }
            if any(errors.values()):
                filling.append([*key, len(own), kind, *(interval(values, factor) for values in errors.values())])
    first = ["data set", "removed", "%", "steps", "seeds"]
    tables = {
        "accuracy": {"columns": [*first, *VARIANTS.values(), "masked - means"], "rows": accuracy},
        "filling": {"columns": [*first, "values", *FILLERS.values()], "rows": filling},
    }
    if CEILING.exists():
        tables["ceiling"] = json.loads(CEILING.read_text(encoding="utf-8"))
    write_json(
        RESULTS / "missing.json",
        {
            "what": "test accuracy in per cent of frozen features on rows with holes; and the error of filling them: of numbers "
            "in standard deviations, of categories the share in per cent that is wrong; means and 95 % intervals",
            "table": tables["accuracy"],
            "tables": tables,
            "hardware": "CPU, one thread, float32",
            "versions": {"torch": torch.__version__},
        },
    )
    draw([row for row in accuracy if row[3] == USUAL_STEPS])


def draw(accuracy: list[list[Any]]) -> None:
    """A panel for each set: bars of each pattern and share, one a variant; and a line of what complete rows give."""
    names = [name for name in SETS if any(row[0] == name for row in accuracy)]
    figure = Figure(figsize=(4.2 * len(names), 3.6), layout="constrained")
    for panel, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        rows = sorted((row for row in accuracy if row[0] == name), key=lambda row: (row[2], PATTERNS.index(row[1])))
        labels = ["complete" if not row[2] else f"{row[2]} %\n{row[1]}" for row in rows]
        grouped_bars(panel, labels, {title: [row[5 + n] for row in rows] for n, title in enumerate(VARIANTS.values())})
        if rows and not rows[0][2]:
            panel.axhline(rows[0][5]["mean"], color="grey", linewidth=0.8, linestyle=":")
        lowest = min(cell["mean"] - (cell["half_width"] or 0.0) for row in rows for cell in row[5:8])
        panel.set_ylim(max(0.0, lowest - 5), 105)
        panel.set_title(f"{name}, {rows[0][4]} seeds", fontsize=10)
    figure.supylabel("test accuracy (%)", fontsize=10)
    figure.legend(*panel.get_legend_handles_labels(), ncols=3, loc="outside lower center", frameon=False)
    figure.savefig(RESULTS / "missing.png", dpi=120)


def main() -> None:
    parser = seeded_parser(__doc__, range(5))
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--shares", nargs="+", type=int, choices=SHARES, default=SHARES)
    parser.add_argument("--patterns", nargs="+", choices=PATTERNS, default=PATTERNS)
    parser.add_argument("--steps", type=int, default=USUAL_STEPS)
    parser.add_argument(
        "--ceiling", action="store_true", help="only measure what holes cost on the mixed table at best"
    )
    options = parser.parse_args()
    begin(RUNS)
    if options.ceiling:
        measure_ceiling()
    elif not options.tables_only:
        for pattern, seed in [(one, seed) for one in options.patterns for seed in options.seeds]:
            for name in options.sets:
                for share in options.shares:
                    if (share or pattern == SINGLE) and (name in SERIES or pattern != STEPS):
                        measure(name, share, pattern, seed, options.steps)
    write_tables()


if __name__ == "__main__":
    main()
