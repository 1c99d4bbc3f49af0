"""Where the shipped data lies, whether it is whole, and files that appear whole or not at all."""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from os import PathLike
from pathlib import Path
from stat import S_IMODE

from rollout.errors import shown

# An installed package carries the data inside it; a checkout keeps it at its root.
_PACKAGE = Path(__file__).parent
_HOME = _PACKAGE if (_PACKAGE / "data").is_dir() else _PACKAGE.parents[1]

DATA = _HOME / "data"
NOTEBOOKS = _HOME / "notebooks"
SAMPLES = DATA / "samples"
MANIFEST = DATA / "SHA256SUMS"  # as `sha256sum` writes and checks it


def as_path(path: str | Path) -> Path:
    """The path with `~` as the home folder, as a shell reads it.

    Raises:
        TypeError, ValueError: it is no path, or no file can have this name.
    """
    if not isinstance(path, str | PathLike):
        raise TypeError(f"a path must be a text or a Path, got {shown(path)}")
    name = str(path)
    try:
        unfit = "\0" in name or not os.fsencode(name).strip()
    except UnicodeEncodeError:
        unfit = True
    if unfit:
        raise ValueError(f"no file can have the path {shown(name)}")
    return Path(path).expanduser()


def with_suffix(path: str | Path, suffix: str = ".png") -> Path:
    """The path to write to: with an ending of its own, or with this one."""
    path = as_path(path)
    return path if path.suffix else path.with_name(path.name + suffix)


def find_sample(name: str | Path) -> Path | None:
    """The file of a shipped image by its name, such as "scene_cat_dog"; None if there is none."""
    if Path(name).name != str(name):
        return None
    candidates = (SAMPLES / f"{name}.png", SAMPLES / f"{name}.jpg")
    return next((check_shipped(path) for path in candidates if path.is_file()), None)


def check_shipped(path: Path) -> Path:
    """The path, once its content is found to be what was shipped; any file of others passes.

    Raises:
        ValueError: a file of the shipped data that is damaged, or that the manifest does not name.
    """
    if DATA not in path.parents:
        return path
    name = path.relative_to(DATA).as_posix()
    expected = shipped_hashes().get(name)
    if expected is None or sha256(path.read_bytes()).hexdigest() != expected:
        raise ValueError(
            f"{path} is damaged: its hash is not the one in {MANIFEST.name}; install rollout "
            "again, or in a checkout take the file from git, or run `make manifest` after a change"
        )
    return path


@cache
def shipped_hashes() -> Mapping[str, str]:
    """Name below DATA to SHA-256 of every shipped file, from the manifest."""
    lines = MANIFEST.read_text().splitlines()
    return {name: digest for digest, name in (line.split("  ", 1) for line in lines)}


def enter_shipped(path: Path) -> Path:
    """Enter a file that was made anew into the manifest; files of others are none of its business.

    Returns:
        The path.
    """
    if DATA in path.parents:
        name = path.relative_to(DATA).as_posix()
        hashes = {**shipped_hashes(), name: sha256(path.read_bytes()).hexdigest()}
        with whole_file(MANIFEST) as partial:
            partial.write_text("".join(f"{hashes[name]}  {name}\n" for name in sorted(hashes)))
        shipped_hashes.cache_clear()
    return path


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it takes the name `path` when all went well.

    An error or an interrupt leaves neither a half-written file nor the temporary one. A file that
    is replaced hands its permissions on; a new one has those that the system gives.
    """
    path = as_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{secrets.token_hex(8)}{path.suffix}")
    # Made by the system, and never twice: it has the permissions that the umask leaves.
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        if path.is_file():
            partial.chmod(S_IMODE(path.stat().st_mode))
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
