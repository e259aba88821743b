"""``python -m tools.train``: make the demonstration models again; what was stopped goes on where it was."""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan

from tools.train import autoencoder, enlargement, evaluation, interpolation, lora, packing, transformer
from vitascope_models.catalogue import CARD, DEMO, DEMO_ESRGAN, DEMO_RIFE, data_folder, embedded

PARTS = ("vae", "decoder", "transformer", "lora", "rife", "esrgan")


def main(words: list[str]) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.train", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to train: {', '.join(PARTS)}; all without one")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where states are kept; by default runs")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the video model learns")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--pack", action="store_true", help="put what was trained into the package")
    options = parser.parse_args(words)
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no {unknown[0]!r} to train; there are {', '.join(PARTS)}")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    for part in options.parts or PARTS:
        _STEPS[part](options.folder, options.device)
    if options.pack:
        _pack(options.folder)
    return 0


def _train_vae(folder: Path, device: str) -> None:
    _kept(autoencoder.train(folder, device), folder / "vae")


def _train_decoder(folder: Path, device: str) -> None:
    _kept(autoencoder.refine(folder, _vae(folder / "vae", device)), folder / "vae-refined")


def _kept(vae: Any, folder: Path) -> None:
    vae.save_pretrained(folder)
    logging.info("%s: held-out clips come back with %.1f dB", folder.name, autoencoder.fidelity(vae))


def _train_transformer(folder: Path, device: str) -> None:
    transformer.train(folder, _vae(folder / "vae", device), device)


def _train_lora(folder: Path, device: str) -> None:
    vae = _vae(folder / "vae", device)
    lora.export(lora.train(folder, vae, transformer.train(folder, vae, device)), folder / "lora")


def _train_rife(folder: Path, _: str) -> None:
    interpolation.train(folder)


def _train_esrgan(folder: Path, _: str) -> None:
    enlargement.train(folder)


_STEPS: dict[str, Callable[[Path, str], None]] = {
    "vae": _train_vae,
    "decoder": _train_decoder,
    "transformer": _train_transformer,
    "lora": _train_lora,
    "rife": _train_rife,
    "esrgan": _train_esrgan,
}


def _vae(folder: Path, device: str) -> Any:
    kind: Any = AutoencoderKLWan
    return kind.from_pretrained(folder).to(device).eval()


def _pack(folder: Path) -> None:
    """Put everything into the package; the cards, which people write, stay."""
    vae = _vae(folder / "vae-refined", "cpu")
    packing.pack_pipeline(vae, transformer.train(folder, vae), _emptied(DEMO))
    interpolation.export(folder, _emptied(DEMO_RIFE))
    enlargement.export(folder, _emptied(DEMO_ESRGAN))
    packing.note_checksums(data_folder())
    figures = evaluation.from_texts(evaluation.opened(_folder(DEMO)), evaluation.held_out(20))
    logging.info("packed; of 20 held-out captions: %s", figures)


def _emptied(name: str) -> Path:
    folder = _folder(name)
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != CARD:
            entry.unlink()
    return folder


def _folder(name: str) -> Path:
    folder = embedded(name)
    if folder is None:
        raise LookupError(f"{name} is no demonstration model")
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
