"""The device kit: what makes it unusable is said, what a run leaves is merged, and a run on the CPU goes through every stage."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks" / "device"))
collect: Any = pytest.importorskip("collect")
kit: Any = pytest.importorskip("kit")
records: Any = pytest.importorskip("records")


@pytest.fixture
def small_kit(tmp_path: Path) -> Path:
    """Sound, but for having hardly anything in it."""
    folder = tmp_path / "kit"
    (folder / "data").mkdir(parents=True)
    (folder / "data" / "rows.txt").write_text("rows")
    manifest = {
        "commit": "abc",
        "code": kit.code_digest(),
        "decisive": {str(path.relative_to(ROOT)): kit.digest(path) for path in kit.DECISIVE},
        "files": {"data/rows.txt": kit.digest(folder / "data" / "rows.txt")},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def change(folder: Path, **fields: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | fields))


def test_sound_kit(small_kit: Path) -> None:
    assert kit.find_problems(small_kit) == []


def test_no_kit(tmp_path: Path) -> None:
    with pytest.raises(kit.KitError, match="make device-kit"):
        kit.find_problems(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_broken_manifest(small_kit: Path, text: str) -> None:
    (small_kit / "manifest.json").write_text(text)
    with pytest.raises(kit.KitError, match=r"manifest\.json"):
        kit.find_problems(small_kit)


def test_kit_older_than_the_code(small_kit: Path) -> None:
    change(small_kit, decisive={"constraints.txt": "0" * 64})
    (problem,) = kit.find_problems(small_kit)
    assert problem == "the kit is older than the code: constraints.txt has changed since commit abc"


def test_missing_and_damaged_files(small_kit: Path) -> None:
    (small_kit / "data" / "rows.txt").write_text("other")
    files = json.loads((small_kit / "manifest.json").read_text())["files"]
    change(small_kit, files=files | {"data/more.txt": "0"})
    assert kit.find_problems(small_kit) == [
        "data/rows.txt is damaged: its digest is not the manifest's",
        "data/more.txt is missing",
    ]


def test_kit_for_another_python(small_kit: Path) -> None:
    change(small_kit, python="2.7")
    words = [sys.executable, str(ROOT / "benchmarks/device/kit.py"), "unpack", "nowhere", "--folder", str(small_kit)]
    finished = subprocess.run(words, capture_output=True, text=True)
    assert finished.returncode == 1 and "made for Python 2.7" in finished.stderr
    assert not Path("nowhere").exists()


def test_versions_are_the_pins() -> None:
    found = kit.pinned_versions(["transformers", "tokenizers"])
    text = kit.CONSTRAINTS.read_text()
    assert all(f"{name}=={version}" in text for name, version in found.items())
    assert kit.pinned_versions(["transformers"], "3.10") != kit.pinned_versions(["transformers"], "3.12")
    with pytest.raises(kit.KitError, match="no-such-package"):
        kit.pinned_versions(["no-such-package"])


def test_run_refuses_a_stale_kit_and_other_than_minutes(small_kit: Path, tmp_path: Path) -> None:
    change(small_kit, decisive={"constraints.txt": "0" * 64})
    run = run_kit(tmp_path / "out", small_kit, "1")
    assert run.returncode == 3 and "older than the code" in run.stdout
    run = run_kit(tmp_path / "out", small_kit, "soon")
    assert run.returncode == 2 and "number of minutes" in run.stderr


def run_kit(out: Path, folder: Path, minutes: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("HF_HOME", "PYTHONPATH")}
    return subprocess.run(
        ["bash", str(ROOT / "benchmarks/device/run.sh"), minutes],
        env=kept | {"OUT": str(out), "DEVICE_KIT": str(folder), "PYTHON": sys.executable} | environment,
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.mark.slow
def test_checks_find_the_modules_of_the_tests() -> None:
    """In a process that pytest has not prepared: a module that the checks could not import has ended a whole stage."""
    words = "import correctness; correctness.find_tests(); "
    words += "import test_conversion, test_conversion_sma, test_multimae_golden, runs; "
    words += "[correctness.small_cases(group) for group in ('metamae', 'sma', 'multimae', 'pos_bert')]"
    path = os.pathsep.join(str(ROOT / folder) for folder in ("src", "benchmarks", "benchmarks/device"))
    subprocess.run([sys.executable, "-c", words], env=os.environ | {"PYTHONPATH": path}, check=True, timeout=300)


@pytest.mark.slow
def test_run_on_the_cpu(tmp_path: Path) -> None:
    """Needs a kit for this Python: `kit.py make --python 3.11`; DEVICE_KIT names it."""
    folder = Path(os.environ.get("DEVICE_KIT", ROOT / ".device-kit"))
    if not (folder / "manifest.json").is_file() or kit.find_problems(folder):
        pytest.skip(f"no kit that fits the code in {folder}")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if json.loads((folder / "manifest.json").read_text())["python"] != here:
        pytest.skip(f"the kit in {folder} is not for Python {here}")
    run = run_kit(
        tmp_path,
        folder,
        "4",
        CORRECTNESS_SECONDS="100",
        SPEED_SECONDS="100",
        CORRECTNESS_OPTIONS="--small --groups golden",
        SPEED_OPTIONS="--rows 2 --steps 1 --only recipe/spoken_digits-bf16-eager",
        CLAIM_OPTIONS="--workers 1 --whole_runs",
    )
    assert run.returncode == 0, run.stdout[-3000:]
    checks = [json.loads(line) for line in (tmp_path / "correctness.jsonl").read_text().splitlines()]
    assert all(check["passed"] is not False for check in checks)
    assert {"golden/metamae_image/loss", "golden/end"} <= {check["check"] for check in checks}
    (measured,) = (
        record
        for record in map(json.loads, (tmp_path / "speed.jsonl").read_text().splitlines())
        if record["name"] == "recipe/spoken_digits-bf16-eager"
    )
    assert measured["rows"] == 2 and measured["milliseconds"]["median"] > 0 and 0 < measured["utilisation"]
    assert "finished after" in run.stdout


# ---- what a run wrote, merged


MACHINE = {"card": "NVIDIA H100 80GB HBM3", "started": "2026-11-27T03:10:00+00:00", "commit": "abc"}


@pytest.fixture
def claim() -> str:
    claims = ROOT / "benchmarks" / "claims"
    names = sorted(path.stem for path in claims.glob("*.yaml"))
    return names[0] if names else pytest.skip("no claims are here")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def write(name: str, *lines: Any) -> Path:
        folder = tmp_path / "back"
        folder.mkdir(exist_ok=True)
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (folder / name).write_text("\n".join(texts) + "\n")
        return folder

    return write


def merge(folder: Path, results: Path) -> list[str]:
    collector = collect.Collector(folder, results)
    collector.run()
    return list(collector.problems)


def test_measurements_go_to_the_cards_folder(write: Callable[..., Path], tmp_path: Path) -> None:
    write("machine.jsonl", MACHINE)
    folder = write("speed.jsonl", {"name": "one", "milliseconds": 1.5}, '{"name": "cut o')
    target = tmp_path / "results" / "device" / "nvidia-h100-80gb-hbm3-2026-11-27"
    (problem,) = merge(folder, tmp_path / "results")
    assert "speed.jsonl:2 is cut off or broken" in problem
    assert json.loads((target / "speed.json").read_text()) == [{"name": "one", "milliseconds": 1.5}]
    write("speed.jsonl", {"name": "one", "milliseconds": 1.5})
    assert merge(folder, tmp_path / "results") == []  # there already
    write("speed.jsonl", {"name": "two"})
    (problem,) = merge(folder, tmp_path / "results")
    assert "there already with other records" in problem
    assert "one" in (target / "speed.json").read_text()
    write("machine.jsonl", MACHINE | {"started": "2026-11-27T04:10:00+00:00"})
    assert merge(folder, tmp_path / "results") == []
    assert "two" in (target.with_name(target.name + "-2") / "speed.json").read_text()


def test_claims_go_to_their_files(write: Callable[..., Path], tmp_path: Path, claim: str) -> None:
    write("machine.jsonl", MACHINE)
    folder = write(
        "claims.jsonl",
        {"path": f"{claim}/a.json", "result": {"score": 1, "commit": "unknown"}},
        {"path": f"{claim}/a.json", "result": {"score": 2, "commit": "unknown"}},
        {"path": "../../a.json", "result": {}},
        {"path": f"{claim}/a.txt", "result": {}},
        {"path": "no_claim/a.json", "result": {}},
        {"result": {}},
    )
    problems = merge(folder, tmp_path / "results")
    path = tmp_path / "results" / "claims" / claim / "a.json"
    assert json.loads(path.read_text()) == {"score": 2, "commit": "abc"}
    expected = ["leads out of", "is not CLAIM/RUN.json", "is of no claim", "expected path and result"]
    assert len(problems) == 4 and all(any(part in problem for problem in problems) for part in expected)
    folder = write("claims.jsonl", {"path": f"{claim}/a.json", "result": {"score": 3}})
    (problem,) = merge(folder, tmp_path / "results")
    assert "another result, which stays" in problem and json.loads(path.read_text())["score"] == 2


def test_a_folder_of_something_else(write: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(collect.CollectError, match="is no folder"):
        merge(tmp_path / "nothing", tmp_path)
    with pytest.raises(collect.CollectError, match=r"machine\.jsonl"):
        merge(write("speed.jsonl", {}), tmp_path)


def test_results_are_gathered_once(tmp_path: Path) -> None:
    folder, known, target = tmp_path / "runs", tmp_path / "known", tmp_path / "claims.jsonl"
    for place in (folder, known):
        (place / "claim").mkdir(parents=True)
        (place / "claim" / "old.json").write_text('{"score": 1}')
    (folder / "claim" / "half.json").write_text('{"score": ')
    (folder / "claim" / "new.json").write_text('{"score": 2}')
    assert records.gather(target, folder, known, records.already_gathered(target)) == 1
    assert records.gather(target, folder, known, records.already_gathered(target)) == 0
    (folder / "claim" / "half.json").write_text('{"score": 3}')
    assert records.gather(target, folder, known, records.already_gathered(target)) == 1
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert lines == [
        {"path": "claim/new.json", "result": {"score": 2}},
        {"path": "claim/half.json", "result": {"score": 3}},
    ]


def test_report_of_tests(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    assert records.read_tests(report)[0]["passed"] is None
    report.write_text(
        '<testsuites><testsuite><testcase classname="a" name="one" time="0.5"/>'
        '<testcase classname="a" name="two" time="0"><failure message="m">why</failure></testcase>'
        '<testcase classname="a" name="three" time="0"><skipped message="no GPU"/></testcase></testsuite></testsuites>'
    )
    found = {record["check"]: (record["passed"], record.get("note")) for record in records.read_tests(report)}
    assert found == {"a.one": (True, None), "a.two": (False, "why"), "a.three": (None, "no GPU")}
