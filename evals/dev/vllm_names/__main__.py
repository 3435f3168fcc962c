"""See the package."""

import sys
from importlib.util import find_spec
from pathlib import Path

import tokenprune
from tokenprune.evals.arguments.parser import script_parser
from tokenprune.evals.dev import vllm_names
from tokenprune.evals.dev.vllm_names.sources import Sources
from tokenprune.evals.dev.vllm_names.uses import File
from tokenprune.serving.vllm.architectures import ARCHITECTURES
from tokenprune.serving.vllm.architectures.releases import is_in

PLUGIN = Path(tokenprune.__file__).parent / "serving" / "vllm"


def open_sources(place: Path) -> Sources:
    """Open a wheel, or a folder that contains the package `vllm`."""
    return Sources.of_wheel(place) if place.suffix == ".whl" else Sources.of_folder(place)


def installed() -> Path:
    """Return the folder that contains the installed vLLM, without importing it."""
    spec = find_spec("vllm")
    if spec is None or spec.origin is None:
        sys.exit("vLLM is not installed here, so there is nothing to compare with. Type: make check-vllm")
    return Path(spec.origin).parents[1]


def files_for(release: str) -> list[File]:
    """Return the plug-in's files, without those of models that this release is known to lack."""
    there, lacking = set[str](), set[str]()
    for record in ARCHITECTURES.values():
        (there if is_in(record, release) else lacking).add(record.home.partition(":")[0])
    return [File(path) for path in sorted(PLUGIN.rglob("*.py")) if path.stem not in lacking - there]


def main() -> None:
    parser = script_parser(vllm_names.__doc__)
    parser.add_argument(
        "--known", type=Path, metavar="PATH", help="the release on which the tests pass (default: installed)"
    )
    parser.add_argument("--release", type=Path, required=True, metavar="PATH", help="the release to check")
    options = parser.parse_args()
    known, release = open_sources(options.known or installed()), open_sources(options.release)
    files = files_for(options.release.name.removeprefix("vllm-"))
    n_names = sum(len(file.imported) for file in files)
    missing = [line for file in files for line in file.missing(known, release)]
    print(
        *missing, f"{options.release.name}: {n_names} imports of {len(files)} files, {len(missing)} missing", sep="\n"
    )
    sys.exit(bool(missing))


if __name__ == "__main__":
    main()
