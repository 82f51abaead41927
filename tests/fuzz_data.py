"""Random edits of npz files, zip files and image folders: each is read or refused with a clear error.

`python -m tests.fuzz_data --count 500` tries 500 cases of each kind; test_fuzz_data.py tries 25 cases of each kind. A
case is a function of (kind, seed, number), so the line that reports a failure contains everything needed to reproduce
it.
"""

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import traceback
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ensdistill.config import build_config
from ensdistill.data import DataSplits, load_data, load_test
from ensdistill.errors import ConfigError, DataError
from ensdistill.training.new_student import check_student
from tests.commands import call

Rng = np.random.Generator
CLASSES = ("cat", "dog", "owl")
SIDE = 8
TINY = {
    "preset": "kd",
    "model": {"width": 4, "blocks": 1},
    "training": {"epochs": 1, "batch_size": 4},
    "teachers": {"count": 1, "model": {"width": 2, "blocks": 1}, "training": {"epochs": 1, "batch_size": 4}},
}


@dataclass
class Case:
    """One edited data set.

    Attributes:
        kind: `npz`, `zip` or `folder`.
        number: Index within its kind and seed.
        data: Settings of the data, after the files are written.
        edits: Names of the applied edits.
        files: Number of files that must be read or reported; None if the edits make it unknown.
    """

    kind: str
    number: int
    seed: int
    data: dict[str, Any] = field(default_factory=dict)
    edits: list[str] = field(default_factory=list)
    files: int | None = None

    def write(self, folder: Path) -> "Case":
        """Writes the data set below a folder and returns the case with its settings."""
        rng = np.random.default_rng([self.seed, self.number, list(WRITERS).index(self.kind)])
        WRITERS[self.kind](self, folder, rng)
        self.data |= _sizes(rng)
        return self

    def __str__(self) -> str:
        return f"{self.kind} {self.number} of seed {self.seed} ({', '.join(self.edits)}; {self.data})"


def cases(seed: int, count: int) -> Iterator[Case]:
    """Yields `count` cases of each kind."""
    for kind in WRITERS:
        for number in range(count):
            yield Case(kind, number, seed)


def outcome(case: Case) -> str:
    """Loads a written case as `check` does.

    Returns:
        "read", or the error message.

    Raises:
        Exception: An exception of a class that this project does not define.
        AssertionError: The loaded data violate a rule.
    """
    try:
        config = build_config(TINY | {"data": case.data})
        data = load_data(config.data)
        check_student(config, data)
    except (ConfigError, DataError) as error:
        words = str(error)
        words.encode("utf-8")
        return f"refused: {words}"
    _hold_promises(case, data)
    with contextlib.suppress(DataError):  # these data may have no test images
        load_test(config.data)
    return "read"


def _hold_promises(case: Case, data: DataSplits) -> None:
    assert len(data.class_names) >= 2
    for name in data.class_names:
        name.encode("utf-8")
    for warning in data.warnings:
        str(warning).encode("utf-8")
    for part in (data.train, data.validation):
        assert len(part)
        assert part.images.dtype == torch.uint8
        assert part.labels.min() >= 0
        assert part.labels.max() < len(data.class_names)
    assert data.train.images.max() > 1, "black training images"
    if case.files is not None:
        _nothing_is_lost(case, data)


def _nothing_is_lost(case: Case, data: DataSplits) -> None:
    """Checks that every file on disk was read or is counted in a warning."""
    try:
        test = len(load_test(build_config(TINY | {"data": case.data}).data))
    except DataError:
        test = 0
    read = len(data.train) + len(data.validation) + len(data.unlabeled) + test
    rules = [warning.rule.split() for warning in data.warnings]
    left_out = sum(
        int(words[0]) for words in rules if words[1:4] in (["file", "left", "out"], ["files", "left", "out"])
    )
    assert read + left_out == case.files, f"{read} read and {left_out} named of {case.files} files"


def _sizes(rng: Rng) -> dict[str, Any]:
    """Returns split sizes, mostly the defaults."""
    choices: list[Any] = [1, 3, 10, 20, 1000, 0.1, 0.5, 0.99]
    return {part: choices[rng.integers(len(choices))] for part in ("train", "validation", "test") if rng.random() < 0.1}


def _pick(rng: Rng, options: list[Any]) -> Any:
    return options[rng.integers(len(options))]


