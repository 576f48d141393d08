"""job.yaml: what a client writes, and what becomes of it; each field is documented, and no torch is needed."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from contracts.errors import UserError
from contracts.job.early_stop import Stop
from contracts.job.file import JobFile, check_units, parse_job_file, read_job, work_hash
from contracts.job.spec import Resources, check_url
from tests.support import ROOT

DOCS = ROOT / "docs"
DATA = b"numbers"
JOB = """
environment: torch-2.13
recipe: recipe.py:R
steps: 10
checkpoint_every: 5
"""
REMOTE = f"""
files:
  recipe.py:
  data.bin: {{url: "https://example.org/d", sha256: {hashlib.sha256(DATA).hexdigest()}, size: {len(DATA)}}}
"""


def folder_with(tmp_path: Path, text: str) -> Path:
    (tmp_path / "recipe.py").write_text("class R: pass\n")
    (tmp_path / "job.yaml").write_text(JOB + text)
    return tmp_path


@pytest.mark.parametrize("text", ["0.5", '"0.5"', "0.5 per checkpoint"])
def test_a_price_is_per_checkpoint(text: str) -> None:
    assert parse_job_file(JOB + f"files: [recipe.py]\nmax_price: {text}").max_price == "0.5"


def test_another_unit_of_price_is_refused() -> None:
    with pytest.raises(UserError, match=r"a price is in tokens per checkpoint, such as `0.5 per checkpoint`"):
        parse_job_file(JOB + "files: [recipe.py]\nmax_price: 30 per hour")


def test_a_file_by_url_needs_not_be_here(tmp_path: Path) -> None:
    _, spec = read_job(folder_with(tmp_path, REMOTE))
    assert (spec.files["data.bin"].url, spec.hosts) == ("https://example.org/d", {"example.org"})
    assert spec.files["recipe.py"].url is None
    (tmp_path / "data.bin").write_bytes(DATA)
    assert read_job(tmp_path)[1] == spec
    (tmp_path / "data.bin").write_bytes(b"other numbers")
    with pytest.raises(UserError, match=r"data\.bin here has 13 bytes"):
        read_job(tmp_path)


@pytest.mark.parametrize(
    "url",
    ["http://example.org/a", "ftp://example.org/a", "https://me:secret@example.org/a", "https:///a", "example.org/a",
     "https://example.org/a b", "file:///etc/passwd", "https://example.org:port/"],
)  # fmt: skip
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ValueError, match="url"):
        check_url(url)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("files: [recipe.py]\nstart: w.safetensors", "start names 'w.safetensors', which is not among the files"),
        ("files: [recipe.py]\nstop: {metric: loss, patience: 0}", "stop.patience"),
        ("files: [recipe.py]\nstop: {metric: loss, patience: 1, mode: up}", "stop.mode"),
        ('files: {recipe.py: {url: "https://a.org/r"}}', "sha256' is missing"),
        (
            'files: [recipe.py]\nconfig: {text: "a\\0b"}',
            "job.config.text: 'a\\x00b' has the character NUL (U+0000) in it",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        read_job(folder_with(tmp_path, text))
    assert says in caught.value.message


def test_each_field_is_documented() -> None:
    text = (DOCS / "client.md").read_text(encoding="utf-8")
    fields = [*JobFile.model_fields, *(f"resources.{name}" for name in Resources.model_fields)]
    fields += [f"stop.{name}" for name in Stop.model_fields]
    assert [name for name in fields if f"| `{name}` |" not in text] == []


def test_a_job_is_packed_where_there_is_no_torch(tmp_path: Path) -> None:
    program = """
import sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "numpy", "safetensors", "worker"):
            raise ModuleNotFoundError(f"no module named {name!r}", name=name)
