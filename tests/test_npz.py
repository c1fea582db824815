"""The one reader of .npz files: whole arrays, or a ValueError that says what the file is instead."""

import io
import json
import random
import struct
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from globopt_jax import datasets, npz, runs
from globopt_jax.local_minima import Decomposition

X, Y = np.arange(12.0).reshape(4, 3), np.eye(4)


def npy(array, **header):
    """The bytes of a .npy, with fields of the header replaced."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array))
    if not header:
        return file.getvalue()
    fields = {**np.lib.format.header_data_from_array_1_0(np.asarray(array)), **header}
    text = repr(fields).encode().ljust(118 - 1) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + np.asarray(array).tobytes()


def zipped(path, *members, method=zipfile.ZIP_STORED):
    """A zip of (name, bytes)."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def test_what_numpy_writes_is_read(tmp_path):
    arrays = {
        "fortran": np.asfortranarray(X),
        "big": X.astype(">f8"),
        "scalar": np.float32(2),
        "none": np.zeros((0, 4)),
        "truth": np.array([True, False]),
        "names": np.array(["λ", ""]),
        "int": np.arange(3),
        "complex": X * 1j,
        "long": X.astype(np.longdouble),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        read = npz.read_arrays(tmp_path / "a.npz")
        assert list(read) == npz.names(tmp_path / "a.npz") == list(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(read[name], array, strict=True)
            assert read[name].dtype == np.asarray(array).dtype
            assert read[name].flags.writeable
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        read = npz.read_arrays(zipped(tmp_path / "b.npz", ("X.npy", npy(X)), method=method))
        np.testing.assert_array_equal(read["X"], X)
    np.savez(tmp_path / "a.npz")
    assert npz.read_arrays(tmp_path / "a.npz") == {}


FOREIGN = {
    "torch": ([("archive/data.pkl", b"\x80\x02}q\x00."), ("archive/data/0", b"\0" * 24)], "which is no .npy"),
    "keras": ([("metadata.json", b"{}"), ("model.weights.h5", b"\x89HDF")], "'metadata.json', which is no .npy"),
    "folder": ([("X/", b"")], "which is no .npy"),
    "twice": ([("X.npy", npy(X)), ("X.npy", npy(0 * X))], "two arrays of the name 'X'"),
    "bytes": ([("X.npy", b"no array at all")], "magic"),
    "empty": ([("X.npy", b"")], "EOF|magic"),
    "objects": ([("X.npy", npy(X, descr="|O"))], "dtype object"),
    "records": ([("X.npy", npy(X, descr=[("a", "<f8")]))], "neither numbers nor text"),
    "huge": ([("X.npy", npy(X, shape=(10**16, 1)))], "96 bytes for an array of 80000000000000000"),
    "overflowing": ([("X.npy", npy(X, shape=(2**62, 4)))], "96 bytes for an array of"),
    "long": ([("X.npy", npy(X, descr="<U500000000"))], "96 bytes for an array of"),
    "nothing": ([("X.npy", npy(X, descr="<U0"))], "neither numbers nor text"),
    "negative": ([("X.npy", npy(X, shape=(-4, -3)))], "96 bytes"),
    "small": ([("X.npy", npy(X, shape=(3, 3)))], "96 bytes for an array of 72"),
    "short": ([("X.npy", npy(X)[:-1])], "95 bytes for an array of 96"),
    "shapeless": ([("X.npy", npy(X, shape="(4, 3)"))], "shape"),
    "deep": ([("X.npy", npy(X, shape=(4, 3) + (1,) * 70))], ""),
    "zero": ([("X.npy", npy(np.zeros(0), shape=(0, 10**30)))], ""),
    "truth": ([("X.npy", npy(np.arange(3, dtype=np.uint8), descr="|b1"))], "truth values"),
    "version": ([("X.npy", b"\x93NUMPY\x03" + npy(X)[7:])], "version"),
}


@pytest.mark.parametrize("kind", FOREIGN)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_other_files_are_refused_before_memory_is_taken(tmp_path, kind):
    members, message = FOREIGN[kind]
    path = zipped(tmp_path / "a.npz", *members, method=zipfile.ZIP_DEFLATED)
    expected = f"{path}: Expected: an .npz of numbers. Received: something else"
    with pytest.raises(ValueError, match=f"{expected} .*({message})"):
        npz.read_arrays(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_files_read_whole_or_not_at_all(tmp_path, method):
    """Bits turned, and files cut off, at 150 places: the arrays as they were, or the one ValueError."""
    rng = random.Random(0)
    whole = zipped(tmp_path / "a.npz", ("X.npy", npy(X)), ("Y.npy", npy(Y)), method=method).read_bytes()
    refused = 0
    for trial in range(150):
        damaged = bytearray(whole)
        if trial % 3:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        else:
            del damaged[rng.randrange(len(damaged)) :]
        (tmp_path / "a.npz").write_bytes(damaged)
        try:
            read = npz.read_arrays(tmp_path / "a.npz")
        except ValueError as error:
            refused += "Expected: an .npz of numbers" in str(error)
            continue
        # Only dates and names are left to be damaged.
        assert len(read) == 2
        assert all(np.array_equal(a, b) for a, b in zip(read.values(), (X, Y), strict=True))
    assert refused > 75


def test_a_zip_that_lies_about_its_sizes_takes_no_memory(tmp_path):
    """The directory and the header of the array agree on 80 PB; the file has 96 bytes of them."""
    path = zipped(tmp_path / "a.npz", ("X.npy", npy(X, shape=(2**27, 1))))
    raw, size = path.read_bytes(), struct.pack("<I", 128 + 96)
    assert raw.count(size) == 4  # packed and unpacked, before the member and in the directory
    path.write_bytes(raw.replace(size, struct.pack("<I", 128 + 2**30)))
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\n"
        "from globopt_jax import npz\n"
        "try: npz.read_arrays(sys.argv[1])\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert "Received: something else" in done.stdout, done.stderr


def test_encrypted_files_are_refused(tmp_path):
    path = zipped(tmp_path / "a.npz", ("X.npy", npy(X)))
    raw = bytearray(path.read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="encrypted"):
        npz.read_arrays(path)


def test_only_what_is_asked_for_is_judged(tmp_path):
    np.savez(tmp_path / "a.npz", X=X, Y=Y, names=np.array(["a", None]))
    assert list(npz.read_arrays(tmp_path / "a.npz", only=("X", "Y"))) == ["X", "Y"]
    np.testing.assert_array_equal(datasets.load_npz(tmp_path / "a.npz").X, X)


def test_a_file_that_cannot_be_opened_is_an_error_of_the_system(tmp_path):
    for path in (tmp_path, tmp_path / "none.npz"):
        with pytest.raises(OSError):
            npz.read_arrays(path)


@pytest.mark.parametrize("read", [runs.read_arrays, datasets.load_npz, Decomposition.load])
def test_every_reader_of_the_package_has_this_guard(tmp_path, read):
    path = zipped(tmp_path / "a.npz", ("archive/data.pkl", b"."))
    with pytest.raises(ValueError, match="which is no .npy"):
        read(path)


def test_the_reader_needs_numpy_alone():
    code = "import json, sys; from globopt_jax import npz; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"jax", "scipy"} & set(json.loads(done.stdout))
