"""Make an environment that holds a wheel and what it requires, and nothing else, without installing anything twice.

    python .ci/wheel_environment.py dist/spahgc-0.1.0-py3-none-any.whl FOLDER

Run it with the Python of an environment that has the requirements already, and more besides. The new environment links
to the distributions that the wheel's metadata asks for without any extra, and to what these ask for in turn. So it is
what ``pip install WHEEL`` would give in an empty environment: a package that is imported but not required is missing in
it. The wheel itself is installed by pip, which then checks that every requirement is met.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import sysconfig
import venv
import zipfile
from email.parser import HeaderParser
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def wheel_requirements(wheel: Path) -> list[Requirement]:
    """What the metadata of a wheel ask for."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        headers = HeaderParser().parsestr(archive.read(name).decode())
    return [Requirement(text) for text in headers.get_all("Requires-Dist", [])]


def required(requirements: list[Requirement]) -> dict[str, Distribution]:
    """Installed distributions that meet the requirements, and those that they require; by canonical name."""
    found: dict[str, Distribution] = {}
    seen: set[tuple[str, str]] = set()
    waiting = [(requirement, "") for requirement in requirements]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        found[name] = distribution(requirement.name)
        further = [Requirement(text) for text in found[name].requires or []]
        # An extra of a dependency, as in dask[array], selects further lines of its metadata; "" selects the others.
        for wanted in {"", *requirement.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, wanted))
            waiting += [(each, wanted) for each in further]
    return found


def link(found: Distribution, site: Path) -> None:
    """Link the folders and files of a distribution that lie at the top of its site-packages."""
    for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
        place = site / top
        if not place.exists():  # folders such as nvidia/ belong to several distributions
            place.symlink_to(Path(str(found.locate_file(top))).resolve())


def main(wheel: Path, folder: Path) -> None:
    distributions = required(wheel_requirements(wheel))
    own = distributions.pop("spahgc", None)
    assert own is None, "a requirement of the wheel requires the package itself"
    venv.create(folder, clear=True)  # without pip, whose setuptools would stand in the way of the linked one
    paths = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", vars=paths))
    for found in distributions.values():
        link(found, site)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    for command in (["install", "--no-deps", "--no-index", str(wheel)], ["check"]):
        subprocess.run([*pip, *command], check=True)
    print(f"{len(distributions)} distributions linked into {folder}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("folder", type=Path, help="of the environment; emptied if it exists")
    arguments = parser.parse_args()
    main(arguments.wheel.resolve(), arguments.folder.resolve())
