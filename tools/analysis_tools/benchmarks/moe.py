"""A transformer's MLP of experts over the dense one of equal active FLOPs, forward and backward.

Beside it the same experts in two plain ways: ``loop`` takes every expert's tokens in turn, and ``sorted`` is what
Mod-Squad does: rows sorted by expert, whose numbers the host reads, a matmul an expert, and index_add. The routers,
which these two share with mtadapt's layer, are counted for all three. Tokens and routing change in every round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

from ._common import in_turns, peak_mib, print_machine
from ._network import median_of_ratios

ROUTES = ("dense", "mtadapt", "loop", "sorted")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="by autocast")
    parser.add_argument("--tokens", type=int, help="tokens of a step (default: 6272, on a GPU 50176)")
    parser.add_argument("--embed-dims", type=int, default=384, help="channels of a token (default: %(default)s)")
    parser.add_argument("--experts", type=int, default=16, help="number of experts (default: %(default)s)")
    parser.add_argument("--top-k", type=int, default=4, help="experts of a token (default: %(default)s)")
    parser.add_argument("--hidden-dims", type=int, help="of an expert (default: 4 x channels / top-k)")
    parser.add_argument("--threads", type=int, help="of a CPU (default: torch's)")
    parser.add_argument("--repeats", type=int, default=15, help="rounds that count (default: %(default)s)")
    parser.add_argument("--route", choices=ROUTES, help="run a step of one route and print its memory")


def main(args: argparse.Namespace) -> dict:
    """Print milliseconds and memory of each; the ratio that is returned is that of mtadapt to the dense layer."""
    import torch

    args.tokens = args.tokens or (50176 if args.device == "cuda" else 6272)
    args.hidden_dims = args.hidden_dims or 4 * args.embed_dims // args.top_k
    if args.threads:
        torch.set_num_threads(args.threads)
    layers = build(args)
    steps = {name: trainer(forward, parameters, args) for name, (forward, parameters) in layers.items()}
    if args.route:
        result = memory(steps[args.route], layers[args.route][1], args)
        print(json.dumps(result))
        return result
    print_machine()
    threads = torch.get_num_threads()
    print(f"{args.tokens} tokens, {args.embed_dims} channels, {args.top_k} of {args.experts} experts, {args.dtype}")
    inputs = random_tokens(args, 0)
    outputs = [steps[name](*inputs).float() for name in ROUTES[1:]]
    difference = max((output - outputs[0]).abs().max().item() for output in outputs)
    print(f"largest difference between the outputs of {', '.join(ROUTES[1:])}: {difference:.2g}")
    milliseconds = in_rounds(steps, args)
    names = ("tokens", "embed_dims", "experts", "top_k", "hidden_dims", "device", "dtype")
    options = [option for name in names for option in (f"--{name.replace('_', '-')}", getattr(args, name))]
    found = in_turns("moe", ROUTES, 1, *options)
    ratios, mib = {}, {}
    for name in ROUTES:
        ratios[name] = median_of_ratios(milliseconds["dense"], milliseconds[name])
        mib[name] = found[name][0]
        print(
            f"{name}: {statistics.median(milliseconds[name]):.2f} ms, {ratios[name]:.3f} x dense; "
            + ", ".join(f"{key} {value:.1f} MiB" for key, value in mib[name].items())
        )
    floor = 1 + router_share(args)
    print(f"median of the ratios {ratios['mtadapt']:.3f}, floor {floor:.3f} (the routers' FLOPs), aim 1.15")
    return dict(
        ratio=ratios["mtadapt"],
        floor=floor,
        aim=1.15,
        ratios=ratios,
        milliseconds=milliseconds,
        MiB=mib,
        threads=threads,
    )


def router_share(args: argparse.Namespace) -> float:
    """FLOPs of the router over those of the experts."""
    width = args.embed_dims // 4
    return width * (args.embed_dims + args.experts) / (2 * args.embed_dims * args.hidden_dims * args.top_k)


def build(args: argparse.Namespace) -> dict[str, tuple[Callable[[Any], Any], list]]:
    """Forward and parameters of every route; all but the dense one share theirs."""
    import torch
    from torch import nn

    from mtadapt.models.moe import LayerExperts, MoEMLP, Routes

    torch.manual_seed(0)
    tasks = ("one", "two")
    layer = MoEMLP(args.embed_dims, args.hidden_dims, LayerExperts((args.experts,), args.top_k), tasks)
    last = layer.routers["one"][-1]
    nn.init.normal_(last.weight, std=2 / args.embed_dims**0.5)  # some experts have several times the tokens of others
    nn.init.normal_(last.bias, std=0.5)
    layer.to(args.device).train()
    width = args.hidden_dims * args.top_k
    dense = nn.Sequential(nn.Linear(args.embed_dims, width), nn.GELU(), nn.Linear(width, args.embed_dims))
    dense.to(args.device)
    experts = list(layer.parameters())
    return dict(
        dense=(dense, list(dense.parameters())),
        mtadapt=(lambda x: layer(x, Routes.build("one", tasks, len(x), x.device)), experts),
        loop=(lambda x: loop(layer, x), experts),
        sorted=(lambda x: sorted_rows(layer, x), experts),
    )


def trainer(forward: Callable[[Any], Any], parameters: list, args: argparse.Namespace) -> Callable[[Any, Any], Any]:
    """Forward and backward, of the tokens and the gradient of the output; the step returns the output."""
    import torch

    dtype = getattr(torch, args.dtype)

    def step(x: Any, grad: Any) -> Any:
        x = x.detach().requires_grad_()
        for parameter in parameters:
            parameter.grad = None
        with torch.autocast(args.device, dtype, enabled=dtype != torch.float32):
            y = forward(x)
        y.backward(grad.to(y.dtype))
        return y.detach()

    return step


def loop(layer: Any, x: Any) -> Any:
    """Every expert in turn, on the tokens that picked it."""
    import torch.nn.functional as F

    from mtadapt.models.moe.router import choose_experts

    tokens = x.flatten(0, 1)
    gates, picks = choose_experts(layer.routers["one"](tokens).float().softmax(-1), layer.experts.top_k)
    w1, b1, w2, b2 = (weight.unbind() for weight in layer.weights("w1", "w2"))
    y = tokens.new_zeros(tokens.shape, dtype=gates.dtype)
    for expert in range(len(w1)):
        rows, slots = (picks == expert).nonzero(as_tuple=True)
        if len(rows):
            out = F.gelu(tokens[rows] @ w1[expert] + b1[expert]) @ w2[expert] + b2[expert]
            y.index_add_(0, rows, out * gates[rows, slots, None])
    return y.view(x.shape)


def sorted_rows(layer: Any, x: Any) -> Any:
    """The rows of all experts at once, but for the matmuls."""
    import torch
    import torch.nn.functional as F

    from mtadapt.models.moe.router import choose_experts

    tokens, top_k = x.flatten(0, 1), layer.experts.top_k
    gates, picks = choose_experts(layer.routers["one"](tokens).float().softmax(-1), top_k)
    experts, order = picks.flatten().sort(stable=True)
    sizes = experts.bincount(minlength=layer.experts.num_experts).tolist()
    w1, b1, w2, b2 = (weight.unbind() for weight in layer.weights("w1", "w2"))

    def linear(rows: Any, weights: Any, biases: Any) -> Any:
        parts = zip(rows.split(sizes), weights, biases, strict=True)
        return torch.cat([part @ weight + bias for part, weight, bias in parts])

    rows = F.gelu(linear(tokens[order // top_k], w1, b1))
    out = linear(rows, w2, b2) * gates.flatten()[order, None]
    return torch.zeros_like(tokens, dtype=out.dtype).index_add(0, order // top_k, out).view(x.shape)


def random_tokens(args: argparse.Namespace, seed: int) -> tuple[Any, Any]:
    """Tokens and the gradient of the output."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    shape = (1, args.tokens, args.embed_dims)
    x, grad = (torch.randn(shape, generator=generator).to(args.device) for _ in range(2))
    return x, grad


