"""job.yaml and JobSpec: what is refused, and with which words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from contracts.errors import UserError
from contracts.job.file import parse_job_file, read_job
from contracts.job.spec import FileRef, JobSpec, Resources, check_json, check_path

GOOD = """
name: tiny
environment: torch-2.13
recipe: recipe.py:Tiny
files: [recipe.py, data/x.bin]
steps: 10
checkpoint_every: 5
max_price: 1.50
deadline: 2030-01-31T12:00:00Z
"""


def job_folder(path: Path, text: str = GOOD) -> Path:
    (path / "data").mkdir()
    (path / "recipe.py").write_text("class Tiny: pass\n")
    (path / "data" / "x.bin").write_bytes(b"x" * 5)
    (path / "job.yaml").write_text(text)
    return path


def test_a_job_is_read_and_hashed(tmp_path: Path) -> None:
    job, spec = read_job(job_folder(tmp_path))
    assert (job.max_price, job.deadline) == ("1.5", "2030-01-31T12:00:00Z")
    assert spec.checkpoints == 2
    digest = "0xeaf16bc07968e013f3f94ab1342472434a39fc3475f11cf341a6c3965974f8e9"
    assert spec.files["data/x.bin"] == FileRef(sha256=digest, size=5)
    before = spec.job_hash()
    (tmp_path / "data" / "x.bin").write_bytes(b"y" * 5)
    assert read_job(tmp_path)[1].job_hash() != before


@pytest.mark.parametrize(
    ("old", "new", "says", "hint"),
    [
        ("steps: 10", "steps: 12", "checkpoint_every 5 does not divide steps 12; try steps 10 or 15", None),
        ("environment:", "environmnt:", "unknown field 'environmnt'", "Did you mean 'environment'?"),
        ("steps: 10", "", "field 'steps' is missing", None),
        ("recipe.py:Tiny", "recipe.py", "recipe 'recipe.py' must be 'file.py:Class'", None),
        ("recipe.py:Tiny", "other.py:Tiny", "'other.py', which is not among the files", None),
        ("data/x.bin]", "../x.bin]", "path '../x.bin' is not a plain relative path", None),
        ("data/x.bin]", "/etc/passwd]", "path '/etc/passwd' is not a plain relative path", None),
        ("data/x.bin]", "data/y.bin]", "file 'data/y.bin' of the job is not in", "Put it there"),
        ("2030-01-31T12:00:00Z", "tomorrow", "time 'tomorrow' is not RFC 3339", None),
        ("name: tiny", "name: [", "is not valid YAML", None),
        ("steps: 10", "steps: ten", "steps: Input should be a valid integer", None),
        ("steps: 10", "steps: 10\nresources: {region: [eu]}", "field 'resources.region'", "Did you mean 'regions'?"),
        ("steps: 10", "steps: 10\nresources: {regions: eu}", "regions: 'eu' is not a list, such as [eu]", None),
        ("steps: 10", "steps: 10\nresources: {regions: ['']}", "resources.regions.0: String should have", None),
        (
            "steps: 10",
            "steps: 10\nresources: {tier: 4}",
            "resources.tier: Input should be less than or equal to 3",
            None,
        ),
        ("steps: 10", "steps: 10\nresources: {units_per_hour: -1}", "resources.units_per_hour: Input should", None),
    ],
)
def test_bad_jobs_say_what_is_wrong(tmp_path: Path, old: str, new: str, says: str, hint: str | None) -> None:
    with pytest.raises(UserError) as caught:
        read_job(job_folder(tmp_path, GOOD.replace(old, new)))
    assert says in caught.value.message
    if hint:
        assert hint in (caught.value.hint or "")


def test_what_a_job_does_not_ask_for_is_not_in_its_hash(tmp_path: Path) -> None:
    (asked := tmp_path / "asked").mkdir()
    (plain := tmp_path / "plain").mkdir()
    job_folder(plain, GOOD + "resources: {regions: [], tier: 0, units_per_hour: 0}\n")
    assert b'"resources":{"devices":[],"gpus":0,"memory_mb":0,"vram_mb":0}' in read_job(plain)[1].canonical()
    job_folder(asked, GOOD + "resources: {regions: [eu-de, us], tier: 2, units_per_hour: 1000}\n")
    written = b'"memory_mb":0,"regions":["eu-de","us"],"tier":2,"units_per_hour":1000,"vram_mb":0}'
    assert written in read_job(asked)[1].canonical()


def test_links_are_refused(tmp_path: Path) -> None:
    folder = job_folder(tmp_path)
    (folder / "data" / "x.bin").unlink()
    (folder / "data" / "x.bin").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="is, or lies behind, a link"):
        read_job(folder)


@pytest.mark.parametrize("path", ["", "/a", "a/../b", "..", "./a", "a//b", "a/", "a\\b", "a\0b", ".", "x" * 256])
def test_paths_that_leave_the_job_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not a plain relative path"):
        check_path(path)


def test_the_hash_covers_every_field() -> None:
    base: dict[str, Any] = {
        "environment": "torch-2.13",
        "recipe": "r.py:R",
        "files": {"r.py": FileRef(sha256="0x" + "00" * 32, size=1)},
        "seed": 1,
        "steps": 4,
        "checkpoint_every": 2,
    }
    changes: list[dict[str, Any]] = [
        {}, {"environment": "torch-2.14"}, {"recipe": "r.py:Q"}, {"config": {"a": 1}}, {"seed": 2}, {"steps": 6},
        {"checkpoint_every": 4}, {"interruptible": False}, {"deadline": "2030-01-31T12:00:00Z"},
        {"resources": {"gpus": 1}}, {"files": {"r.py": FileRef(sha256="0x" + "01" * 32, size=1)}},
        {"files": {"r.py": FileRef(sha256="0x" + "00" * 32, size=1, url="https://a.org/r.py")}}, {"start": "r.py"},
        {"start_step": 4}, {"stop": {"metric": "loss", "patience": 2}}, {"stop": {"metric": "loss", "patience": 3}},
        {"sealed": True},
    ]  # fmt: skip
    assert len({JobSpec(**(base | change)).job_hash() for change in changes}) == len(changes)
    assert set().union(*changes) | {"files", "version"} == set(JobSpec.model_fields)


def test_a_file_is_not_a_folder_too() -> None:
    ref = FileRef(sha256="0x" + "00" * 32, size=1)
    files = {"r.py": ref, "a": ref, "a/b/c": ref}
    with pytest.raises(ValueError, match="'a' is among the files, and 'a/b/c' needs it to be a folder"):
        JobSpec(environment="t", recipe="r.py:R", files=files, seed=0, steps=1, checkpoint_every=1)


def test_a_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no job file at"):
        read_job(tmp_path)
    with pytest.raises(UserError, match="must be a mapping"):
        parse_job_file("- 1")


@pytest.mark.parametrize("wrap", [lambda inner: {"in": inner}, lambda inner: {"in": [inner]}])
def test_how_deep_a_config_may_be(wrap: Callable[[object], dict[str, object]]) -> None:
    config: dict[str, object] = {}
    while True:
        try:
            check_json(config, "config")
        except ValueError as error:
            assert str(error) == "config is nested more than 64 deep"
            break
        config = wrap(config)
    depth = str(config).count("{") + str(config).count("[")
    assert depth in (65, 66)
    check_json({"wide": [{}] * 1000}, "config")


def test_a_job_file_that_is_not_text(tmp_path: Path) -> None:
    job_folder(tmp_path)
    (tmp_path / "job.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"can't read .*: 'utf-8' codec"):
        read_job(tmp_path)


@pytest.mark.parametrize("given", [True, "12", "1_2", 1.5, [1], float("nan")])
@pytest.mark.parametrize("field", ["seed", "steps", "checkpoint_every", "gpus", "memory_mb", "size"])
def test_numbers_on_the_wire_are_numbers(field: str, given: Any) -> None:
    """`true` was taken for 1 and "12" for 12: another reader of the same job would have said no, or something else."""
    ref = {"sha256": "0x" + "11" * 32, "size": 5}
    body: dict[str, Any] = {"environment": "torch-2.13", "recipe": "r.py:R", "seed": 1, "steps": 4}
    body |= {"checkpoint_every": 1, "resources": {}, "files": {"r.py": ref}}
    assert JobSpec.model_validate(body).steps == 4
    (ref if field == "size" else body["resources"] if field in Resources.model_fields else body)[field] = given
    with pytest.raises(ValidationError, match="Input should be a "):
        JobSpec.model_validate(body)


@pytest.mark.parametrize("given", ["true", "on", 1, 0, None])
@pytest.mark.parametrize("field", ["interruptible", "sealed"])
def test_truth_on_the_wire_is_true_or_false(field: str, given: Any) -> None:
    body = {"environment": "torch-2.13", "recipe": "r.py:R", "seed": 1, "steps": 4, "checkpoint_every": 1}
    with pytest.raises(ValidationError, match="Input should be a valid boolean"):
        JobSpec.model_validate(body | {"files": {"r.py": {"sha256": "0x" + "11" * 32, "size": 5}}, field: given})


ADDRESS, CLASS = "0x5FbDB2315678afecb367f032d93F642f64180aa3", "0x" + "ab" * 32


def test_providers_and_numerics_are_left_out_where_unused() -> None:
    assert not {"providers", "not_providers", "numerics"} & set(Resources().model_dump(mode="json"))
    used = Resources(providers=(ADDRESS,), not_providers=("0x" + "11" * 20,), numerics=(CLASS,))
    assert Resources.model_validate(used.model_dump(mode="json")) == used


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"providers": ADDRESS}, "is not a list, such as"),
        ({"providers": ["0x12"]}, "expected an address .*'0x12'"),
        ({"not_providers": [ADDRESS] * 51}, "at most 50"),
        ({"numerics": ["avx2"]}, "64 hex digits, got 'avx2'"),
        ({"providers": [ADDRESS], "not_providers": [ADDRESS]}, f"{ADDRESS} is among providers and not_providers"),
    ],
)
def test_wrong_providers_and_numerics(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Resources.model_validate(wrong)


def test_a_recipe_sees_no_more_of_its_config_than_is_hashed() -> None:
    fields = {
        "environment": "torch-2.13",
        "recipe": "recipe.py:Tiny",
        "files": {"recipe.py": FileRef(sha256="0x" + "11" * 32, size=5)},
        "seed": 7,
        "steps": 10,
        "checkpoint_every": 5,
    }
    configs: list[dict[str, Any]] = [
        {"b": {"d": -0.0, "c": 1.0}, "a": [2, 0.5]},
        {"a": [2.0, 0.5], "b": {"c": 1, "d": 0}},
    ]
    one, other = (JobSpec.model_validate(fields | {"config": config}) for config in configs)
    assert one.job_hash() == other.job_hash()
    assert repr(one.hashed_config) == repr(other.hashed_config) == "{'a': [2, 0.5], 'b': {'c': 1, 'd': 0}}"
