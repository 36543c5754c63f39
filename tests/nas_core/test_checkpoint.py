"""Checkpoints that nobody here wrote: refused with a clear error, without running, allocating or hanging."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nas_core import checkpoint
from nas_core.errors import CheckpointError
from tests import bounded
from tests.fuzz import fuzzed

STATE = {
    "fence": 3,
    "state": {"weights": torch.arange(6.0).view(2, 3), "seen": ["a", "b"], "rng": {"bits": [1, 2**40]}},
}


class Malicious:
    """Touches a file where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("canary"),)


def saved(state: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(state, file, **options)
    return file.getvalue()


GOOD = saved(STATE)
with zipfile.ZipFile(io.BytesIO(GOOD)) as _archive:
    MEMBERS = {name: _archive.read(name) for name in _archive.namelist()}
PICKLE = next(name for name in MEMBERS if name.endswith("data.pkl"))


def archive(compression: int = zipfile.ZIP_STORED, **changed: bytes) -> bytes:
    """The good checkpoint with other members, their checksums right."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        for name, content in {**MEMBERS, **changed}.items():
            made.writestr(name, content)
    return file.getvalue()


def load(folder: Path, content: bytes) -> dict[str, Any] | None:
    """What is read; None for the clear error."""
    path = folder / "any.pt"
    path.write_bytes(content)
    try:
        return checkpoint.load(path)
    except CheckpointError as error:
        said = str(error)
    assert str(path) in said and "start without it" in said
    return None


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    checkpoint.save(STATE, tmp_path / "good.pt")
    found = checkpoint.load(tmp_path / "good.pt")
    assert torch.equal(found["state"].pop("weights"), STATE["state"]["weights"])
    assert found == {"fence": 3, "state": {"seen": ["a", "b"], "rng": {"bits": [1, 2**40]}}}
    assert load(tmp_path, archive()) is not None, "changes below start from something that is read"


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Malicious()),
        pickle.dumps({"state": Malicious()}, protocol=2),
        saved({"state": Malicious()}),
        saved({"state": [STATE, Malicious()]}),
        saved({"state": Malicious()}, _use_new_zipfile_serialization=False),
        archive(**{PICKLE: pickle.dumps(Malicious(), protocol=2)}),
        archive(**{PICKLE: pickle.dumps(Malicious(), protocol=4)}),
        archive(**{PICKLE: b"cbuiltins\nexec\nX\x1c\x00\x00\x00open('canary', 'w').close()  \x85R."}),
    ],
)
def test_no_checkpoint_runs_code(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert load(tmp_path, content) is None
    assert list((tmp_path / "here").iterdir()) == []


def test_the_canary_would_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(Malicious()))
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (saved(STATE, _use_new_zipfile_serialization=False), "BadZipFile"),
        (archive(zipfile.ZIP_DEFLATED), "ValueError"),
        (saved(torch.zeros(3)), "holds a Tensor, not a state"),
        (saved([1, 2]), "holds a list, not a state"),
        (archive(**{PICKLE: b"."}), "IndexError"),
        (archive(**{PICKLE: b"\x80\x02J\x00."}), "error"),
        (archive(**{PICKLE: b"(d]K\x01s."}), "cannot be read"),
        (b"", "BadZipFile"),
    ],
)
def test_other_files_are_refused(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "other.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=says):
        checkpoint.load(tmp_path / "other.pt")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to(path), lambda path: None])
def test_what_is_no_file_is_no_checkpoint(make: Callable[[Path], Any], tmp_path: Path) -> None:
    make(tmp_path / "thing.pt")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        checkpoint.load(tmp_path / "thing.pt")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzzed")


CHANGES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6)


def changed(content: bytes, changes: list[tuple[int, int]]) -> bytes:
    data = bytearray(content)
    for place, value in changes:
        data[place % len(data)] = value
    return bytes(data)


@fuzzed(6)
@given(content=st.binary(max_size=300) | st.binary(max_size=200).map(b"PK\x03\x04".__add__))
def test_random_bytes(folder: Path, content: bytes) -> None:
    assert load(folder, content) is None


@fuzzed(6)
@given(changes=CHANGES, cut=st.integers(1, len(GOOD)) | st.none())
def test_damaged_files(folder: Path, changes: list[tuple[int, int]], cut: int | None) -> None:
    load(folder, changed(GOOD, changes)[:cut])


@pytest.mark.slow
@fuzzed(12)
@given(changes=CHANGES, cut=st.integers(1, len(MEMBERS[PICKLE])) | st.none())
def test_damaged_pickles_under_a_right_checksum(folder: Path, changes: list[tuple[int, int]], cut: int | None) -> None:
    load(folder, archive(**{PICKLE: changed(MEMBERS[PICKLE], changes)[:cut]}))


OPCODES = [bytes([opcode]) for opcode in range(256)]
WORDS = st.sampled_from(
    [
        *OPCODES,
        b"ccollections\nOrderedDict\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch\nFloatStorage\n",
        b"ctorch\nSize\n",
        b"cbuiltins\nset\n",
        b"X\x07\x00\x00\x00storage",
        b"K\x01",
        b"J\xff\xff\xff\x7f",
    ]
)


@fuzzed(12)
@given(words=st.lists(WORDS, max_size=12))
def test_any_opcodes(folder: Path, words: list[bytes]) -> None:
    load(folder, archive(**{PICKLE: b"\x80\x02" + b"".join(words) + b"."}))


# --- sizes that are announced -----------------------------------------------------------------------------------------


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def long(number: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", number)


def tensor_of(numbers: int) -> bytes:
    """A state with one tensor whose storage announces so many numbers."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + long(numbers) + b"tQ"
    shape, steps = b"(" + long(numbers) + b"t", b"(K\x01t"
    made = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + shape + steps
    return b"\x80\x02}" + text("state") + made + b"\x89ccollections\nOrderedDict\n)RtRs."


def bombs() -> dict[str, bytes]:
    array = text("state") + b"cbuiltins\nbytearray\n" + long(2**40) + b"\x85Rs."
    head = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    old = b"".join(pickle.dumps(part, 2) for part in head) + tensor_of(2**38) + pickle.dumps(["0"], 2)
    return {
        "a storage of a terabyte": archive(**{PICKLE: tensor_of(2**38)}),
        "a storage beyond all addresses": archive(**{PICKLE: tensor_of(2**62)}),
        "a byte array of a terabyte": archive(**{PICKLE: b"\x80\x02}" + array}),
        "packed zeros": archive(zipfile.ZIP_DEFLATED, zeros=bytes(2**26)),
        "the old form, with a storage of a terabyte": old + struct.pack("<q", 2**38),
    }


@bounded.only_on_linux
@pytest.mark.slow
def test_what_announces_more_than_there_is_takes_no_memory(tmp_path: Path) -> None:
    made = bombs()
    for number, content in enumerate(made.values()):
        (tmp_path / f"{number}.pt").write_bytes(content)
    imports = """
from pathlib import Path
from nas_core import checkpoint
from nas_core.errors import CheckpointError
"""
    script = f"""
for number in range({len(made)}):
    try:
        checkpoint.load(Path(f"{{number}}.pt"))
        print("read")
    except CheckpointError:
        print("refused")
"""
    said = bounded.run(imports, script, tmp_path, megabytes=256).split()
    assert dict(zip(made, said, strict=True)) == dict.fromkeys(made, "refused")