def _damaged(raw: bytes, rng: Rng) -> bytes:
    """Returns the bytes with one kind of damage."""
    kind = rng.integers(5)
    if kind == 0:
        return raw[: rng.integers(len(raw) + 1)]
    if kind == 1:
        return raw + rng.bytes(rng.integers(1, 50))
    if kind == 2:
        return rng.bytes(rng.integers(0, 200))
    changed = bytearray(raw)
    for _ in range(1 if kind == 3 else rng.integers(2, 20)):
        if changed:
            changed[rng.integers(len(changed))] = rng.integers(256)
    return bytes(changed)


# --- npz files ---

DTYPES = [
    "bool",
    "i1",
    "u2",
    "i4",
    ">i4",
    "i8",
    "u8",
    "f2",
    "f4",
    ">f4",
    "f8",
    "g",
    "c8",
    "U3",
    "S3",
    "M8[s]",
    "O",
    "V2",
]
NAMES = ["x", "y", "images", "labels", "x_train", "X_TRAIN", "y_train", "x_val", "y_val", "x_test", "train_images"]
NAMES += ["val_labels", "class_names", "x_unlabeled", "unlabeled_images", "", "a/b", "../x", "caf\u00e9", "arr_0"]


def _edit_dtype(x: np.ndarray, rng: Rng) -> np.ndarray:
    return x.astype(_pick(rng, DTYPES))


def _edit_shape(x: np.ndarray, rng: Rng) -> np.ndarray:
    way = rng.integers(7)
    if way == 0:
        return x.T
    if way == 1:
        return x[..., None]
    if way == 2:
        return x.reshape(len(x), -1) if x.size else x
    if way == 3:
        return x[: rng.integers(len(x) + 1)]
    if way == 4:
        return np.repeat(x[..., None], _pick(rng, [1, 2, 3, 4]), -1)
    if way == 5:
        return x[:1].reshape(-1)[0]
    return np.moveaxis(x, -1, 1) if x.ndim > 1 else x[None]


def _edit_values(x: np.ndarray, rng: Rng) -> np.ndarray:
    if x.dtype.kind not in "iuf":
        return x
    way = rng.integers(9)
    y = x.astype(np.float64)
    if way < 5:
        return y * _pick(rng, [1 / 255, 1 / 255**2, 255, -1, 0])
    if way == 5:
        return y + _pick(rng, [1, -1, 0.5, 1e9, 2**31, 2**63])
    if way == 6:
        return np.where(rng.random(y.shape) < 0.1, _pick(rng, [np.nan, np.inf, -np.inf]), y / 255)
    if way == 7:
        return (y / 255).astype(np.uint8)
    return np.eye(3)[np.clip(y, 0, 2).astype(int).reshape(-1)]


def _edit_harmless(x: np.ndarray, rng: Rng) -> np.ndarray:
    """Returns the same images or labels in another form."""
    if x.ndim == 1 and x.dtype.kind in "iu":
        return _pick(rng, [x[:, None], x.astype(np.uint8), x.astype(">i4")])
    if x.ndim == 4 and x.dtype == np.uint8:
        return _pick(rng, [np.moveaxis(x, -1, 1), x[..., :1], x[..., 0], x / 255, (x / 255).astype(np.float16)])
    return x


EDITS = {"harmless": _edit_harmless, "dtype": _edit_dtype, "shape": _edit_shape, "values": _edit_values}


