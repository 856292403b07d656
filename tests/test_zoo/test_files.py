"""Where a checkpoint comes from, which hash it has, and what is read from it without running any of it."""

from __future__ import annotations

import hashlib
import http.server
import os
import pickle
import threading
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from mmpretrain.models import ResNet
from safetensors.torch import save_file
from torch import nn

from mtadapt.errors import MTAdaptError
from mtadapt.models.backbones.efficientnet_lite import EfficientNetLite0
from mtadapt.zoo import load_backbone
from mtadapt.zoo.files import cached_path, fetch, read_state

STATE = {"conv.weight": torch.arange(6.0).view(2, 3), "conv.bias": torch.ones(2)}


def saved(path: Path, content: object = STATE, **settings: object) -> Path:
    torch.save(content, path, **settings)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def equal(given: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return list(given) == list(expected) and all(torch.equal(given[name], expected[name]) for name in expected)


class Evil:
    """A pickle that makes a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("new_format", [True, False])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, new_format: bool):
    made = tmp_path / "made"
    content = dict(state_dict=STATE, extra=Evil(made))
    path = saved(tmp_path / "evil.pth", content, _use_new_zipfile_serialization=new_format)
    with pytest.raises(MTAdaptError) as error:
        read_state(path)
    assert not made.exists()
    assert str(error.value) == (
        f"{path}: not read, because it asks for posix.mkdir, which is code; where you trust whoever made the file, "
        "give --trust-checkpoint (trust_checkpoint=True)"
    )
    backbone = ResNet(18)
    with pytest.raises(MTAdaptError, match=r"it asks for posix\.mkdir"):
        load_backbone(path, backbone)
    assert not made.exists()
    assert equal(read_state(path, trust=True), STATE) and made.is_dir()


def test_a_bare_pickle_is_refused_and_not_run(tmp_path: Path):
    made = tmp_path / "made"
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(dict(state_dict=Evil(made))))
    with pytest.raises(MTAdaptError, match=r"evil\.pkl: (not read, because|no checkpoint that can be read safely)"):
        read_state(tmp_path / "evil.pkl")
    assert not made.exists()


class Settings:
    """A class of the training code, which the reader does not have either."""


def test_settings_of_a_training(tmp_path: Path):
    """Plain attributes as MAE, DINO and BEiT write them are read; a class is not."""
    args = Namespace(lr=0.1, data=Namespace(path="x"), betas=(0.9, 0.95))
    assert equal(read_state(saved(tmp_path / "mae.pth", dict(model=STATE, args=args, epoch=3))), STATE)
    with pytest.raises(MTAdaptError, match=r"because it asks for tests\.test_zoo\.test_files\.Settings, which is code"):
        read_state(saved(tmp_path / "class.pth", dict(model=STATE, args=Settings())))


def test_a_whole_model(tmp_path: Path):
    path = saved(tmp_path / "model.pth", nn.Linear(3, 2))
    with pytest.raises(MTAdaptError, match=r"because it asks for torch\.nn\.modules\.linear\.Linear, which is code"):
        read_state(path)
    assert list(read_state(path, trust=True)) == ["weight", "bias"]


@pytest.mark.parametrize("content", [STATE, dict(state_dict=STATE), dict(model=dict(model=STATE)), dict(network=STATE)])
@pytest.mark.parametrize("new_format", [True, False])
def test_where_the_state_dict_is(tmp_path: Path, content: dict, new_format: bool):
    more = {} if content is STATE else dict(epoch=1, optimizer=dict(state={0: torch.ones(2)}), ema=STATE)
    path = saved(tmp_path / "c.pth", {**content, **more}, _use_new_zipfile_serialization=new_format)
    given = read_state(path)
    assert equal({name: value for name, value in given.items() if not name.startswith("ema.")}, STATE)
    assert len(given) == (1 if content is STATE else 2) * len(STATE)


@pytest.mark.parametrize("follower", ["target_encoder", "target_network", "ema", "state_dict_ema", "encoder_k"])
@pytest.mark.parametrize("other", ["something_else", "net"])
def test_an_encoder_that_follows_another_keeps_its_name(tmp_path: Path, follower: str, other: str):
    """Also where the name of the other one is not known."""
    given = read_state(saved(tmp_path / "c.pth", {other: STATE, follower: STATE}))
    leading = list(STATE) if other == "net" else []
    assert list(given) == leading + [f"{follower}.{name}" for name in STATE]


def test_two_state_dicts_keep_their_names(tmp_path: Path):
    given = read_state(saved(tmp_path / "c.pth", dict(student=STATE, teacher=STATE, epoch=1)))
    assert list(given) == [f"{role}.{name}" for role in ("teacher", "student") for name in STATE]


def test_safetensors(tmp_path: Path):
    save_file(STATE, tmp_path / "c.safetensors")
    given = read_state(tmp_path / "c.safetensors")
    assert sorted(given) == sorted(STATE) and torch.equal(given["conv.weight"], STATE["conv.weight"])
    content = (tmp_path / "c.safetensors").read_bytes()
    (tmp_path / "c.safetensors").write_bytes(content[:-5])
    with pytest.raises(MTAdaptError, match=r"c\.safetensors: no safetensors file that can be read: SafetensorError: "):
        read_state(tmp_path / "c.safetensors")


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("trust", [True, False])
@pytest.mark.parametrize("kept", [0, 5, 0.5, 0.98])
def test_a_truncated_file(tmp_path: Path, new_format: bool, trust: bool, kept: float):
    large = {"w": torch.randn(100, 100), "b": torch.ones(3)}
    path = saved(tmp_path / "c.pth", large, _use_new_zipfile_serialization=new_format)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if kept < 1 else int(kept)])
    with pytest.raises(MTAdaptError, match=rf"^{path}: no checkpoint that can be read") as error:
        read_state(path, trust)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [dict(epoch=1), [1, 2], 3, dict(state_dict=dict(a=1))])
def test_files_without_tensors(tmp_path: Path, content: object):
    path = saved(tmp_path / "c.pth", content)
    with pytest.raises(
        MTAdaptError, match=r"c\.pth: holds no state dict \(.+\); give a checkpoint with the weights of"
    ):
        read_state(path)


def test_a_text_file(tmp_path: Path):
    (tmp_path / "page.pth").write_text("<html>404: Not Found</html>" * 20)
    with pytest.raises(MTAdaptError, match=r"page\.pth: no checkpoint that can be read safely"):
        read_state(tmp_path / "page.pth")


def test_the_hash(tmp_path: Path):
    path = saved(tmp_path / "c.pth")
    digest = sha256(path)
    for given in (None, digest, digest[:8], digest[:20].upper()):
        assert fetch(path, given).sha256 == digest
    wrong = "0" * 8
    with pytest.raises(MTAdaptError) as error:
        fetch(path, wrong)
    assert str(error.value) == (
        f"{path}: its SHA-256 is {digest[:8]}, sha256 says {wrong}; it is damaged or another file: copy the file "
        "again, or correct the hash"
    )
    for no_hash in ("1234567", "0" * 65, "xyzxyzxyz", ""):
        with pytest.raises(MTAdaptError, match=r"is no hash; give 8 to 64 hexadecimal digits$"):
            fetch(path, no_hash)


@pytest.mark.parametrize("suffix", ["pth", "pt", "bin", "pth.tar", "safetensors"])
def test_the_hash_in_a_name(tmp_path: Path, suffix: str):
    digest = sha256(saved(tmp_path / "c.pth"))
    right = saved(tmp_path / "c.pth").rename(tmp_path / f"swin-t_{suffix}-{digest[:8]}.{suffix}")
    assert fetch(right).sha256 == digest
    wrong = right.rename(tmp_path / f"swin-t-{'a' * 8}.{suffix}")
    with pytest.raises(MTAdaptError, match=rf"its SHA-256 is {digest[:8]}, its name says aaaaaaaa; it is damaged"):
        fetch(wrong)


@pytest.mark.parametrize(
    "name", ["swin-20210531.pth", "swin_20210531-x.pth", "vit-b-16.pth", "r50-1234567.pth", "x.pth"]
)
def test_names_without_a_hash(tmp_path: Path, name: str):
    assert fetch(saved(tmp_path / name)).path.name == name


def test_the_package():
    """The name of its file is torchvision's kind."""
    file = fetch("package:efficientnet-lite0", "57934424")
    assert file.sha256.startswith("57934424") and file.source == "package:efficientnet-lite0"
    backbone, reference = EfficientNetLite0(pretrained=None), EfficientNetLite0()
    reference.init_weights()
    report = load_backbone("package:efficientnet-lite0", backbone)
    assert report.source == file.source and report.share == 1 and len(report.matched) == 288
    assert report.grouped() == "1 (_conv_head), 5 (_bn1), 2 (_fc)"
    assert equal(backbone.state_dict(), reference.state_dict())
    with pytest.raises(MTAdaptError, match=r"^package:resnet: unknown package; there is package:efficientnet-lite0$"):
        fetch("package:resnet")


def test_efficientnet_of_timm(tmp_path: Path):
    reference = EfficientNetLite0(pretrained=None)
    backbone = EfficientNetLite0(pretrained=None)
    own = {name.removeprefix("timm_model."): value + 1 for name, value in reference.state_dict().items()}
    report = load_backbone(saved(tmp_path / "timm.pth", {**own, "classifier.weight": torch.ones(2)}), backbone)
    assert report.format == "timm names without a prefix" and report.unexpected == ("classifier.weight",)
    assert torch.equal(backbone.timm_model.conv_stem.weight, reference.timm_model.conv_stem.weight + 1)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Path, list[str]]]:
    """A folder behind a URL, and what was asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))  # type: ignore[arg-type]

        def log_message(self, *args: object) -> None:
            asked.append(self.path)

    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}", folder, asked
        httpd.shutdown()


def test_a_url_is_downloaded_once(server: tuple):
    url, folder, asked = server
    digest = sha256(saved(folder / "c.pth"))
    address = f"{url}/c.pth?download=true"
    assert not cached_path(address).exists()
    for _ in range(2):
        file = fetch(address, digest[:10])
        assert (file.sha256, file.source, file.path) == (digest, address, cached_path(address))
    assert asked == ["/c.pth?download=true"]
    assert [path.name for path in file.path.parent.iterdir()] == ["c.pth"]
    (folder / "other").mkdir()
    saved(folder / "other/c.pth", dict(other=torch.ones(1)))
    assert list(read_state(fetch(f"{url}/other/c.pth").path)) == ["other"]


def test_the_hash_of_a_download(server: tuple):
    """A file with the wrong hash never gets its name."""
    url, folder, asked = server
    digest = sha256(saved(folder / "c.pth"))
    named = saved(folder / "c.pth").rename(folder / f"r50-{digest[:8]}.pth")
    assert fetch(f"{url}/{named.name}").path == Path(torch.hub.get_dir()) / "checkpoints" / named.name
    wrong = named.rename(folder / "r50-abcdef01.pth")
    with pytest.raises(
        MTAdaptError, match=r"the download failed: RuntimeError: invalid hash value \(expected \"abcdef01"
    ):
        fetch(f"{url}/{wrong.name}")
    assert not cached_path(f"{url}/{wrong.name}").exists() and len(asked) == 2
    cached_path(f"{url}/{named.name}").write_bytes(b"damaged")
    with pytest.raises(MTAdaptError, match=r"its name says .*: delete the file and download it again, or correct"):
        fetch(f"{url}/{named.name}")


def test_a_url_that_is_not_there(server: tuple):
    url, _, _ = server
    with pytest.raises(
        MTAdaptError, match=r"gone\.pth: the download failed: HTTPError: HTTP Error 404: .*; correct the"
    ):
        fetch(f"{url}/gone.pth")
    assert not cached_path(f"{url}/gone.pth").exists()
    with pytest.raises(MTAdaptError, match=r"^s3://b/c\.pth: only http, https and file can be downloaded; give such"):
        fetch("s3://b/c.pth")