def in_rounds(steps: dict[str, Callable], args: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds of every route, taken in turns after three rounds that do not count.

    With one thread they are those of the processor, which other programs change little; otherwise of the clock.
    """
    import torch

    cuda = args.device == "cuda"
    clock = time.process_time if torch.get_num_threads() == 1 and not cuda else time.perf_counter
    found: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(args.repeats + 3):
        inputs = random_tokens(args, number)
        for name, step in steps.items():
            if cuda:
                torch.cuda.synchronize()
            start = clock()
            step(*inputs)
            if cuda:
                torch.cuda.synchronize()
            if number >= 3:
                found[name].append((clock() - start) * 1000)
    return found


def memory(step: Callable, parameters: list, args: argparse.Namespace) -> dict[str, float]:
    """MiB that autograd holds between forward and backward, and by which a step raises the peak of the process.

    The peak has the gradients of the weights, which are more for E experts than for a dense layer.
    """
    import torch

    held: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}

    def pack(tensor: Any) -> Any:
        if tensor.untyped_storage().data_ptr() not in own:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    small = argparse.Namespace(**{**vars(args), "tokens": 64})
    step(*random_tokens(small, 0))  # what libraries make once
    inputs = random_tokens(args, 0)
    before = torch.cuda.memory_allocated() if args.device == "cuda" else peak_mib()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step(*inputs)
    peak = (torch.cuda.max_memory_allocated() - before) / 2**20 if args.device == "cuda" else peak_mib() - before
    return dict(saved=sum(held.values()) / 2**20, peak=peak)