def _write_npz(case: Case, folder: Path, rng: Rng) -> None:
    images, labels = rng.integers(0, 256, (24, SIDE, SIDE, 3), dtype=np.uint8), np.arange(24) % 3
    arrays: dict[str, Any] = {"x_train": images, "y_train": labels}
    if rng.random() < 0.5:
        arrays |= {"x_val": images[:6] // 2, "y_val": labels[:6], "x_test": images[:6] // 3, "y_test": labels[:6]}
    if rng.random() < 0.3:
        arrays["class_names"] = np.array(CLASSES)
    for _ in range(rng.integers(1, 3)):
        name = _pick(rng, list(arrays))
        way = _pick(rng, ["harmless", "harmless", "dtype", "shape", "values", "rename", "drop", "add", "names"])
        case.edits.append(f"{way} of {name}")
        with contextlib.suppress(ValueError, TypeError, OverflowError, IndexError):  # unsupported by NumPy
            if way in EDITS:
                with np.errstate(all="ignore"):
                    arrays[name] = EDITS[way](np.asarray(arrays[name]), rng)
            elif way == "rename" and len(arrays) > 1:
                arrays[_pick(rng, NAMES)] = arrays.pop(name)
            elif way == "drop" and len(arrays) > 1:
                del arrays[name]
            elif way == "add":
                arrays[_pick(rng, NAMES)] = np.asarray(arrays[name])
            else:
                bad: list[Any] = [
                    ["cat", "cat", "owl"],
                    ["a"],
                    ["", "b", "c"],
                    ["caf\udce9", "b", "c"],
                    [b"a", b"b", b"c"],
                ]
                arrays["class_names"] = np.array(_pick(rng, [*bad, [["a", "b", "c"]], list("abcdef"), 3]))
    file = folder / "x.npz"
    with zipfile.ZipFile(file, "w") as archive:  # np.savez does not accept every name
        for name, array in arrays.items():
            stream = io.BytesIO()
            np.save(stream, array, allow_pickle=True)
            archive.writestr(f"{name}.npy", stream.getvalue())
    if rng.random() < 0.3:
        case.edits.append("damage")
        file.write_bytes(_damaged(file.read_bytes(), rng))
    case.data = {"kind": "npz", "path": str(file)}


# --- images ---

FORMS = [("png", "png"), ("jpg", "jpeg"), ("tif", "tiff"), ("gif", "gif"), ("bmp", "bmp"), ("webp", "webp")]
FORMS += [
    ("ppm", "ppm"),
    ("ico", "ico"),
    ("jfif", "jpeg"),
    ("tga", "tga"),
    ("qoi", "qoi"),
    ("", "png"),
    ("JPG", "jpeg"),
]
SUFFIXES = ["", ".png", ".txt", ".TIF", ".jpeg", ".heic", ".npz", ".zip", ".db", ".h5", ".eps", ".svg", ".b", ".mpg"]
ODD = [
    ".hidden",
    "._x",
    "Thumbs.db",
    "__MACOSX",
    "train",
    "val",
    "Test",
    "unlabeled",
    "a b",
    "[x]",
    "x" * 200,
    "\u732b",
]
ODD += ["cafe\u0301", "\x1b[31m", "new\nline", "-rf", "#?", "%2e", "CON", "cat ", "Cat"]


def _image(rng: Rng, form: str = "png") -> bytes:
    pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def _odd_image(rng: Rng) -> bytes:
    """Returns an image of an unusual mode, size or number of frames."""
    gray = rng.integers(0, 256, (SIDE, SIDE)).astype(np.float32)
    images: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (Image.fromarray(gray), "tiff", {}),
        (Image.fromarray(gray / 255), "tiff", {}),
        (Image.fromarray(gray.astype(np.int32) * 65793), "tiff", {}),
        (Image.fromarray(gray.astype(np.uint16) * 257), "png", {}),
        (Image.fromarray(gray.astype(np.uint8)).convert("LA"), "png", {}),
        (Image.fromarray(gray.astype(np.uint8)).convert("1"), "png", {}),
        (Image.new("CMYK", (SIDE, SIDE), (1, 99, 200, 40)), "jpeg", {}),
        (Image.new("LAB", (SIDE, SIDE), (100, 20, 20)), "tiff", {}),
        (Image.new("YCbCr", (SIDE, SIDE), (100, 20, 20)), "jpeg", {}),
        (Image.new("RGBA", (3, 50), (9, 200, 3, 100)), "webp", {}),
        (Image.new("P", (1, 1)), "gif", {"transparency": 0}),
        (
            Image.new("RGB", (SIDE, SIDE), "red"),
            "gif",
            {"save_all": True, "append_images": [Image.new("RGB", (SIDE, SIDE))]},
        ),
        (Image.new("RGB", (SIDE, SIDE), "red"), "jpeg", {"exif": b"Exif\0\0MM\0*" + rng.bytes(40)}),
    ]
    image, form, options = _pick(rng, images)
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _tree(rng: Rng) -> dict[str, bytes]:
    """Returns names and contents of a valid data set, with or without splits."""
    parts = _pick(rng, [[""], [""], ["train/", "val/"], ["train/", "test/"], ["train/", "valid/", "test/"]])
    tree = {}
    for part in parts:
        count = 2 if part in ("val/", "valid/", "test/") else 8
        tree |= {f"{part}{name}/{n:02}.png": _image(rng) for name in CLASSES for n in range(count)}
    top = _pick(rng, ["", "", "pets/", "a/b/"])
    return {top + name: content for name, content in tree.items()}


