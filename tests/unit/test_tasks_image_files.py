"""Decoding: every mode keeps its brightness, or the file is refused with the reason."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from metaopt.core.errors import TaskDataError
from metaopt.tasks.image_files import Extremes, ValueRange, decode, inspect, value_range

GREY = {  # name of a mode: an image of which the left half is black and the right half is half white
    "1": None,
    "L": 128,
    "LA": (128, 255),
    "RGB": (128, 128, 128),
    "RGBA": (128, 128, 128, 255),
    "CMYK": (0, 0, 0, 127),
    "YCbCr": (128, 128, 128),
    "I;16": 32896,
    "I;16B": 32896,
    "I": 32896,
    "F": 0.5,
}


def half_grey(mode):
    """Black on the left, grey on the right, with one white pixel that shows the range."""
    white = {
        "1": 1,
        "I": 65535,
        "I;16": 65535,
        "I;16B": 65535,
        "F": 1.0,
        "CMYK": (0, 0, 0, 0),
        "YCbCr": (255, 128, 128),
    }
    black = {"CMYK": (0, 0, 0, 255), "YCbCr": (0, 128, 128), "LA": (0, 255), "RGBA": (0, 0, 0, 255)}
    image = Image.new(mode, (8, 8), black.get(mode, 0))
    if GREY[mode] is not None:
        image.paste(Image.new(mode, (4, 8), GREY[mode]), (4, 0))
    full = Image.new("L", (1, 1), 255).convert(mode) if mode in ("L", "LA", "RGB", "RGBA") else None
    image.paste(full or Image.new(mode, (1, 1), white.get(mode)), (7, 7))
    return image


@pytest.mark.parametrize("mode", GREY)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_keeps_its_brightness(tmp_path, mode, channels):
    half_grey(mode).save(tmp_path / "image.tif")
    pixels = decode(tmp_path / "image.tif", 8, channels).int()
    assert (pixels[:, :, :4] == 0).all()
    assert (pixels[:, 7, 7] == 255).all()
    if GREY[mode] is not None:
        assert ((pixels[:, :7, 4:] - 128).abs() <= 1).all()


@pytest.mark.parametrize("transparency", [0, bytes([0, 255])])
def test_a_palette_with_transparency_keeps_its_colours(tmp_path, transparency):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([9, 9, 9, 200, 100, 50])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "image.png", transparency=transparency)
    pixels = decode(tmp_path / "image.png", 4, 3)
    assert pixels[:, 3, 3].tolist() == [200, 100, 50]
    assert pixels[:, 0, 0].tolist() == [255, 255, 255]


def saved(path, values, dtype):
    Image.fromarray(np.asarray(values, dtype).reshape(2, -1)).save(path)
    return path


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 2048, 4095, 1024], np.uint16, [0, 128, 255, 64]),  # 12 bits
        ([0, 512, 1023, 256], np.uint16, [0, 128, 255, 64]),
        ([0, 8192, 16383, 4096], np.uint16, [0, 128, 255, 64]),
        ([0, 32768, 65535, 16384], np.uint16, [0, 128, 255, 64]),
        ([0, 100, 200, 255], np.uint16, [0, 100, 200, 255]),
        ([0, 40000, 65535, 5], np.int32, [0, 156, 255, 0]),
        ([0.0, 0.5, 1.0, 0.25], np.float32, [0, 128, 255, 64]),
        ([-1.0, 0.0, 1.0, -0.5], np.float32, [0, 128, 255, 64]),
        ([0.0, 128.0, 255.0, 64.5], np.float32, [0, 128, 255, 64]),
        ([0.0, 3000.0, 4095.0, 1.5], np.float32, [0, 187, 255, 0]),
    ],
)
def test_values_of_more_than_eight_bits_are_scaled_by_their_range(tmp_path, values, dtype, expected):
    pixels = decode(saved(tmp_path / "image.tif", values, dtype), 2, 1)
    assert pixels.flatten().tolist() == expected


def test_a_grey_map_states_its_range(tmp_path):
    (tmp_path / "image.pgm").write_bytes(b"P5 2 2 4095\n" + np.array([0, 1000, 2000, 500], ">u2").tobytes())
    assert decode(tmp_path / "image.pgm", 2, 1).flatten().tolist() == [0, 62, 125, 31]


@pytest.mark.parametrize(
    ("values", "dtype", "reason"),
    [
        ([0, 0.5, np.nan, 1], np.float32, "not finite"),
        ([0, 0.5, np.inf, 1], np.float32, "not finite"),
        ([-300, 0, 900, 2], np.float32, "from -300 .* to 900 .*expected 0 to 1, -1 to 1 or 0 to 65535"),
        ([0, 1, 2, 1e9], np.float32, r"to 1e\+09"),
        ([0, -1, 70000, 3], np.int32, "from -1 .* to 70000 .*expected 0 to 65535"),
    ],
)
def test_values_of_no_usual_range_are_refused(tmp_path, values, dtype, reason):
    with pytest.raises(TaskDataError, match=reason) as caught:
        decode(saved(tmp_path / "image.tif", values, dtype), 2, 1)
    assert "image.tif" in str(caught.value)


def test_one_range_serves_all_images(tmp_path):
    images = [Extremes(tmp_path / str(high), 0, high, "whole") for high in (12, 4000, 700)]
    assert value_range(images) == ValueRange(0, 4095)
    assert value_range([]) is None
    with pytest.raises(TaskDataError, match=r"has floats, .* whole numbers"):
        value_range([*images, Extremes(tmp_path, 0, 1, "floats")])


def colours_of_16_bits(path, value):
    """A PNG of 16 bits per colour, which Pillow reads and does not write."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = (b"\0" + struct.pack(">3H", *[value] * 3) * 2) * 2
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return path


