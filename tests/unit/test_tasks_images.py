import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from metaopt.core.errors import InvalidConfig, TaskDataError
from metaopt.tasks import load_task
from metaopt.tasks.image_files import decode


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 4)):
        for name in ("dog", "cat"):
            (tmp_path / "images" / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / part / name / f"{index}.png")
    return tmp_path / "images"


def load(folder, **options):
    return load_task("image-folder", data_dir=folder, image_size=6, **options)


def test_splits_classes_and_standardisation(folder):
    task = load(folder)
    assert {name: len(split) for name, split in task.splits.items()} == {
        "train": 18,
        "meta": 4,
        "guard": 2,
        "validation": 8,
    }
    assert task.class_names == ["cat", "dog"]
    assert task.model_facts == {"in_features": 108, "in_channels": 3, "image_size": 6, "classes": 2}
    inputs = torch.cat([task.splits[name][:].inputs for name in ("train", "meta", "guard")])
    assert torch.allclose(inputs.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(inputs.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)


def test_a_second_load_is_equal_and_reads_no_image(folder, monkeypatch):
    first = load(folder)
    monkeypatch.setattr(Image, "open", None)
    again = load(folder)
    assert again.digest() == first.digest()
    assert torch.equal(again.splits["train"][:].inputs, first.splits["train"][:].inputs)


def test_a_changed_image_is_decoded_again(folder):
    before = load(folder).digest()
    Image.new("RGB", (6, 6), "red").save(folder / "train" / "cat" / "0.png")
    assert load(folder).digest() != before


def test_the_order_of_the_file_system_does_not_matter(folder, tmp_path, home):
    before = load(folder).digest()
    for path in sorted(folder.rglob("*.png"), reverse=True):
        copy = tmp_path / "other" / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    shutil.rmtree(home)
    assert load(tmp_path / "other").digest() == before


def test_an_unreadable_image_is_skipped_with_a_warning_in_each_run(folder, caplog):
    (folder / "train" / "dog" / "3.png").write_bytes(b"no image")
    for _ in range(2):
        caplog.clear()
        assert sum(map(len, load(folder).splits.values())) == 31
        assert "3.png" in caplog.text
        assert "1 images" in caplog.text
    with pytest.raises(TaskDataError, match=r"3\.png cannot be read .*strict"):
        load(folder, strict=True)


def test_a_truncated_image_is_unreadable(folder, caplog):
    path = folder / "train" / "dog" / "3.png"
    path.write_bytes(path.read_bytes()[:-60])
    load(folder)
    assert "3.png cannot be read" in caplog.text


def nothing(folder):
    shutil.rmtree(folder)


def empty(folder):
    shutil.rmtree(folder)
    (folder / "train").mkdir(parents=True)


def no_test(folder):
    shutil.rmtree(folder / "test")


def new_class(folder):
    (folder / "test" / "dog").rename(folder / "test" / "eel")


def one_class(folder):
    for part in ("train", "test"):
        shutil.rmtree(folder / part / "dog")


def empty_class(folder):
    (folder / "train" / "eel").mkdir()


def no_images(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        (nothing, "there is no folder .*train.*train/<class>/<image>.*data_dir"),
        (empty, "train holds no images"),
        (no_test, "there is no folder .*test"),
        (new_class, "no training images for eel.*cat, dog"),
        (one_class, "one class, cat"),
        (empty_class, "eel holds no images.*remove"),
        (no_images, "too few to divide"),
    ],
)
def test_an_invalid_folder_is_an_error(folder, corrupt, message):
    corrupt(folder)
    with pytest.raises(TaskDataError, match=message) as caught:
        load(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize("name", [".ipynb_checkpoints", "@eaDir", "__MACOSX"])
@pytest.mark.parametrize("inside", ["train", "train/dog", "train/dog/deep"])
def test_hidden_and_system_folders_are_no_data(folder, caplog, name, inside):
    before = load(folder).digest()
    hidden = folder / inside / name / "deeper"
    hidden.mkdir(parents=True)
    shutil.copy(folder / "train" / "dog" / "0.png", hidden)
    for _ in range(2):  # also where the images come from the cache
        caplog.clear()
        task = load(folder)
        assert task.digest() == before
        assert task.class_names == ["cat", "dog"]
        assert f"{folder / 'train'}: ignored 1 hidden or system folder" in caplog.text
        assert task.describe().to_mapping()["notes"] == list(task.notes)
        assert "ignored 1 hidden" in task.notes[0]


def test_ignored_files_are_counted(folder):
    shutil.copy(folder / "train" / "dog" / "0.png", folder / "train" / "outside.png")
    (folder / "train" / "dog" / "notes.txt").write_text("")
    (folder / "train" / "dog" / "Thumbs.db").write_text("")
    (folder / "train" / "dog" / "link.png").symlink_to("0.png")
    assert load(folder).notes == (
        f"{folder / 'train'}: ignored 1 hidden or system file, 1 image outside of class folders, 1 link to what is "
        "read already, 1 file with other endings (.txt 1)",
    )


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".avif", ".JPG", ".Png", ".pnm"])
def test_more_endings_are_images(folder, ending):
    with Image.open(folder / "train" / "dog" / "0.png") as image:
        kind = {".jfif": "JPEG", ".jpe": "JPEG", ".avif": "AVIF", ".JPG": "JPEG", ".pnm": "PPM"}.get(ending, "PNG")
        image.save(folder / "train" / "dog" / f"more{ending}", format=kind)
    task = load(folder)
    assert sum(map(len, task.splits.values())) == 33
    assert task.notes == ()


