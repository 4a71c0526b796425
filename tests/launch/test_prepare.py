"""Writing a user's data as a TFDS data set: what comes back, and what is refused."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from functions.domains import Domain
from launch import prepare
from launch.data import fields, pictures


def call(capsys, folder, **flags):
    """Runs the program with --output below the folder; returns the exit code and what it said."""
    flags = {"name": "mine", "output": folder / "out", **flags}
    words = [f"--{flag}" if v is True else f"--{flag}={v}" for flag, v in flags.items()]
    code = prepare.main(["prepare", *words])
    return code, capsys.readouterr()


def write_images(folder, num=10, shape=(6, 8, 3), suffix="png"):
    """Writes files of one colour that tells their place."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(num):
        colour = np.full(shape, 20 * i, np.uint8)
        Image.fromarray(colour[..., 0] if shape[-1] == 1 else colour).save(
            folder / f"{i:03}.{suffix}"
        )


def places(part):
    return sorted((part[:, 0, 0] // 20).tolist())


def test_a_folder_of_images_comes_back(tmp_path, capsys):
    write_images(tmp_path / "in" / "a", 6)
    write_images(tmp_path / "in" / "b", 4)
    (tmp_path / "in" / "notes.txt").write_text("no image")
    code, printed = call(capsys, tmp_path, source=tmp_path / "in", kind="images")
    assert code == 0
    folder = tmp_path / "out" / "mine" / "1.0.0"
    assert "mine 1.0.0: 8 train, 1 valid, 1 test" in printed.out
    assert "image 6 x 8 (centres), 3 channels of uint8, likelihood logistic" in printed.out
    assert f"--config.data.name=prepared:{folder}" in printed.out
    field = fields.load(f"prepared:{folder}")
    assert (field.name, field.domain) == ("mine", Domain("image", (6, 8)))
    assert (field.kind, field.num_levels) == ("logistic", 256)
    assert field.train.shape == (8, 48, 3)
    found = [*places(field.train), *places(field.valid), *places(field.test)]
    assert sorted(found) == sorted([*range(6), *range(4)])
    few = fields.from_prepared(folder, num_train=3, num_test=1)
    assert len(few.train) == 3


def test_parts_in_folders_are_kept_and_files_are_cut_and_resized(tmp_path, capsys):
    # a bright middle square in a wide dark picture is all that is left of it
    picture = np.zeros((20, 50, 3), np.uint8)
    picture[:, 15:35] = 200
    for part, num in (("train", 7), ("val", 2), ("test", 3)):
        (tmp_path / "in" / part).mkdir(parents=True)
        for i in range(num):
            picture[:, 25 + 10 * i % 10] = 200 - i
            Image.fromarray(picture).save(tmp_path / "in" / part / f"{i}.png")
    write_images(tmp_path / "in" / "train", 1, (9, 9, 1), "bmp")
    options = {"kind": "images", "size": 5, "version": "2.1.0"}
    code, printed = call(capsys, tmp_path, source=tmp_path / "in", **options)
    assert code == 0
    assert "mine 2.1.0: 8 train, 2 valid, 3 test" in printed.out
    field = fields.from_prepared(tmp_path / "out" / "mine")
    assert field.train.shape == (8, 25, 3)
    assert np.abs(field.valid.astype(int) - 200).max() <= 2
    assert sorted(field.train.mean(axis=(1, 2)) < 1) == [False] * 7 + [True]  # the black bmp


@pytest.mark.parametrize(("channels", "expected"), [(None, 1), (3, 3)])
def test_grey_files_have_one_channel_unless_three_are_asked_for(
    tmp_path, capsys, channels, expected
):
    write_images(tmp_path / "in", 5, (4, 4, 1))
    options = {} if channels is None else {"channels": channels}
    code, _ = call(capsys, tmp_path, source=tmp_path / "in", kind="images", **options)
    assert code == 0
    assert fields.from_prepared(tmp_path / "out" / "mine").train.shape == (3, 16, expected)


def test_fields_come_back_as_they_would_be_read_from_the_file(tmp_path, capsys):
    rng = np.random.default_rng(0)
    values, mask = rng.normal(280, 9, (12, 4, 6, 2)), rng.random((12, 4, 6)) < 0.8
    path = tmp_path / "heat.npz"
    np.savez(path, values=np.where(mask[..., None], values, np.nan), mask=mask)
    options = {"domain": "sphere", "convention": "corners", "rescale": True}
    code, printed = call(capsys, tmp_path, source=path, kind="fields", name="heat", **options)
    assert code == 0
    assert "heat 1.0.0: 10 train, 1 valid, 1 test" in printed.out
    assert "raw = " in printed.out
    prepared = fields.from_prepared(tmp_path / "out" / "heat")
    direct = fields.read_npz(path, **options)
    assert prepared.fingerprint == direct.fingerprint
    assert prepared._replace(train=0, valid=0, test=0, **NO_MASKS) == direct._replace(
        train=0, valid=0, test=0, **NO_MASKS
    )
    np.testing.assert_array_equal(prepared.train, direct.train)
    np.testing.assert_array_equal(prepared.train_mask, direct.train_mask)


NO_MASKS = {"train_mask": None, "valid_mask": None, "test_mask": None}


def test_voxels_and_numbers_of_items_to_draw(tmp_path, capsys):
    values = np.random.default_rng(0).random((20, 4, 5, 6)) < 0.3
    np.save(tmp_path / "blocks.npy", values)
    options = {"num_valid": 4, "num_test": 5, "seed": 3}
    code, _ = call(capsys, tmp_path, source=tmp_path / "blocks.npy", kind="voxels", **options)
    assert code == 0
    field = fields.from_prepared(tmp_path / "out" / "mine")
    assert field.domain == Domain("voxels", (4, 5, 6))
    assert (field.kind, field.num_levels, field.train.dtype) == ("bernoulli", 2, np.uint8)
    assert tuple(len(p) for p in (field.train, field.valid, field.test)) == (11, 4, 5)
    everything = np.concatenate([field.train, field.valid, field.test])[..., 0]
    assert {bytes(v) for v in everything} == {bytes(v) for v in values.astype(np.uint8)}


def test_a_version_is_never_written_over_and_the_newest_is_read(tmp_path, capsys):
    write_images(tmp_path / "in", 5)
    options = {"source": tmp_path / "in", "kind": "images"}
    assert call(capsys, tmp_path, **options)[0] == 0
    code, printed = call(capsys, tmp_path, **options)
    assert code == 2
    assert "exists; give another version or name, or remove it" in printed.err
    write_images(tmp_path / "in", 9)
    assert call(capsys, tmp_path, version="1.10.0", **options)[0] == 0
    assert call(capsys, tmp_path, version="1.9.0", num_test=3, **options)[0] == 0
    assert len(fields.from_prepared(tmp_path / "out" / "mine").test) == 1
    assert len(fields.from_prepared(tmp_path / "out" / "mine" / "1.9.0").test) == 3


# Refusals


def mixed_sizes(folder):
    write_images(folder, 4)
    write_images(folder, 1, (7, 8, 3), "jpg")


def deep_pixels(folder):
    write_images(folder, 4)
    Image.fromarray(np.zeros((6, 8), np.uint16)).save(folder / "z.png")


def no_picture(folder):
    write_images(folder, 4)
    (folder / "z.png").write_bytes(b"no picture")


def cut_short(folder):
    write_images(folder, 10)
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "005.png")
    (folder / "005.png").write_bytes((folder / "005.png").read_bytes()[:3000])


@pytest.mark.parametrize(
    ("make", "flags", "sentence"),
    [
        (lambda folder: None, {}, "in' does not exist; check the path"),
        (lambda folder: folder.mkdir(), {}, "in' holds no image file; expected .png, .jpg"),
        (mixed_sizes, {}, "images '000.jpg' and '000.png' have the sizes 7 x 8 and 6 x 8; give on"),
        (deep_pixels, {"size": 4}, "z.png' has Pillow's mode I;16, expected one of 1, L,"),
        (no_picture, {}, "z.png' cannot be read (cannot identify image file"),
        (cut_short, {"size": 4}, "005.png' cannot be read (image file is truncated"),
        (lambda folder: write_images(folder, 2), {}, "there are 2 training items to draw 1 valid"),
        (write_images, {"name": "My-Data"}, "--name=My-Data: expected a lower case letter, then"),
        (write_images, {"version": "2"}, "--version=2: expected three numbers such as 1.0.0"),
        (write_images, {"size": 0}, "--size=0: expected 1 or more"),
        (write_images, {"num_test": 0}, "--num_test=0: expected 1 or more"),
        (write_images, {"num_test": 10}, "there are 10 training items to draw 1 valid, 10 test"),
        (write_images, {"rescale": True}, "--rescale is for --kind=fields only; leave it out"),
        (write_images, {"domain": "image"}, "--domain is for --kind=fields only"),
        (write_images, {"output": "/dev/null/x"}, "--output=/dev/null/x: cannot be written (Not a"),
        (write_images, {"kind": "fields"}, "in' is no readable npz or npy file ("),
        (write_images, {"kind": "voxels", "size": 4}, "--size is for --kind=images only"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path, capsys, make, flags, sentence):
    make(tmp_path / "in")
    flags = {"kind": "images", **flags}
    code, printed = call(capsys, tmp_path, source=tmp_path / "in", **flags)
    assert code == 2
    assert printed.err.startswith("launch.prepare: ")
    assert sentence in printed.err
    assert len(printed.err.splitlines()) == 1
    assert not any((tmp_path / "out").rglob("*"))


def test_defects_of_fields_are_told_by_their_place_in_the_file(tmp_path, capsys):
    values = np.full((9, 4, 4), 0.5)
    values[7, 2, 1] = np.nan
    np.savez(tmp_path / "f.npz", values=values)
    code, printed = call(capsys, tmp_path, source=tmp_path / "f.npz", kind="fields")
    assert code == 2
    assert "f.npz', item 7, point 9: the value [nan] is not finite" in printed.err
    with pytest.raises(ValueError, match="item 7"):
        call(capsys, tmp_path, source=tmp_path / "f.npz", kind="fields", debug=True)


def test_the_program_runs_without_tensorflow_and_keeps_its_output_clean(tmp_path):
    write_images(tmp_path / "in", 5)
    code = (
        "import sys; from launch import prepare; "
        f"code = prepare.main(['', '--source={tmp_path}/in', '--kind=images', '--name=a', "
        f"'--output={tmp_path}/out']); assert 'tensorflow' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("a 1.0.0: 3 train, 1 valid, 1 test\n")
    assert done.stderr == ""
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


def test_a_picture_outside_the_folders_of_the_parts_is_refused(tmp_path, capsys):
    for folder in ("train", "test"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        write_images(tmp_path / "in" / folder, 6)
    write_images(tmp_path / "in", 1)
    code, printed = call(capsys, tmp_path, source=tmp_path / "in", kind="images")
    assert code == 2
    assert "lies outside the folders of the parts" in printed.err


def test_a_camera_held_upright_is_no_matter(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.new("RGB", (12, 8)).save(tmp_path / "photo.jpg", exif=turned)
    assert pictures.read(tmp_path / "photo.jpg", 3, None).shape == (12, 8, 3)
    items = pictures.read_folder(tmp_path, num_valid=0, num_test=0)
    assert items.domain.shape == (12, 8)