def _edit_tree(tree: dict[str, bytes], case: Case, rng: Rng) -> None:
    """Applies one edit that is possible in folders and in zip files."""
    name = _pick(rng, list(tree))
    folder, _, base = name.rpartition("/")
    way = _pick(rng, ["damage", "odd image", "form", "text", "odd name", "odd folder", "nest", "drop class", "loose"])
    case.edits.append(f"{way} at {name}")
    if way == "damage":
        tree[name] = _damaged(tree[name], rng)
    elif way == "odd image":
        tree[name] = _odd_image(rng)
    elif way == "form":
        suffix, form = _pick(rng, FORMS)
        tree[f"{folder}/new.{suffix}".rstrip(".")] = _image(rng, form)
    elif way == "text":
        content = _pick(rng, [b"", b"hello", b"P6 ", b"GIF89a", b"\xff\xd8\xff", b"%!PS-Adobe", rng.bytes(99)])
        tree[f"{folder}/note{_pick(rng, SUFFIXES)}"] = content
    elif way == "odd name":
        tree[f"{folder}/{_pick(rng, ODD)}{_pick(rng, SUFFIXES)}"] = tree.pop(name)
    elif way == "odd folder":
        tree[f"{folder.rpartition('/')[0]}/{_pick(rng, ODD)}/{base}".lstrip("/")] = tree.pop(name)
    elif way == "nest":
        tree[f"{folder}/{_pick(rng, ['more', *ODD])}/{base}"] = tree.pop(name)
    elif way == "drop class":
        for other in [other for other in tree if other.startswith(f"{folder}/")][: rng.integers(1, 30)]:
            if len(tree) > 1:
                del tree[other]
    else:
        tree[_pick(rng, ["loose.png", f"{folder.rpartition('/')[0]}/loose.png".lstrip("/")])] = _image(rng)


def _is_companion(name: str) -> bool:
    return any(p.lower() in ("thumbs.db", "__macosx") or p.startswith("._") for p in name.split("/"))


# --- zip files ---