def test_test_images_that_are_links_to_training_images_are_not_used(folder):
    for path in (folder / "test" / "cat").iterdir():
        path.unlink()
        path.symlink_to(folder / "train" / "cat" / path.name)
    with pytest.raises(TaskDataError, match=r"test/cat holds no images"):
        load(folder)
    shutil.rmtree(folder / "test")
    (folder / "test").symlink_to("train")
    with pytest.raises(TaskDataError, match="overlap"):
        load(folder)


def test_classes_may_be_links_out_of_the_folder(folder, tmp_path):
    before = load(folder).digest()
    for part in ("train", "test"):
        (folder / part / "dog").rename(tmp_path / f"dogs of {part}")
        (folder / part / "dog").symlink_to(tmp_path / f"dogs of {part}")
    task = load(folder)
    assert task.digest() == before
    assert task.notes == tuple(f"{folder / part}: followed 1 link out of it" for part in ("train", "test"))


def test_images_of_12_bits_are_scaled_alike(folder):
    for brightness, path in enumerate(sorted(folder.rglob("*.png"))):
        path.unlink()
        pixels = np.full((6, 6), 100 * brightness + 900, np.uint16)
        Image.fromarray(pixels).save(path.with_suffix(".tif"))
    task = load(folder, channels=1)
    assert task.notes == (
        f"{folder}: 32 images of more than 8 bits; 0 becomes black and 4095 white, the usual range "
        "that contains all their values",
    )
    assert task.splits["validation"][:].inputs.unique().numel() == 8
    Image.fromarray(np.full((6, 6), -1.5, np.float32)).save(folder / "train" / "dog" / "float.tif")
    with pytest.raises(TaskDataError, match=r"float\.tif has floats, .* whole numbers"):
        load(folder, channels=1)


def test_files_of_several_images_are_counted(folder):
    frames = [Image.new("L", (6, 6), grey) for grey in (0, 255)]
    frames[0].save(folder / "train" / "dog" / "moves.gif", save_all=True, append_images=frames[1:])
    for _ in range(2):
        assert load(folder).notes == (f"{folder}: read the first image of 1 file with several",)