def test_colours_of_sixteen_bits_are_not_black(tmp_path):
    assert decode(colours_of_16_bits(tmp_path / "bright.png", 40000), 2, 3).eq(156).all()
    dark = colours_of_16_bits(tmp_path / "dark.png", 4095)
    with pytest.raises(TaskDataError, match=r"dark\.png has colours of 16 bits.*upper 8"):
        decode(dark, 2, 3)
    found = [inspect(tmp_path / name).extremes for name in ("bright.png", "dark.png")]
    assert value_range(found) is None  # a dark one among bright ones


@pytest.mark.parametrize("ending", ["gif", "tif", "webp", "png"])
def test_the_first_of_several_frames_is_read_and_counted(tmp_path, ending):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("white", "black")]
    path = tmp_path / f"image.{ending}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert inspect(path).several
    assert decode(path, 4, 3).min() > 250
    frames[0].save(path)
    assert not inspect(path).several


@pytest.mark.parametrize("ending", ["bmp", "gif", "jpg", "png", "tif", "webp", "avif", "jfif", "ppm"])
def test_a_truncated_file_is_refused(tmp_path, ending):
    path = tmp_path / f"image.{ending}"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(TaskDataError, match=rf"image\.{ending} cannot be read"):
        decode(path, 64, 3)


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_every_orientation_is_turned_upright(tmp_path, orientation):
    image = Image.new("L", (4, 4))
    image.paste(255, (0, 0, 2, 1))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "image.png", exif=exif)
    with Image.open(tmp_path / "image.png") as file:
        turns = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE"}
        turns |= {6: "ROTATE_270", 7: "TRANSVERSE", 8: "ROTATE_90"}
        upright = file.transpose(Image.Transpose[turns[orientation]])
    assert decode(tmp_path / "image.png", 4, 1)[0].tolist() == np.asarray(upright).tolist()


def test_a_decompression_bomb_is_refused(tmp_path, monkeypatch):
    Image.new("L", (40, 40)).save(tmp_path / "image.png")
    for pixels in (1500, 700):  # a warning of Pillow, then an error
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pixels)
        with pytest.raises(TaskDataError, match="DecompressionBomb"):
            decode(tmp_path / "image.png", 4, 1)


def test_no_format_that_starts_a_program_is_opened(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "image.eps")
    (tmp_path / "image.eps").rename(tmp_path / "image.png")
    with pytest.raises(TaskDataError, match="cannot identify image file"):
        decode(tmp_path / "image.png", 4, 1)
