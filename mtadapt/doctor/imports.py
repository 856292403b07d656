"""What the libraries do when they are imported and called: the probe's answers as findings."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mtadapt.doctor.finding import Finding

PROBE = Path(__file__).with_name("probe.py")
#: A driver for NVIDIA GPUs shows itself here, whatever torch says.
NVIDIA = Path("/proc/driver/nvidia/version")
COMPILE = (
    "nothing, or for speed: FORCE_CUDA=1 pip install --no-build-isolation --no-cache-dir --no-deps --force-reinstall "
    "--no-binary onedl-mmcv onedl-mmcv"
)
REINSTALL_TORCH = "pip install --force-reinstall torch torchvision  # both from one index"
_GIB = 2**30

Answers = dict[str, dict[str, Any]]


def probe(timeout: float = 300) -> Answers:
    """Run the steps of :mod:`mtadapt.doctor.probe` in a process of its own.

    Args:
        timeout: seconds after which the process is ended; the step that it was in gets that as its error.

    Returns:
        Step to ``error``, ``facts`` and ``warnings``. A step that ended the process has the signal as its error;
        those behind it are missing.
    """
    code = f"import runpy; runpy.run_path({str(PROBE)!r}, run_name='__main__')"
    ended = "ended without a word"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=timeout, check=False)
        output = done.stdout
        if done.returncode < 0:
            ended = f"the process was ended by signal {-done.returncode}"
    except subprocess.TimeoutExpired as error:
        output, ended = error.stdout or b"", f"did not come back within {timeout:g} s"
    answers: Answers = {}
    for line in output.decode(errors="replace").splitlines():
        try:
            answer = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut off in the middle
        answers[answer.pop("step")] = dict(dict(error=ended, facts={}, warnings=[]), **answer)
    return answers


def examine_imports(answers: Answers) -> list[Finding]:
    """Turn the probe's answers into findings: imports first, then ops and devices."""
    findings = []
    for step, answer in answers.items():
        if answer["error"]:
            findings.append(Finding("imports", step, "problem", answer["error"], _remedy(step, answer["error"])))
        elif step not in ("mmcv.ops", "torch"):
            findings.append(Finding("imports", step, "ok", "imports"))
    if not answers:
        findings.append(Finding("imports", "python", "problem", "the probe did not start", "run it again"))
    findings.extend(_examine_ops(answers.get("mmcv.ops", {}).get("facts", {})))
    findings.extend(_examine_devices(answers.get("torch", {})))
    return findings


def _remedy(step: str, error: str) -> str:
    if "No module named 'mtadapt" in error:
        return "pip install -e .  # in the clone"
    if step in ("torch", "torchvision") or "torchvision" in error:
        return REINSTALL_TORCH
    if "transformers" in error:
        return 'pip install "transformers>=4.53,<5" "huggingface_hub<1"'
    return "mend the packages that are named above, then run the doctor again"


def _examine_ops(facts: Mapping[str, Any]) -> Iterator[Finding]:
    """Compiled or served by torchvision, and on which devices they work."""
    if not facts:
        return
    name, kind = "mmcv's ops", "compiled" if facts["compiled"] else "served by torchvision (mmcv has none compiled)"
    if facts["failed"]:
        device, error = next(iter(facts["failed"].items()))
        remedy = COMPILE.removeprefix("nothing, or for speed: ") if facts["compiled"] else REINSTALL_TORCH
        yield Finding("imports", name, "problem", f"{kind}; nms and roi_align on {device}: {error}", remedy)
    else:
        detail = f"{kind}; nms and roi_align work on {' and '.join(facts['devices'])}"
        yield Finding("imports", name, "ok", detail, "" if facts["compiled"] else COMPILE)


def _examine_devices(answer: Mapping[str, Any]) -> Iterator[Finding]:
    """The GPUs, or why there are none, and what several processes talk through."""
    facts = answer.get("facts")
    if not facts:
        return
    build = f"torch {facts['version']}, " + (f"CUDA {facts['cuda']}" if facts["cuda"] else "without CUDA")
    for index, device in enumerate(facts["devices"]):
        detail = (
            f"{device['name']}, compute capability {device['capability']}, {device['total'] / _GIB:.1f} GiB, "
            f"{device['free'] / _GIB:.1f} GiB free; {build}"
        )
        if device["error"]:
            detail, remedy = (
                f"{device['name']}: {device['error']}; {build}",
                "install a torch that was built for this GPU",
            )
            yield Finding("device", f"cuda:{index}", "problem", detail, remedy)
        else:
            yield Finding("device", f"cuda:{index}", "ok", detail)
    if not facts["devices"]:
        yield _without_gpu(build, facts, answer["warnings"])
    backends = [f"NCCL {facts['nccl']}"] if facts["nccl"] else []
    backends += ["gloo"] if facts["gloo"] else []
    if backends:
        yield Finding("device", "several processes", "ok", " and ".join(backends))
    else:
        yield Finding("device", "several processes", "warning", "torch has neither NCCL nor gloo", REINSTALL_TORCH)


def _without_gpu(build: str, facts: Mapping[str, Any], warnings: list[str]) -> Finding:
    if facts["mps"]:
        return Finding("device", "mps", "ok", build)
    if not NVIDIA.exists():
        return Finding(
            "device", "cpu", "ok", f"no GPU, {facts['threads']} thread{'s'[: facts['threads'] != 1]}; {build}"
        )
    why = next((text for text in warnings if "CUDA" in text), "torch finds no GPU")
    remedy = "update the driver, or install a torch of an older CUDA" if facts["cuda"] else REINSTALL_TORCH
    return Finding("device", "cpu", "warning", f"there is an NVIDIA driver, but {why}; {build}", remedy)