def _write_zip(case: Case, folder: Path, rng: Rng) -> None:
    tree = _tree(rng)
    for _ in range(rng.integers(0, 4)):
        _edit_tree(tree, case, rng)
    ways = {"plain": str, "backslash": lambda name: name.replace("/", "\\"), "rooted": lambda name: f"/{name}"}
    ways |= {"out": lambda name: f"../{name}", "drive": lambda name: "C:\\" + name.replace("/", "\\")}
    way = _pick(rng, ["plain", "plain", *ways])
    case.edits.append(way)
    file = folder / "x.zip"
    with zipfile.ZipFile(
        file, "w", _pick(rng, [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
    ) as archive:
        for name, content in tree.items():
            entry = zipfile.ZipInfo(ways[way](name))
            entry.compress_type = archive.compression
            entry.external_attr = (_pick(rng, [0o120777, 0o010777]) if rng.random() < 0.003 else 0o100644) << 16
            archive.writestr(entry, content)
    if rng.random() < 0.7:
        _damage_zip(case, file, rng)
    case.data = {"kind": "image_folder", "path": str(file), "size": SIDE}


def _damage_zip(case: Case, file: Path, rng: Rng) -> None:
    """Changes header fields of entries, or arbitrary bytes."""
    raw = bytearray(file.read_bytes())
    if rng.random() < 0.4:
        case.edits.append("damage")
        file.write_bytes(_damaged(bytes(raw), rng))
        return
    mark = _pick(rng, [b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"])
    offset, at, each = int(rng.integers(4, 60)), 0, rng.random() < 0.3
    case.edits.append(f"byte {offset} after {mark!r}{' each' if each else ''}")
    value = int(rng.integers(256))
    while (at := raw.find(mark, at)) != -1 and at + offset < len(raw):
        raw[at + offset] = value
        at += 4
        if not each:
            break
    file.write_bytes(bytes(raw))


# --- folders ---


def _write_folder(case: Case, folder: Path, rng: Rng) -> None:
    tree = _tree(rng)
    for _ in range(rng.integers(1, 4)):
        _edit_tree(tree, case, rng)
    root = folder / "in"
    for name, content in tree.items():
        with contextlib.suppress(OSError, ValueError):  # a file instead of a folder, or a folder instead of a file
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
    if rng.random() < 0.6:
        _edit_folder(case, root, rng)
    else:
        hidden = {p for p in root.rglob("*") if any(q.startswith(".") for q in p.relative_to(root).parts[:-1])}
        there = [p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file() and p not in hidden]
        tops = {p.relative_to(root).parts[: _first_hidden(p.relative_to(root)) + 1] for p in hidden}
        case.files = len([name for name in there if not _is_companion(name)])
        case.files += len([top for top in tops if not _is_companion("/".join(top))])
    case.data = {"kind": "image_folder", "path": str(root), "size": SIDE}


def _first_hidden(path: Path) -> int:
    return next(n for n, part in enumerate(path.parts) if part.startswith("."))


def _edit_folder(case: Case, root: Path, rng: Rng) -> None:
    """Applies one edit that is possible only in a folder."""
    every = sorted(root.rglob("*"))
    one, other = _pick(rng, every), _pick(rng, every)
    way = _pick(
        rng, ["link", "loop", "broken", "empty", "pipe", "bytes", "folder for a file", "file for a folder", "up"]
    )
    case.edits.append(f"{way} at {one.relative_to(root)}")
    place = one if one.is_dir() else one.parent
    new = place / "new.png"
    with contextlib.suppress(OSError):
        if way == "link":
            new.symlink_to(other)
        elif way == "loop":
            (place / "again").symlink_to(place)
        elif way == "up":
            (place / "up").symlink_to("../" * int(rng.integers(1, 4)))
        elif way == "broken":
            new.symlink_to("nothing")
        elif way == "empty":
            (place / "empty").mkdir()
        elif way == "pipe":
            os.mkfifo(new)
        elif way == "bytes":
            os.rename(one, os.fsencode(one.parent) + b"/caf\xe9")
        elif way == "folder for a file" and one.is_file():
            one.unlink()
            one.mkdir()
        elif way == "file for a folder" and one.is_dir() and not any(one.iterdir()):
            one.rmdir()
            one.touch()


WRITERS: dict[str, Callable[[Case, Path, Rng], None]] = {
    "npz": _write_npz,
    "zip": _write_zip,
    "folder": _write_folder,
}


# --- the command ---


def failure(case: Case, do: Callable[[Case], object]) -> str | None:
    """Writes a case into a temporary folder and applies a function to it; returns the failure, or None."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            do(case.write(Path(folder)))
        except Exception:  # the failures to be found
            return f"{case}\n{traceback.format_exc()}"
    return None


def distil(case: Case) -> None:
    """Distills for one epoch with the command; a student at chance level must cause a warning."""
    folder = Path(case.data["path"]).parent
    settings = folder / "settings.json.yaml"
    settings.write_text(json.dumps(TINY | {"data": case.data}))
    done = call("ensdistill", "distill", settings, "--json", "--device", "cpu", "--studies-dir", folder / "studies")
    assert "Traceback" not in done.err, done.err
    assert done.code in (0, 1, 2), done
    if done.code:
        assert done.err.strip(), "an exit code without a word"
        return
    result = json.loads(done.out)
    chance = 1.1 / len(CLASSES)
    assert result["val"]["accuracy"] > chance or "warning" in done.err, "a student at chance without a warning"


def main() -> int:
    """Returns 0 if no case failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=500, help="how many of each kind are loaded (500)")
    parser.add_argument("--distill", type=int, default=20, help="how many of each kind are distilled (20)")
    options = parser.parse_args()
    failures, outcomes = list[str](), dict[str, int]()

    def load(case: Case) -> None:
        key = f"{case.kind} {outcome(case).partition(':')[0]}"
        outcomes[key] = outcomes.get(key, 0) + 1

    failures += filter(None, (failure(case, load) for case in cases(options.seed, options.count)))
    failures += filter(None, (failure(case, distil) for case in cases(options.seed + 1, options.distill)))
    print("\n".join(failures))
    print(f"{outcomes}; {len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