sys.meta_path.insert(0, NoTorch())
import market.client.cli.job
from pathlib import Path
from contracts.job.file import read_job
print(read_job(Path(sys.argv[1]))[1].checkpoints)
"""
    folder = folder_with(tmp_path, "files: [recipe.py]")
    done = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.returncode) == ("2\n", 0), done.stderr


# ------------------------------------------------------------------ early stop


@pytest.mark.parametrize(
    ("values", "fields", "index"),
    [
        ([3, 2, 1], {"patience": 1}, None),
        ([3, 2, 2, 1], {"patience": 1}, 3),
        ([3, 2, 2, 1, 1, 1], {"patience": 2}, 6),
        ([3, 4, 5], {"patience": 2}, 3),
        ([3, 4, 2.9, 4, 4], {"patience": 2}, 5),
        ([3, 2.95, 2.9, 2.85], {"patience": 3, "min_delta": 0.1}, None),  # slowly, but 0.15 in the end
        ([3, 2.95, 2.95], {"patience": 2, "min_delta": 0.1}, 3),
        ([1, 2, 3, 3], {"patience": 1, "mode": "max"}, 4),
        ([None, 3, None, None, 3], {"patience": 1}, 5),
        ([3, 3, 1, 1], {"patience": 1}, 2),  # what comes after it makes no difference
        ([], {"patience": 1}, None),
    ],
)
def test_when_a_job_stops(values: list[float | None], fields: dict[str, Any], index: int | None) -> None:
    metrics: list[dict[str, float]] = [{} if value is None else {"eval_loss": value} for value in values]
    stop = Stop(metric="eval_loss", **fields)
    assert stop.reached(metrics) == index
    if index is not None:
        assert stop.reached(metrics[: index - 1]) is None


def test_a_metric_that_the_recipe_does_not_give() -> None:
    stop = Stop(metric="val_loss", patience=1)
    assert stop.problem({"eval_loss": 1.0, "loss": 1.0}) == (
        "`stop` goes by 'val_loss', the checkpoint's metrics are eval_loss, loss"
    )
    assert stop.problem({"val_loss": 1.0}) is None


# ------------------------------------------------------------------ YAML 1.2


def parsed(text: str) -> JobFile:
    return parse_job_file(JOB + "files: [recipe.py]\n" + text)


def refused(text: str) -> str:
    with pytest.raises(UserError) as caught:
        parsed(text)
    return caught.value.message


@pytest.mark.parametrize("field", ["max_price", "stake", "budget"])
@pytest.mark.parametrize(
    "text", ["12:30", "0100", "1e-5", "1_000", "0x10", "0o17", ".5", "5.", "+1", "-1", "yes", "1,5"]
)
def test_an_amount_is_a_plain_decimal(field: str, text: str) -> None:
    assert refused(f"{field}: {text}").startswith(f"job.yaml line 7: {field}: '{text}' is not an amount; write whole")


@pytest.mark.parametrize("text", ["0.00001", "0.1", "100000000000000000000.000000000000000001", "3", "0"])
def test_an_amount_is_what_was_written(text: str) -> None:
    job = parsed(f"max_price: {text}\nstake: {text}\nbudget: '{text}'")
    assert (job.max_price, job.stake, job.budget) == (text, text, text)


def test_needless_zeros_of_an_amount_are_left_out() -> None:
    job = parsed("max_price: 1.50\nstake: 100\nbudget: 2.00")
    assert (job.max_price, job.stake, job.budget) == ("1.5", "100", "2")


def test_a_key_twice_is_told_with_both_lines() -> None:
    assert refused("budget: 1\nstake: 2\nbudget: 5000") == (
        "job.yaml has the key 'budget' twice, in line 7 and in line 9"
    )
    assert refused("config:\n  lr: 1\n  more: {a: 1}\n  lr: 2") == (
        "job.yaml has the key 'lr' twice, in line 8 and in line 10"
    )


def test_words_are_words_and_numbers_numbers() -> None:
    job = parsed(
        "name: 12\nresources: {regions: [no, on]}\ndeadline: 2030-01-31 12:00:00\n"
        "config: {lr: 1e-3, flag: no, true: yes, at: 12:30, old: 0100, hex: 0x1F, none: ~, big: -.inf, text: '1'}"
    )
    assert job.resources.regions == ("no", "on")
    assert (job.name, job.deadline) == ("12", "2030-01-31T12:00:00Z")
    assert job.config == {
        "lr": 0.001, "flag": "no", "true": "yes", "at": "12:30", "old": 100, "hex": 31, "none": None,
        "big": float("-inf"), "text": "1",
    }  # fmt: skip


def test_units_of_another_recipe_are_told(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, "files: [recipe.py, notes.txt]\nconfig: {lr: 1}\nunits: 12\n")
    (folder / "notes.txt").write_text("one")
    text = (folder / "job.yaml").read_text()
    job, spec = read_job(folder)
    check_units(job, spec, folder)  # nobody knows of what they are
    measured = text + f'units_of: "{work_hash(spec, 12)}"\n'

    def changed(text: str) -> str | None:
        (folder / "job.yaml").write_text(text)
        try:
            check_units(*read_job(folder), folder)
        except UserError as error:
            assert f"gpumarket recipe measure {folder}" in str(error.hint)
            return error.message
        return None

    assert changed(measured) is None
    for same in (measured.replace("steps: 10", "steps: 20"), "seed: 5\n" + measured):
        assert changed(same) is None
    (folder / "notes.txt").write_text("other")
    assert changed(measured) is None
    for other in (
        measured.replace("lr: 1", "lr: 2"),
        measured.replace("checkpoint_every: 5", "checkpoint_every: 10"),
        measured.replace("units: 12", "units: 13"),
    ):
        assert "the recipe, its config, checkpoint_every or the number itself has changed" in str(changed(other))
    (folder / "recipe.py").write_text("class R: deeper = True\n")
    assert "since its 12 units were counted" in str(changed(measured))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stepz: 1", "job.yaml line 7: unknown field 'stepz'"),
        ("resources:\n  gpus: 1\n  memory_mb: lots", "job.yaml line 9: resources.memory_mb: "),
        ("config: [1,\nstake", "job.yaml is not valid YAML: line 8"),
        ("config: {a: !!python/name:os.system x}", "job.yaml line 7: the tag 'python/name:os.system'"),
        ("config: {<<: {a: 1}}", "job.yaml line 7: a merge (<<)"),
        ("config: {[1]: 2}", "job.yaml line 7: a key that is a list or a mapping"),
        ("config: {a: " + "[" * 200 + "]" * 200 + "}", "job.yaml line 7: what is nested more than 100 deep"),
        ("config: {a: " + "[" * 5000, "job.yaml line 7: what is nested more than 100 deep"),
        ("config: " + "{a: " * 3000, "job.yaml line 7: what is nested more than 100 deep"),
        ("config: {a: " + "9" * 5000 + "}", "job.yaml line 7: a number of 5000 digits"),
        ("config: {a: 0x" + "f" * 5000 + "}", "job.yaml line 7: a number of 5000 digits"),
        ("seed: 0x" + "f" * 5000, "job.yaml line 7: a number of 5000 digits"),
        ("seed: 0o" + "7" * 5000, "job.yaml line 7: a number of 5000 digits"),
        ("seed: -" + "9" * 5000, "job.yaml line 7: a number of 5000 digits"),
        ("budget: 1" + "0" * 5000, "job.yaml line 7: budget: a text of 5001 characters is not an amount"),
        ("name: " + "x" * 5000, "job.yaml line 7: name: String should have at most 100 characters (got 'xxx"),
        ("config: {a: !!python/name:os.system }", "job.yaml line 7: the tag 'python/name:os.system'"),
        ("config:\n  a: !mine\n", "job.yaml line 8: the tag '!mine'"),
        ("config: {a: !!float 3}", "job.yaml line 7: the tag 'float'"),
        ("config: {a: !!int 3.0}", "job.yaml line 7: the tag 'int'"),
        ("config: {a: !!bool yes}", "job.yaml line 7: the tag 'bool'"),
        ("config: {a: !!null x}", "job.yaml line 7: the tag 'null'"),
        ("config: {!!python/name:os.system a: 1}", "job.yaml line 7: the tag 'python/name:os.system'"),
        ("max_price: !!float 5", "job.yaml line 7: the tag 'float'"),
        ('name: "\\ud83d"', "job.yaml line 7: half of a character"),
        ('config: {a: "\\ude00\\ud83d"}', "job.yaml line 7: half of a character"),
        ('config:\n  "\\ud83d": 1', "job.yaml line 8: half of a character"),
        ("deadline: 2030", "job.yaml line 7: deadline: time '2030' is not RFC 3339"),
        ("seed: -1", "job.yaml line 7: seed: "),
        ("# " + "x" * 600_000, "job.yaml is longer than 512 KiB"),
        ("config: &all {a: *all}", "job.yaml line 7: what is nested more than 100 deep"),
    ],
)
def test_what_is_not_read_is_told_with_its_line(text: str, says: str) -> None:
    assert refused(text).startswith(says)


@pytest.mark.parametrize("field", ["seed", "units", "valid_for", "resources: {gpus", "resources: {memory_mb"])
@pytest.mark.parametrize("text", ["true", "on", "1_6", "'16'", "1.5", "4.0", "0b1"])
def test_a_number_is_a_number(field: str, text: str) -> None:
    line = f"{field}: {text}{'}' if '{' in field else ''}"
    name = field.replace(": {", ".")
    assert refused(line).startswith(f"job.yaml line 7: {name}: ")
    assert parsed(line.replace(text, "4")) != parsed(line.replace(text, "5"))


@pytest.mark.parametrize("field", ["interruptible", "sealed"])
def test_true_is_true(field: str) -> None:
    for text in ("on", "yes", "y", "1", "0", "'true'", "off"):
        assert refused(f"{field}: {text}").startswith(f"job.yaml line 7: {field}: Input should be a valid boolean")
    assert getattr(parsed(f"{field}: true"), field) and not getattr(parsed(f"{field}: False"), field)


def test_a_tag_of_text_and_characters_as_json_escapes_them() -> None:
    job = parsed('config: {a: !!str 3, b: !!str , c: "\\uD83D\\uDE00", "\\uD83D\\uDE00": 1, d: !!int 3, e: !!null }')
    assert job.config == {"a": "3", "b": "", "c": "\U0001f600", "\U0001f600": 1, "d": 3, "e": None}


def test_a_file_that_never_ends(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("# " + "\N{GRINNING FACE}" * 200_000)
    with pytest.raises(UserError, match=r"job\.yaml is longer than 512 KiB"):
        read_job(tmp_path)


def test_an_alias_is_what_it_stands_for_but_no_bomb() -> None:
    assert parsed("config: {a: &rate 0.1, b: *rate}").config == {"a": 0.1, "b": 0.1}
    lines = ["config:", "  a0: &a0 [0, 0, 0, 0, 0, 0, 0, 0, 0, 0]"]
    lines += [f"  a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "over 100000 values, each alias (*name) counted" in refused("\n".join(lines))
