"""The uploader as a service: what it refuses, and that importing it does nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from vitascope_uploader.main import main

pytestmark = pytest.mark.usefixtures("environment")


def test_a_wrong_setting_is_one_line_and_exit_code_2(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("VITASCOPE_WORKER_CONCURRENCY", "0")

    with pytest.raises(SystemExit, match="2"):
        main()

    told = capsys.readouterr().err
    assert told.startswith(
        "vitascope-uploader: error: VITASCOPE_WORKER_CONCURRENCY: Input should be greater than or equal to 1"
    )
    assert told.count("\n") == 1


def test_importing_the_main_module_reads_and_starts_nothing() -> None:
    # A variable that no service takes: whoever read the environment would refuse it.
    code = (
        "import sys, threading, vitascope_uploader.main;"
        "assert not {'torch', 'diffusers'} & set(sys.modules), 'torch';"
        "assert threading.active_count() == 1, threading.enumerate()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "VITASCOPE_WORKER_X": "1"})
