"""Write the hashes of all shipped data; `make manifest` runs it when a file under data/ changed."""

from hashlib import sha256
from pathlib import Path

from rollout.files import DATA, MANIFEST, whole_file

TEXTS = (".md", ".txt")


def manifest(folder: Path = DATA) -> str:
    """A line for each file below the folder, as `sha256sum` writes it; not of texts."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("[!.]*")}
    return "".join(
        f"{sha256(files[name].read_bytes()).hexdigest()}  {name}\n"
        for name in sorted(files)
        if files[name].is_file() and files[name] != MANIFEST and files[name].suffix not in TEXTS
    )


if __name__ == "__main__":
    content = manifest()
    with whole_file(MANIFEST) as partial:
        partial.write_text(content)
    print(f"wrote {MANIFEST}")
