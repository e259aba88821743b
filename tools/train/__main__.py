"""``python -m tools.train``: make the demonstration models again; what was stopped goes on where it was."""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan

from tools.train import autoencoder, enlargement, evaluation, interpolation, lora, packing, transformer
from vitascope_models.catalogue import CARD, DEMO, DEMO_ESRGAN, DEMO_RIFE, DEMO_STRIPES, data_folder

PARTS = ("vae", "decoder", "transformer", "lora", "rife", "esrgan")


def main(words: list[str]) -> int:
    """Run the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.train", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to train: {', '.join(PARTS)}; all without one")
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where states are kept; by default runs")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where the video model learns")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument(
        "--packed", action="store_true", help="let the video model and RIFE go on from those in the package"
    )
    parser.add_argument("--pack", action="store_true", help="put what was trained into the package")
    options = parser.parse_args(words)
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"there is no {unknown[0]!r} to train; there are {', '.join(PARTS)}")
    if options.packed and (not options.parts or "vae" in options.parts):
        parser.error("--packed goes on with the packed autoencoder: name the parts to train, without vae")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    options.folder.mkdir(parents=True, exist_ok=True)
    place = _Place(options.folder, options.device, evaluation.packed(DEMO) if options.packed else None)
    for part in options.parts or PARTS:
        _STEPS[part](place)
    if options.pack:
        _pack(place)
    return 0


@dataclass(frozen=True, slots=True)
class _Place:
    """Where things are kept and learned; ``packed`` is the pipeline that stands for what was not trained there."""

    folder: Path
    device: str
    packed: Path | None

    def vae(self, name: str = "vae", device: str | None = None) -> Any:
        """Return a trained autoencoder."""
        kind: Any = AutoencoderKLWan
        folder = self.folder / name
        if self.packed is not None and not folder.is_dir():
            folder = self.packed / "vae"
        return kind.from_pretrained(folder, torch_dtype=torch.float32).to(device or self.device).eval()

    def writer(self, vae: Any) -> transformer.Writer:
        """Return the trained transformer and text encoder; what was begun goes on."""
        return transformer.train(self.folder, vae, vae.device.type, packed=self.packed)


def _train_vae(place: _Place) -> None:
    _kept(autoencoder.train(place.folder, place.device), place.folder / "vae")


def _train_decoder(place: _Place) -> None:
    _kept(autoencoder.refine(place.folder, place.vae()), place.folder / "vae-refined")


def _kept(vae: Any, folder: Path) -> None:
    vae.save_pretrained(folder)
    logging.info("%s: held-out clips come back with %.1f dB", folder.name, autoencoder.fidelity(vae))


def _train_transformer(place: _Place) -> None:
    place.writer(place.vae())


def _train_lora(place: _Place) -> None:
    vae = place.vae()
    lora.train(place.folder, vae, place.writer(vae))


def _train_rife(place: _Place) -> None:
    interpolation.train(place.folder, packed=evaluation.packed(DEMO_RIFE) if place.packed else None)


def _train_esrgan(place: _Place) -> None:
    enlargement.train(place.folder)


_STEPS: dict[str, Callable[[_Place], None]] = {
    "vae": _train_vae,
    "decoder": _train_decoder,
    "transformer": _train_transformer,
    "lora": _train_lora,
    "rife": _train_rife,
    "esrgan": _train_esrgan,
}


def _pack(place: _Place) -> None:
    """Put what was trained into the package; what was not, and the cards, which people write, stay."""
    if (place.folder / transformer.STATE).is_file():
        vae = place.vae("vae-refined", "cpu")
        writer = place.writer(vae)
        if (place.folder / lora.STATE).is_file():
            lora.export(lora.train(place.folder, vae, writer), _emptied(DEMO_STRIPES))
        packing.pack_pipeline(vae, writer, _emptied(DEMO))
        figures = evaluation.from_texts(evaluation.opened(evaluation.packed(DEMO)), evaluation.held_out(20))
        logging.info("of 20 held-out captions: %s", figures)
    if (place.folder / interpolation.STATE).is_file():
        interpolation.export(place.folder, _emptied(DEMO_RIFE))
    if (place.folder / enlargement.STATE).is_file():
        enlargement.export(place.folder, _emptied(DEMO_ESRGAN))
    packing.note_checksums(data_folder())


def _emptied(name: str) -> Path:
    folder = evaluation.packed(name)
    folder.mkdir(parents=True, exist_ok=True)
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != CARD:
            entry.unlink()
    return folder


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