def test_a_replaced_image_with_the_same_size_and_time_is_decoded_again(folder):
    path = folder / "train" / "cat" / "0.png"
    times, before = path.stat(), load(folder).digest()
    data = path.read_bytes()
    for other in sorted(folder.glob("train/*/*.png")):
        if other != path and other.stat().st_size == len(data):
            path.write_bytes(other.read_bytes())
            break
    else:
        pytest.skip("all files differ in size")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert load(folder).digest() != before


def test_two_channels_are_an_error(folder):
    with pytest.raises(InvalidConfig, match="channels is 2"):
        load(folder, channels=2)


def test_grey_images(folder):
    assert load(folder, channels=1).model_facts["in_features"] == 36


def saved(tmp_path, image, name="image.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


def test_an_image_of_the_right_size_keeps_every_pixel(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    decoded = decode(saved(tmp_path, Image.fromarray(pixels)), 6, 3)
    assert torch.equal(decoded, torch.from_numpy(pixels).movedim(-1, 0))


def test_a_wide_image_is_cropped_to_its_centre(tmp_path):
    pixels = np.zeros((8, 24), dtype=np.uint8)
    pixels[:, 8:16] = 200
    assert (decode(saved(tmp_path, Image.fromarray(pixels)), 4, 1) > 150).all()


def test_an_image_is_rotated_upright(tmp_path):
    image = Image.new("L", (4, 4))
    image.putpixel((0, 0), 255)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated to the right
    decoded = decode(saved(tmp_path, image, exif=exif), 4, 1)
    assert decoded[0].nonzero().tolist() == [[0, 3]]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_mode_gives_bytes(tmp_path, mode, channels):
    name = "image.tif" if mode == "CMYK" else "image.png"
    decoded = decode(saved(tmp_path, Image.new(mode, (5, 7)), name), 4, channels)
    assert decoded.shape == (channels, 4, 4)
    assert decoded.dtype == torch.uint8


def test_transparent_pixels_are_white(tmp_path):
    assert decode(saved(tmp_path, Image.new("RGBA", (4, 4), (9, 9, 9, 0))), 4, 3).eq(255).all()
    palette = Image.new("P", (4, 4))
    assert decode(saved(tmp_path, palette, transparency=0), 4, 3).eq(255).all()
    assert decode(saved(tmp_path, palette, transparency=bytes([0, 255])), 4, 3).eq(255).all()


def test_sixteen_bits_become_eight(tmp_path):
    pixels = np.full((4, 4), 0x80FF, dtype=np.uint16)
    assert decode(saved(tmp_path, Image.fromarray(pixels)), 4, 1).eq(0x80).all()


def test_real_photographs(real_data):
    task = load_task("image-folder", data_dir=real_data("cifar10_images/train") / "cifar10_images")
    assert len(task.splits["validation"]) == 1000
    assert len(task.class_names) == 10
    assert os.listdir(os.environ["XDG_CACHE_HOME"]) == ["metaopt"]  # noqa: PTH208


def test_images_of_a_public_set_can_be_resized_shifted_and_mirrored(mnist_dir):
    plain, small, varied = (
        load_task("mnist", data_dir=str(mnist_dir), **changes)
        for changes in ({}, {"image_size": 14}, {"image_size": 14, "shift": 1, "flip": True})
    )
    assert plain.splits["train"][:2].inputs.shape == (2, 1, 28, 28)
    (inputs, labels), (changed, same_labels) = (next(task.batches(8, 0, 0)) for task in (small, varied))
    assert inputs.shape == changed.shape == (8, 1, 14, 14)
    assert torch.equal(labels, same_labels)
    assert not torch.equal(inputs, changed)
    whole = plain.splits["train"][:].inputs
    assert small.splits["train"][:].inputs.mean() == pytest.approx(float(whole.mean()), abs=0.01)
    assert torch.equal(next(varied.batches(8, 0, 0)).inputs, changed)
