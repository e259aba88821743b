"""The access files: made once, kept, rotated on demand, and read by the servers and services as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vitascope_core.errors import InvalidSettings
from vitascope_core.plan import StageName
from vitascope_platform import access
from vitascope_platform.access import read_env_file, write_access
from vitascope_platform.access_rights import Installation, identities
from vitascope_platform.environment import ServiceSettings, read_settings

TWO_POOLS = Installation(("wan", "flux"))
FILES = {
    *("nats-users.conf", "nats.env", "s3.json", "gateway.env", "denoiser-wan.env", "denoiser-flux.env"),
    *("interpolator.env", "upscaler.env", "uploader.env", "bootstrap.env", "monitor.env"),
}


def contents(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_the_second_run_changes_nothing(tmp_path: Path) -> None:
    first = write_access(tmp_path, TWO_POOLS)
    made = contents(tmp_path)

    assert len(first) == len(FILES)
    assert made.keys() == FILES
    assert write_access(tmp_path, TWO_POOLS) == []
    assert contents(tmp_path) == made


def test_a_new_pool_leaves_the_secrets_of_the_others(tmp_path: Path) -> None:
    write_access(tmp_path, Installation(("wan",)))
    before = contents(tmp_path)
    write_access(tmp_path, TWO_POOLS)
    after = contents(tmp_path)

    kept = [name for name in before if name not in ("nats-users.conf", "nats.env", "s3.json")]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert "vs-denoiser-flux" in after["nats-users.conf"]


def test_a_pool_that_is_gone_loses_its_rights_and_is_named(tmp_path: Path) -> None:
    write_access(tmp_path, TWO_POOLS)
    lines = write_access(tmp_path, Installation(("wan",)))

    assert any("denoiser-flux.env names nobody any more" in line for line in lines)
    assert "flux" not in (tmp_path / "nats-users.conf").read_text() + (tmp_path / "s3.json").read_text()


def test_rotation_makes_every_secret_anew(tmp_path: Path) -> None:
    write_access(tmp_path, TWO_POOLS)
    before = secrets_in(tmp_path)
    write_access(tmp_path, TWO_POOLS, rotate=True)

    assert not before & secrets_in(tmp_path)
    assert len(before) == len(secrets_in(tmp_path)) == 3 * 8


def test_secrets_are_for_their_owner_alone_and_not_in_the_brokers_configuration(tmp_path: Path) -> None:
    write_access(tmp_path / "new", TWO_POOLS)
    (tmp_path / "new" / "gateway.env").chmod(0o644)
    write_access(tmp_path / "new", TWO_POOLS)

    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "new").iterdir()} == {0o600}
    config = (tmp_path / "new" / "nats-users.conf").read_text()
    assert not [secret for secret in secrets_in(tmp_path / "new") if secret in config]


@pytest.mark.parametrize("name", sorted(name for name in FILES if name.endswith(".env") and name != "nats.env"))
def test_a_service_takes_its_file_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_access(tmp_path, Installation(("wan", "flux"), prefix="studio", result_prefix="renders/"))
    for variable, value in read_env_file(tmp_path / name).items():
        monkeypatch.setenv(variable, value)

    settings = read_settings(ServiceSettings)

    assert (settings.nats.user, settings.nats.prefix) == (f"studio-{name.removesuffix('.env')}", "studio")
    assert settings.s3.result_prefix == "renders/"


def test_the_stores_keys_are_those_of_the_services(tmp_path: Path) -> None:
    write_access(tmp_path, TWO_POOLS)
    found = {
        each["name"]: each["credentials"][0] for each in json.loads((tmp_path / "s3.json").read_text())["identities"]
    }
    variables = read_env_file(tmp_path / "uploader.env")

    assert found["vs-uploader"] == {
        "accessKey": variables["VITASCOPE_S3_ACCESS_KEY"],
        "secretKey": variables["VITASCOPE_S3_SECRET_KEY"],
    }


def test_only_the_gateway_writes_specs_and_only_it_may_begin_jobs() -> None:
    may = {each.name: set(each.publish) for each in identities(TWO_POOLS)}

    assert [name for name in may if "$KV.vs-jobs.*.spec" in may[name]] == ["gateway"]
    assert [name for name in may if "vs.tasks.denoise.*.*" in may[name]] == ["gateway"]
    assert [name for name in may if "$KV.vs-cards.pool.wan.card" in may[name]] == ["denoiser-wan"]
    assert not [subject for rights in may.values() for subject in rights if subject in (">", "$JS.>", "$JS.API.>")]


def test_a_service_of_ones_own_gets_the_rights_of_its_stage() -> None:
    [own] = [
        each
        for each in identities(Installation(("wan",), workers={"sharpener": StageName.UPSCALE}))
        if each.name == "sharpener"
    ]

    assert "$JS.API.CONSUMER.MSG.NEXT.vs-tasks.upscale" in own.publish
    assert "$KV.vs-workers.sharpener.>" in own.publish


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--pool", "Wan"], "pool must be"),
        (["--pool", "wan", "--prefix", "a.b"], "prefix must be"),
        (["--pool", "wan", "--worker", "gateway=upscale"], "not one of ours"),
        (["--pool", "wan", "--worker", "mine=sharpen"], "NAME=STAGE"),
        (["--pool", "wan", "--worker", "mine=denoise"], "what denoises is a pool"),
    ],
)
def test_wrong_names_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], error: str
) -> None:
    assert access.main(["--folder", str(tmp_path / "new"), *arguments]) == 1

    assert error in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_the_command_prints_no_secret(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--folder", str(tmp_path), "--pool", "wan"]
    assert access.main(command) == 0
    first = capsys.readouterr().out
    assert access.main(command) == 0

    assert capsys.readouterr().out == "nothing to do: every file is as it should be\n"
    assert not [secret for secret in secrets_in(tmp_path) if secret in first]


def test_a_password_that_the_broker_would_misread_is_refused(tmp_path: Path) -> None:
    write_access(tmp_path, TWO_POOLS)
    path = tmp_path / "gateway.env"
    path.write_text(path.read_text().replace("PASSWORD=n", "PASSWORD=1"))

    with pytest.raises(InvalidSettings, match="must begin with a letter"):
        write_access(tmp_path, TWO_POOLS)


def secrets_in(folder: Path) -> set[str]:
    return {
        value
        for path in folder.glob("*.env")
        if path.name != "nats.env"
        for name, value in read_env_file(path).items()
        if name.endswith(("_PASSWORD", "_KEY"))
    }
