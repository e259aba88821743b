"""``python -m vitascope_platform.access``: make the files that give each service credentials of its own.

Secrets that are there already stay unless ``--rotate`` is given; all else is written anew from the rights of this
version, so run it before every upgrade. Nothing is sent anywhere.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vitascope_core.errors import InvalidSettings
from vitascope_core.plan import StageName
from vitascope_platform.access_rights import Identity, Installation, identities
from vitascope_platform.bootstrap_nats import Layout

NATS_CONFIG, NATS_PASSWORDS, S3_IDENTITIES = "nats-users.conf", "nats.env", "s3.json"

_SECRETS = ("VITASCOPE_NATS_PASSWORD", "VITASCOPE_S3_ACCESS_KEY", "VITASCOPE_S3_SECRET_KEY")


@dataclass(frozen=True, slots=True)
class _Login:
    """An identity with its secrets."""

    identity: Identity
    password: str
    access_key: str
    secret_key: str

    @property
    def password_variable(self) -> str:
        # Not VITASCOPE_…: a service beside the broker would take it for a misspelt variable of its own.
        return f"NATS_PASSWORD_{self.identity.user}".upper().replace("-", "_")


def write_access(folder: Path, installation: Installation, *, rotate: bool = False) -> list[str]:
    """Write the files of an installation into ``folder`` and return a line for each that changed.

    Raises:
        InvalidSettings: A file that is there cannot be read, or the folder cannot be written to.
    """
    Layout(installation.pools)  # checks the names of pools
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        logins = [_login(folder, identity, rotate=rotate) for identity in identities(installation)]
        files = {
            NATS_CONFIG: nats_users(logins),
            NATS_PASSWORDS: _lines({login.password_variable: login.password for login in logins}),
            S3_IDENTITIES: _s3_identities(logins),
            **{f"{login.identity.name}.env": _service_env(login, installation) for login in logins},
        }
        written = [name for name, text in files.items() if _write(folder / name, text)]
        stale = sorted(path.name for path in folder.glob("*.env") if path.name not in files)
    except OSError as error:
        raise InvalidSettings(f"cannot write the access files: {error}") from error
    return [f"{folder / name} written" for name in written] + [
        f"{folder / name} names nobody any more; delete it once nothing uses it" for name in stale
    ]


def read_env_file(path: Path) -> dict[str, str]:
    """Return the variables of a file that `write_access` made.

    Raises:
        InvalidSettings: A line is none.
    """
    variables = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        name, equals, value = line.partition("=")
        if line.startswith("#") or not line:
            continue
        if not equals:
            raise InvalidSettings(f"{path}: every line must be NAME=value")
        variables[name] = value
    return variables


def nats_users(logins: Sequence[_Login]) -> str:
    """Return the broker's configuration. It holds no secrets: those come from its environment."""
    users = "".join(
        f"    {{\n"
        f'      user: "{login.identity.user}", password: ${login.password_variable}\n'
        f"      permissions: {{\n"
        f"        publish: {{ allow: {_list(login.identity.publish)} }}\n"
        f"        subscribe: {{ allow: {_list(login.identity.subscribe)} }}\n"
        f"      }}\n"
        f"    }}\n"
        for login in logins
    )
    return (
        "# Made by python -m vitascope_platform.access. Include it in nats-server's configuration; the passwords are\n"
        f"# environment variables of nats-server, see {NATS_PASSWORDS}: without one of them it does not start.\n"
        f"authorization {{\n  users: [\n{users}  ]\n}}\n"
    )


def _list(subjects: Sequence[str]) -> str:
    return "[\n" + "".join(f'          "{subject}"\n' for subject in subjects) + "        ]"


def _s3_identities(logins: Sequence[_Login]) -> str:
    found = [
        {
            "name": login.identity.user,
            "credentials": [{"accessKey": login.access_key, "secretKey": login.secret_key}],
            "actions": list(login.identity.actions),
        }
        for login in logins
    ]
    return json.dumps({"identities": found}, indent=2) + "\n"


def _service_env(login: _Login, installation: Installation) -> str:
    return _lines(
        {
            "VITASCOPE_NATS_PREFIX": installation.prefix,
            "VITASCOPE_NATS_USER": login.identity.user,
            "VITASCOPE_NATS_PASSWORD": login.password,
            "VITASCOPE_S3_ACCESS_KEY": login.access_key,
            "VITASCOPE_S3_SECRET_KEY": login.secret_key,
            "VITASCOPE_S3_FRAMES_BUCKET": installation.frames_bucket,
            "VITASCOPE_S3_RESULTS_BUCKET": installation.results_bucket,
            **({"VITASCOPE_S3_RESULT_PREFIX": installation.result_prefix} if installation.result_prefix else {}),
        }
    )


def _lines(variables: Mapping[str, str]) -> str:
    return "".join(f"{name}={value}\n" for name, value in variables.items())


def _login(folder: Path, identity: Identity, *, rotate: bool) -> _Login:
    path = folder / f"{identity.name}.env"
    found = read_env_file(path) if path.exists() and not rotate else {}
    # Letters first: nats-server reads a value such as 12e4 or 5k from its environment as a number.
    fresh = (f"n{secrets.token_hex(24)}", f"VS{secrets.token_hex(9).upper()}", secrets.token_hex(24))
    password, access_key, secret_key = (found.get(name) or new for name, new in zip(_SECRETS, fresh, strict=True))
    if not re.fullmatch("[A-Za-z][A-Za-z0-9_-]*", password):
        raise InvalidSettings(f"{path}: the broker's password must begin with a letter and hold letters and digits")
    return _Login(identity, password, access_key, secret_key)


def _write(path: Path, text: str) -> bool:
    """Replace a file, readable by its owner alone, unless it is so already; never leaves half of one."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        path.chmod(0o600)
        return False
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    fresh.replace(path)
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        installation = Installation(
            tuple(dict.fromkeys(options.pool)),
            options.prefix,
            dict(_worker(text) for text in options.worker),
            options.frames_bucket,
            options.results_bucket,
            f"{options.result_prefix.strip('/')}/" if options.result_prefix.strip("/") else "",
        )
        done = write_access(options.folder, installation, rotate=options.rotate)
    except InvalidSettings as error:
        sys.stderr.write(f"access: {error}\n")
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in done) or "nothing to do: every file is as it should be\n")
    return 0


def _worker(text: str) -> tuple[str, StageName]:
    name, _, stage = text.partition("=")
    try:
        return name, StageName(stage)
    except ValueError:
        raise InvalidSettings(f"--worker must be NAME=STAGE with one of {', '.join(StageName)}, got {text!r}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vitascope_platform.access",
        description="Make credentials and rights of each service for the broker and the store. Safe to repeat: secrets "
        "that are there stay.",
    )
    parser.add_argument("--folder", type=Path, required=True, help="where the files are or shall be")
    parser.add_argument("--pool", action="append", required=True, help="slug of a denoiser pool; repeatable")
    parser.add_argument("--prefix", default="vs", help="first token of every name on the broker (default vs)")
    parser.add_argument(
        "--worker", action="append", default=[], metavar="NAME=STAGE", help="one more service and its stage; repeatable"
    )
    parser.add_argument("--frames-bucket", default="vitascope-frames", help="default vitascope-frames")
    parser.add_argument("--results-bucket", default="vitascope-results", help="default vitascope-results")
    parser.add_argument("--result-prefix", default="", help="put before the keys of results (default nothing)")
    parser.add_argument(
        "--rotate", action="store_true", help="make new secrets; restart servers and services with them"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
