"""A finished video file: written by one encoder run, and read back for previews."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.codec.context import ThreadType
from av.container import OutputContainer

from vitascope_core.errors import InputLost
from vitascope_frames.chunk import Frames
from vitascope_frames.colour import ColourConverter
from vitascope_frames.h264 import KEYFRAME_S, H264Writer, VideoQuality, ffmpeg_errors, ticks
from vitascope_frames.sound import sound_beside

_DECODER_THREADS = 2


@dataclass(frozen=True, slots=True)
class VideoFile:
    """What was written.

    Attributes:
        width: Pixels of the file: even, so up to one more than the frames'.
        height: Pixels of the file, as ``width``.
        frames: Frames in it.
    """

    path: Path
    width: int
    height: int
    frames: int


@contextmanager
def create_mp4(path: Path, fps: Fraction) -> Iterator[OutputContainer]:
    """Open an MP4 whose index comes first, so that it plays while it loads, and whose times are exact at ``fps``.

    ``path`` is needed, a file object is not enough: FFmpeg reopens the file by name to move the index.

    Raises:
        EncodingFailed: FFmpeg could not write, here or in the body.
        DiskFull: There is no room for it.
    """
    timescale = str(ticks(fps)[0])
    options = {"movflags": "faststart", "video_track_timescale": timescale, "movie_timescale": timescale}
    with ffmpeg_errors(), av.open(path, "w", format="mp4", options=options) as container:
        yield container


def encode_video(
    frames: Iterable[Frames], fps: Fraction, quality: VideoQuality, path: Path, sound: Path | None = None
) -> VideoFile:
    """Encode frames into an H.264 MP4 with one encoder run.

    The bytes depend on the frames alone, not on the chunks in which they arrived. Memory holds what x264 looks ahead.

    Args:
        frames: uint8 (H, W, 3 or 4), all of one size; taken one by one, and not kept.
        fps: Exact frames a second.
        quality: What to aim at.
        path: Where the file is made.
        sound: What `vitascope_frames.sound.take_sound` wrote, to be heard beside the frames.

    Raises:
        InputLost: There is no frame, sizes differ, or the sound is damaged.
        EncodingFailed: FFmpeg could not write.
        DiskFull: There is no room for it.
    """
    with create_mp4(path, fps) as container:
        writer = H264Writer(container, fps, quality)
        with sound_beside(container, sound) as track:
            # Not `enumerate`, and `del` in the loop: both would keep the chunk before alive while the next is fetched.
            for frame in frames:
                writer.write(frame)
                del frame
                track.until(writer.frames / fps)
            writer.finish()
            if writer.frames:
                track.finish()
        file = VideoFile(path, writer.width, writer.height, writer.frames)
    if not file.frames:
        raise InputLost("there are no frames to make a video of")
    return file


def read_frames(path: Path, wanted: Collection[int]) -> Iterator[tuple[int, Frames]]:
    """Decode a file written here and yield (number, RGB uint8 (H, W, 3)) of the frames in ``wanted``, in order.

    Of a long file only what lies before the wanted frames is decoded, from the key frame on.

    Raises:
        InputLost: The file cannot be decoded, or ends before the last frame wanted.
    """
    colour = ColourConverter()
    missing = sorted(wanted, reverse=True)
    try:
        # Our own file, but an "mp4" that is an ffconcat script would open other local files: only MP4 is let in.
        with av.open(path, format="mp4") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_type = ThreadType.AUTO
            stream.codec_context.thread_count = _DECODER_THREADS
            rate, clock = stream.average_rate, stream.time_base
            at, pictures, sought = 0, container.decode(stream), -1
            while missing:
                # Once for each: the key frame before it may be far away.
                if rate and clock and missing[-1] - at > KEYFRAME_S * rate and missing[-1] != sought:
                    sought = missing[-1]
                    container.seek(round(sought / rate / clock), stream=stream)
                    pictures = container.decode(stream)
                picture = next(pictures, None)
                if picture is None:
                    break
                # Its time tells its number: in a file of ours frame n is shown at n / fps.
                at = round(picture.pts * clock * rate) if rate and clock and picture.pts is not None else at
                if at == missing[-1]:
                    yield missing.pop(), colour.to_rgb(picture)
                at += 1
            else:
                return
    except (av.error.FFmpegError, IndexError) as error:
        raise InputLost(f"{path.name} cannot be decoded: {error}") from error
    raise InputLost(f"{path.name} ends before frame {missing[-1]}")
