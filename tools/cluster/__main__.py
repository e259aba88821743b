"""``make cluster``: a whole cluster on this machine, until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tools.cluster.cluster import DENOISER, GATEWAY, INTERPOLATOR, TESTCARD, UPLOADER, UPSCALER, Cluster
from tools.cluster.process import ServiceFailed
from vitascope_denoiser.demo import example_prompt
from vitascope_denoiser.settings import DEMO_MODEL, slug_of
from vitascope_models.catalogue import DEMO_ESRGAN, DEMO_RIFE

LOADING_S = 3600.0
"""Time that services have to come up: a model may have to be downloaded."""

_DEMO_WEIGHTS = {
    "VITASCOPE_INTERPOLATOR_MODEL_PATH": DEMO_RIFE,
    "VITASCOPE_UPSCALER_MODEL_PATH": DEMO_ESRGAN,
}
"""What the transforms run on where the demonstration model is served and nothing else is said."""

SERVICES = (GATEWAY, DENOISER, INTERPOLATOR, UPSCALER, UPLOADER)


class WrongVariable(Exception):
    """A variable of ``make cluster`` is malformed."""


def main() -> int:
    """Run the cluster that the variables describe; return the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        model = os.environ.get("MODEL") or DEMO_MODEL
        if model == DEMO_MODEL:
            for name, weights in _DEMO_WEIGHTS.items():
                os.environ.setdefault(name, weights)
        replicas = {service: _number(f"REPLICAS_{service.upper()}", _usual(service), 64) for service in SERVICES}
        port = _number("PORT", 30010, 65535)
        with _folder(os.environ.get("STATE", "")) as folder:
            _run(model, replicas, port, folder, secured=bool(_number("SECURED", 0, 1)))
    except WrongVariable as error:
        print(f"cluster: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    except (ServiceFailed, RuntimeError, OSError) as error:
        print(f"cluster: error: {error}", file=sys.stderr)
        return 1
    return 0


def _run(model: str, replicas: dict[str, int], port: int, folder: Path, *, secured: bool) -> None:
    """Run until interrupted; a service that ends meanwhile is started again, as Kubernetes would."""
    print(f"Starting a cluster that serves {model}; its state is in {folder} …", file=sys.stderr, flush=True)
    cluster = Cluster(
        folder,
        model=model,
        pool=TESTCARD if model == TESTCARD else slug_of(model),
        replicas=replicas,
        env={name: value for name, value in os.environ.items() if name.startswith("VITASCOPE_")},
        gateway_port=port,
        ready_s=LOADING_S,
        secured=secured,
        heard=_print_line,
    )
    with cluster:
        _print_banner(cluster, model)
        while True:
            time.sleep(1.0)
            for service in SERVICES:
                for index, process in enumerate(cluster.processes(service)):
                    if not process.alive:
                        _print_line("cluster", f"{process.name} ended with exit code {process.exit_code}; starting it")
                        cluster.restart(service, index, wait=False)


def _usual(service: str) -> int:
    """Return how many run unless told: a transform only where it has weights."""
    if service in (INTERPOLATOR, UPSCALER):
        return 1 if os.environ.get(f"VITASCOPE_{service.upper()}_MODEL_PATH") else 0
    return 1


def _interrupt(*_: object) -> None:
    """End in order; that takes seconds, in which more of the same is not heard."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    print("\nStopping …", file=sys.stderr, flush=True)
    raise KeyboardInterrupt


def _print_line(name: str, line: str) -> None:
    print(f"{name:<12} | {line}", file=sys.stderr, flush=True)


def _print_banner(cluster: Cluster, model: str) -> None:
    # Names without a port are those of tools; with one, what to open.
    lines = [f"Vitascope serves {model} on {' and '.join(cluster.gateways) or 'no gateway'}"]
    lines += [f"  {process.name:<12} {process.health_url}/metrics" for process in cluster.processes()]
    lines += [f"  {'nats':<12} {cluster.nats.url}", f"  {'s3':<12} {cluster.s3.endpoint}"]
    if cluster.access is not None:
        lines += [f"  {'credentials':<12} {cluster.access}"]
    if cluster.gateways:
        url, prompt = cluster.gateways[0], example_prompt(model)
        lines += [
            "",
            "Make a video (paste both lines):",
            f"""  id=$(curl -sS {url}/v1/videos -F prompt='{prompt}' | sed 's/.*"id": *"\\([^"]*\\)".*/\\1/')""",
            f"  curl -sfL --retry 600 --retry-delay 1 --retry-all-errors -o video.mp4 {url}/v1/videos/$id/content",
        ]
    print("\n".join(lines), flush=True)


@contextlib.contextmanager
def _folder(state: str) -> Iterator[Path]:
    """Return the folder for state: one that is kept if named, else one for this run."""
    if state:
        folder = Path(state).expanduser().resolve()
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="vitascope-cluster-", ignore_cleanup_errors=True) as temporary:
        yield Path(temporary)


def _number(name: str, default: int, most: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and int(text) <= most):
        raise WrongVariable(f"{name} must be from 0 to {most}, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
