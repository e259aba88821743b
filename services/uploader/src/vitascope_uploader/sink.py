"""The sink: chunks and segments become the files that a client downloads."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import count
from pathlib import Path

from vitascope_core.errors import InputLost
from vitascope_core.job import FileRecord, JobKind, JobSpec
from vitascope_core.ports import Control
from vitascope_frames.chunk import Chunk, Frames, Segment
from vitascope_frames.h264 import VideoQuality
from vitascope_frames.pictures import FORMATS, Picture, Spritesheet, encode_picture, thumbnail
from vitascope_frames.segments import join_segments
from vitascope_frames.stages import Artifact
from vitascope_frames.video_file import VideoFile, encode_video, read_frames

Part = Chunk | Segment


class FileSink:
    """Writes a job's files into a folder: pictures, or videos with a thumbnail and a spritesheet.

    Memory holds one part and the previews, however long the video is.
    """

    def write(
        self, spec: JobSpec, parts: Iterator[Part], folder: Path, control: Control, sound: Path | None = None
    ) -> list[Artifact]:
        """Write every output's files into ``folder``.

        Args:
            spec: What the files are to be.
            parts: All parts of output 0 in order, then those of output 1, and so on.
            folder: An empty folder on local disk.
            control: Ticked once for every part, and for every preview read from a file.
            sound: To be heard beside the first output; None for none.

        Raises:
            Stopped: From ``control.tick``.
            InputLost: The parts leave a hole, stop early or do not fit together.
            SegmentsDiffer: Segments cannot share a file.
            EncodingFailed: A video could not be written.
            DiskFull: There is no room for it.
        """
        artifacts: list[Artifact] = []
        for output in range(spec.outputs):
            unbroken = _unbroken(spec, output, parts, control)
            if spec.kind is JobKind.IMAGE:
                artifacts += self._write_picture(spec, output, unbroken, folder)
            else:
                heard = sound if output == 0 else None
                artifacts += self._write_video(spec, output, unbroken, folder, control, heard)
        return artifacts

    def _write_picture(self, spec: JobSpec, output: int, parts: Iterator[Part], folder: Path) -> list[Artifact]:
        pictures = [
            encode_picture(frame, spec.output.format, spec.output.compression) for frame in _frames(parts, output)
        ]
        if len(pictures) != 1:
            raise InputLost(f"output {output} of an image job holds {len(pictures)} frames")
        suffix = FORMATS[spec.output.format].suffix
        return [_picture_artifact(folder / f"{output}.{suffix}", output, "image", spec.output.format, pictures[0])]

    def _write_video(
        self, spec: JobSpec, output: int, parts: Iterator[Part], folder: Path, control: Control, sound: Path | None
    ) -> list[Artifact]:
        path = folder / f"{output}.mp4"
        previews = None if spec.out_frames is None else _Previews(spec.out_frames)
        # In a deque, so that the first part is not kept alive here while the rest is written.
        held = deque((next(parts),))
        joins, fps = isinstance(held[0], Segment), spec.out_fps or held[0].fps
        rest = _resumed(held, parts)
        if joins:
            file = join_segments(_segments(rest, output), fps, path, sound)
        else:
            frames = _frames(rest, output)
            seen = frames if previews is None else previews.watch(frames)
            file = encode_video(seen, fps, VideoQuality.of(spec.output.compression), path, sound)
        if joins or previews is None:
            # What to show depends on how many frames there are, which may be known only now.
            previews = _Previews(file.frames)
            for number, frame in read_frames(path, previews.wanted):
                control.tick()
                previews.see(number, frame)
        return [_video_artifact(file, output, fps), *previews.artifacts(folder, output)]


class _Previews:
    """The thumbnail and the spritesheet of one video, collected while its frames pass."""

    def __init__(self, frames: int) -> None:
        self._sheet = Spritesheet(frames)
        self._thumbnail: Picture | None = None
        self.wanted = frozenset(self._sheet.numbers)

    def see(self, number: int, frame: Frames) -> None:
        if number == 0:
            self._thumbnail = thumbnail(frame)
        if number in self.wanted:
            self._sheet.add(frame)

    def watch(self, frames: Iterator[Frames]) -> Iterator[Frames]:
        numbers = count()  # not `enumerate`: it holds its last item while it asks for the next
        for frame in frames:
            self.see(next(numbers), frame)
            yield frame
            del frame

    def artifacts(self, folder: Path, output: int) -> list[Artifact]:
        if self._thumbnail is None:
            raise InputLost(f"output {output} has no first frame")
        return [
            _picture_artifact(folder / f"{output}-thumbnail.webp", output, "thumbnail", "webp", self._thumbnail),
            _picture_artifact(
                folder / f"{output}-spritesheet.jpg",
                output,
                "spritesheet",
                "jpeg",
                self._sheet.encode(),
                frames=len(self._sheet.numbers),
                columns=self._sheet.columns,
            ),
        ]


def _unbroken(spec: JobSpec, output: int, parts: Iterator[Part], control: Control) -> Iterator[Part]:
    """Yield the parts of one output, holding them to their order, and leave those of the next in ``parts``."""
    frames = 0
    indices = count()
    for part in parts:
        control.tick()
        index = next(indices)
        if (part.output, part.index, part.start) != (output, index, frames):
            raise InputLost(
                f"expected chunk {output}-{index} at frame {frames}, "
                f"got chunk {part.output}-{part.index} at frame {part.start}"
            )
        frames += part.frames if isinstance(part, Segment) else len(part.frames)
        last = part.last
        yield part
        del part
        if last:
            if spec.out_frames is not None and frames != spec.out_frames:
                raise InputLost(f"output {output} ends after {frames} of {spec.out_frames} frames")
            return
    expected = "" if spec.out_frames is None else f" of {spec.out_frames}"
    raise InputLost(f"output {output} stops after {frames}{expected} frames")


def _resumed(held: deque[Part], rest: Iterator[Part]) -> Iterator[Part]:
    yield held.popleft()
    yield from rest


def _frames(parts: Iterator[Part], output: int) -> Iterator[Frames]:
    for part in parts:
        if isinstance(part, Segment):
            raise InputLost(f"output {output} mixes frames and segments")
        for place in range(len(part.frames)):
            yield part.frames[place]
        del part


def _segments(parts: Iterator[Part], output: int) -> Iterator[bytes]:
    for part in parts:
        if isinstance(part, Chunk):
            raise InputLost(f"output {output} mixes segments and frames")
        yield part.data
        del part


def _video_artifact(file: VideoFile, output: int, fps: Fraction) -> Artifact:
    record = FileRecord(
        output=output,
        variant="video",
        key="",
        content_type="video/mp4",
        size=file.path.stat().st_size,
        width=file.width,
        height=file.height,
        frames=file.frames,
        fps=fps,
    )
    return Artifact(file.path.name, file.path, record)


def _picture_artifact(
    path: Path, output: int, variant: str, file_format: str, picture: Picture, *, frames: int = 1, columns: int = 0
) -> Artifact:
    path.write_bytes(picture.data)
    record = FileRecord(
        output=output,
        variant=variant,
        key="",
        content_type=FORMATS[file_format].content_type,
        size=len(picture.data),
        width=picture.width,
        height=picture.height,
        frames=frames,
        columns=columns,
    )
    return Artifact(path.name, path, record)
