"""Every command of README and of the pages: known, understood by its tool, and run where its data is at hand."""

from __future__ import annotations

import operator
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mtadapt.engine import load_config
from tests.public_layouts import write_coco
from tests.test_documentation.accounts import ACCOUNTS, account_of
from tests.test_documentation.blocks import PAGES, ROOT, SHELL, Command, all_commands, blocks, examples
from tests.test_documentation.parsing import configs_of, parsed

COMMANDS = all_commands()
SCRIPTS = {"dist_train.sh": ("tools/train.py", (1, 3)), "slurm_train.sh": ("tools/train.py", (3, 5))}
LANGUAGES = {*SHELL, "python", "text", "yaml", "json", "{toctree}", "{include}"}


TEXT = operator.attrgetter("text")


def marked(speed: str) -> list[Command]:
    """The commands that run at this speed; one without an account fails a test of its own."""
    return [
        command
        for command in COMMANDS
        if any(each.run == speed and re.fullmatch(each.pattern, command.text) for each in ACCOUNTS.values())
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page: Path):
    """A block in another language would be a place for commands that nothing looks at."""
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{page.name}:{block.line}: a block of {block.language!r}"
        if block.language not in SHELL:
            assert not re.search(r"^(\$ )?(python|bash|make|mtadapt) ", block.text, re.M), f"{page.name}:{block.line}"


def test_every_command_has_its_account():
    known = {account_of(command.text) for command in COMMANDS}
    assert not set(ACCOUNTS) - known, "no page prints a command of these accounts"


@pytest.mark.parametrize("name", ACCOUNTS)
def test_accounts_hold(name: str):
    """A command is run, or a test runs its tool and the account says why the command itself is not run."""
    account = ACCOUNTS[name]
    assert account.run in ("fast", "slow", "")
    assert bool(account.run) != bool(account.tests and account.lacks)
    assert set(account.needs) <= {other for other, its in ACCOUNTS.items() if its.run}
    for test in account.tests:
        file, _, function = test.partition("::")
        if file.endswith("/"):
            assert list((ROOT / file).glob("test_*.py")), test
            continue
        text = (ROOT / file).read_text()
        assert not function or f"def {function}(" in text, test
        if file == ".ci/run" and name != "tests":
            target = account.pattern.removeprefix("make ")
            assert f"make {target} DEMO_SHORT=1" in text


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.words[0] != "make"], ids=TEXT)
def test_its_tool_understands(clone: Clone, command: Command, monkeypatch: pytest.MonkeyPatch):
    """The tool's parser accepts the command, and the configs that it names load with the options that it gives."""
    words = command.words
    if words[1] in {name for _, name in examples()}:  # a program of the page, which has no arguments
        assert ACCOUNTS[account_of(command.text)].run and len(words) == 2
        return
    if "$(" in command.text:  # the tool of another library, which test_downstream_configs.py runs
        words = ["python", "tools/train.py", words[-1]]
    program, *arguments = words
    if program == "bash":
        script, *given = arguments
        assert (ROOT / script).is_file()
        if Path(script).name not in SCRIPTS:
            assert len(given) in (2, 3)
            return
        tool, (first, last) = SCRIPTS[Path(script).name]
        config = given[0] if first == 1 else given[2]
        arguments = [tool, config, *given[2 if first == 1 else 4 :]]
        assert last <= len(given) + 1
    assert program in ("python", "bash", "mtadapt"), command
    monkeypatch.chdir(clone.folder)
    monkeypatch.syspath_prepend(clone.folder)
    understood = parsed(arguments, monkeypatch)
    for config in configs_of(understood):
        if config.suffix == ".py":
            load_config(str(config), getattr(understood, "cfg_options", None))
        else:
            assert config.is_file()


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.words[0] == "make"], ids=TEXT)
def test_make_knows_the_target(command: Command, monkeypatch: pytest.MonkeyPatch):
    """What a target runs, short or not, is understood by the tools too."""
    for short in ((), ("DEMO_SHORT=1",)):
        made = subprocess.run(
            [*command.words, "-n", *short], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )
        assert made.returncode == 0, made.stderr
        monkeypatch.chdir(ROOT)
        for line in made.stdout.replace("\\\n", " ").splitlines():
            found = re.match(r"\.venv/bin/python (?:-W ignore )?(tools/\S+\.py .*)", line)
            if found:
                parsed(re.sub(r'"\$\(cat \S+\)"', "FILE", found[1]).split(), monkeypatch)


def test_a_wrong_command_is_found(monkeypatch: pytest.MonkeyPatch):
    """A flag that the tool does not have, a value that it does not take, and a command that nobody looked at."""
    for words in (
        "tools/train.py configs/mine.py --workdir x",
        "tools/test.py configs/mine.py",
        "-m mtadapt.doctor a b",
    ):
        with pytest.raises(AssertionError, match="refused by the parser"):
            parsed(words.split(), monkeypatch)
    with pytest.raises(AssertionError, match=r"known to the accounts \[\]"):
        account_of("python tools/train.py configs/mine.py")


class Clone:
    """A folder in which commands run as in a clone: its configs are copies, its tools are links."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.printed: dict[str, str] = {}
        shutil.copytree(ROOT / "configs", folder / "configs")
        (folder / "docs").mkdir()
        for name in ("tools", "docs/logs", "docs/images"):
            (folder / name).symlink_to(ROOT / name)
        for (_, name), text in examples().items():
            (folder / name).write_text(text)

    def run(self, command: str) -> str:
        """Run a command once, after those that it needs, and return what it printed."""
        account = ACCOUNTS[account_of(command)]
        short = account.shortened(command)
        if short in self.printed:
            return self.printed[short]
        for needed in account.needs:
            for other in COMMANDS:
                if account_of(other.text) == needed:
                    self.run(other.text)
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        env = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": path, "PYTHONPATH": f"{ROOT}:."}
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", short],
            cwd=self.folder,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, f"{short}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
        self.printed[short] = done.stdout + done.stderr
        return self.printed[short]


def write_camvid(root: Path) -> None:
    """CamVid's folders in the SegNet tutorial, with four images of sky, road and a car in each split."""
    mask = np.zeros((360, 480), np.uint8)
    mask[160:], mask[200:280, 100:220] = 3, 8
    for split in ("train", "val"):
        for name in (split, f"{split}annot"):
            (root / name).mkdir(parents=True)
        for number in range(4):
            picture = np.random.default_rng(number).integers(0, 255, (360, 480, 3), np.uint8)
            cv2.imwrite(str(root / split / f"{split}{number}.jpg"), picture)
            cv2.imwrite(str(root / f"{split}annot" / f"{split}{number}.png"), mask)


def write_video(path: Path) -> None:
    """Four frames of noise."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 5, (160, 96))
    assert writer.isOpened()
    for number in range(4):
        writer.write(np.random.default_rng(number).integers(0, 255, (96, 160, 3), np.uint8))
    writer.release()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    clone = Clone(tmp_path_factory.mktemp("clone"))
    write_camvid(clone.folder / "CAMVID")
    write_coco(clone.folder / "data/coco")
    write_video(clone.folder / "drive.mp4")
    return clone


@pytest.mark.parametrize("command", marked("fast"), ids=TEXT)
def test_it_runs(clone: Clone, command: Command):
    assert clone.run(command.text).strip()


@pytest.mark.slow
@pytest.mark.parametrize("command", marked("slow"), ids=TEXT)
def test_it_runs_in_time(clone: Clone, command: Command):
    assert clone.run(command.text).strip()
