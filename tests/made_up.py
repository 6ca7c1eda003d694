"""Packages that were never released, for lists of requirements that want them."""

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path


def package(directory: Path, name: str, version: str, metadata: Iterable[str] = (), *, source: bool = False) -> str:
    """Makes an empty package as a wheel, or as what setuptools builds one from. The result ends its line of a list."""
    stem = f"{name.replace('-', '_')}-{version}"
    about = "\n".join([f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *metadata])
    if source:
        path = directory / f"{stem}.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for member, text in {
                "PKG-INFO": about,
                "pyproject.toml": "[build-system]\nrequires = ['setuptools']\nbuild-backend = 'setuptools.build_meta'",
                "setup.py": f"from setuptools import setup; setup(name={name!r}, version={version!r}, py_modules=[])",
            }.items():
                entry = tarfile.TarInfo(f"{stem}/{member}")
                entry.size = len(text)
                archive.addfile(entry, io.BytesIO(text.encode()))
    else:
        path = directory / f"{stem}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(f"{stem}.dist-info/METADATA", about)
            wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{stem}.dist-info/RECORD", "")
    return f" \\\n    --hash=sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}\n"
