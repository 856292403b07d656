"""Gradient surgery: the gradients of the tasks are combined so that they do not work against each other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from mmengine.dist import all_reduce, all_reduce_params, broadcast, get_world_size
from mmengine.optim import AmpOptimWrapper
from scipy.optimize import minimize
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim import Optimizer

from mtadapt.engine.optim.source_accumulation import SourceAccumulationOptimWrapper
from mtadapt.errors import MTAdaptError
from mtadapt.registry import OPTIM_WRAPPERS

#: In the place of a task's name, for the loss that belongs to none.
COMMON = ""


def pcgrad_coefficients(gram: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Factors of the task gradients in the sum of the projected ones.

    Each gradient loses, task by task in random order, its component against the gradient of the other task.

    Args:
        gram: scalar products of the task gradients, ``(T, T)``, with a positive diagonal.
        generator: draws the orders.

    Returns:
        Factors ``(T,)``; all 1 when no two gradients conflict.

    Reference:
        Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020, algorithm 1.
    """
    projected = np.eye(len(gram))
    for task, row in enumerate(projected):
        for other in generator.permutation([number for number in range(len(gram)) if number != task]):
            product = row @ gram[:, other]
            if product < 0:
                row[other] -= product / gram[other, other]
    return projected.sum(0)


def cagrad_coefficients(gram: np.ndarray, c: float, rescale: bool = True) -> np.ndarray:
    """Factors of the task gradients in the conflict-averse direction.

    The direction is, within a ball around the mean gradient, the one whose worst task gains most.

    Args:
        gram: scalar products of the task gradients, ``(T, T)``, with a positive diagonal.
        c: radius of the ball over the norm of the mean gradient, in [0, 1).
        rescale: divide by ``1 + c ** 2``, as the authors' code does.

    Returns:
        Factors ``(T,)``. Ours: of the sum of the gradients, T times the paper's direction, so that c=0 gives all 1.

    Reference:
        Liu et al., Conflict-Averse Gradient Descent for Multi-task Learning, NeurIPS 2021, algorithm 1.
    """
    tasks = len(gram)
    # The problem is homogeneous: without units, the solver's tolerances mean the same for losses of every scale.
    gram = gram / (np.trace(gram) / tasks)
    mean = np.full(tasks, 1 / tasks)
    radius = c * np.sqrt(max(mean @ gram @ mean, 0))

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        norm = np.sqrt(max(weights @ gram @ weights, 1e-16))
        return weights @ gram @ mean + radius * norm, gram @ mean + radius * (gram @ weights) / norm

    simplex = dict(type="eq", fun=lambda weights: 1 - weights.sum(), jac=lambda weights: -np.ones(tasks))
    solution = minimize(
        objective,
        mean,
        jac=True,
        bounds=[(0, 1)] * tasks,
        constraints=simplex,
        method="SLSQP",
        options=dict(ftol=1e-12, maxiter=200),
    )
    weights = solution.x
    norm = np.sqrt(max(weights @ gram @ weights, 1e-16))
    return tasks * (mean + radius / norm * weights) / (1 + c**2 if rescale else 1)


@OPTIM_WRAPPERS.register_module()
class GradientSurgeryOptimWrapper(SourceAccumulationOptimWrapper):
    """Update with the task gradients combined by PCGrad or CAGrad.

    For models whose loss carries ``task_losses``, as :class:`~mtadapt.models.MultiTaskModel` gives it. Each task has a
    backward pass of its own through the shared parts, and its gradients are kept apart until the update: time and
    memory grow with the number of tasks that have labels. Parameters that one task alone reaches get its gradient as
    it is, which has no part in the surgery either.

    A loss that belongs to no task (the ``common_loss`` of the total, e.g. of the routing of experts) has no part in it:
    its gradient is added to the combined one.

    Gradients are summed over the accumulation window and averaged over the processes before the surgery, so that the
    batch that counts is the whole one. With one task a step (``mode='alternate'`` of the batch sampler) there is
    something to combine only when the window holds several tasks (``accumulative_counts``); otherwise this is
    MMEngine's own wrapper.

    Ours: the surgery works on the scalar products of the gradients (``T x T``, float64) and leaves gradients that are
    not finite to whoever guards the step.

    Args:
        optimizer: what updates the parameters.
        method: ``pcgrad`` or ``cagrad``.
        seed: of PCGrad's random orders, which follow from it and the number of the iteration.
        c: CAGrad's radius, in [0, 1).
        rescale: whether CAGrad's direction is divided by ``1 + c ** 2``.
        **kwargs: as in :class:`mmengine.optim.OptimWrapper`.

    Raises:
        MTAdaptError: for an unknown method or an impossible radius.

    Reference:
        Yu et al., NeurIPS 2020 (PCGrad); Liu et al., NeurIPS 2021 (CAGrad).
    """

    def __init__(
        self,
        optimizer: Optimizer,
        method: str = "pcgrad",
        seed: int = 0,
        c: float = 0.4,
        rescale: bool = True,
        **kwargs: object,
    ) -> None:
        super().__init__(optimizer=optimizer, **kwargs)
        methods: dict[str, Callable[[np.ndarray], np.ndarray]] = dict(
            pcgrad=lambda gram: pcgrad_coefficients(gram, np.random.default_rng([seed, self._inner_count])),
            cagrad=lambda gram: cagrad_coefficients(gram, c, rescale),
        )
        if method not in methods:
            raise MTAdaptError(f"optim_wrapper.method={method!r} is unknown; known: {', '.join(methods)}")
        if not 0 <= c < 1:
            raise MTAdaptError(f"optim_wrapper.c={c}: CAGrad's radius must be at least 0 and less than 1, e.g. 0.4")
        self._combine = methods[method]
        self._gradients: dict[str, list[Tensor | None]] = {}

    def update_params(self, loss: Tensor, step_kwargs: dict | None = None, zero_kwargs: dict | None = None) -> None:
        """Add the gradients of one iteration; at the end of the window combine them and step.

        Args:
            loss: total with the attribute ``task_losses``, task name to loss. It may have ``absent_tasks``, the names
                of those without labels in the batch; ``common_loss``, what belongs to no task; and
                ``task_parameters``, which gives by a task's name the parameters that are not shared by all.
            step_kwargs: of the optimizer's step.
            zero_kwargs: of the optimizer's zero_grad.

        Raises:
            MTAdaptError: when the loss does not say the losses of its tasks.
        """
        losses = getattr(loss, "task_losses", None)
        if not losses:
            raise MTAdaptError(
                f"optim_wrapper.type={type(self).__name__!r} needs the loss of every task, which MultiTaskModel gives; "
                "use OptimWrapper for other models"
            )
        common = getattr(loss, "common_loss", None)
        every = losses if common is None else {**losses, COMMON: common}
        scaled = {name: self._amplify(self.scale_loss(value)) for name, value in every.items()}
        self._accumulate(scaled, getattr(loss, "absent_tasks", ()), _own(loss, losses))
        self._inner_count += 1
        if self.should_update():
            self._set_gradients()
            self.step(**(step_kwargs or {}))
            self.zero_grad(**(zero_kwargs or {}))

    def state_dict(self) -> dict:
        """As MMEngine's, with the number of the iteration that the orders follow from."""
        return dict(super().state_dict(), inner_count=self._inner_count)

    def load_state_dict(self, state_dict: dict) -> None:
        """As MMEngine's; a state of another wrapper has no number of the iteration."""
        self._inner_count = state_dict.pop("inner_count", self._inner_count)
        super().load_state_dict(state_dict)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """As MMEngine's, for models whose parameters are whole on each process.

        Raises:
            MTAdaptError: for a sharded model, whose gradients exist only inside its own backward pass.
        """
        if isinstance(model, FullyShardedDataParallel):
            raise MTAdaptError(
                f"optim_wrapper.type={type(self).__name__!r} does not work with FSDP; use DDP or OptimWrapper"
            )
        with super().optim_context(model):
            yield

    def _amplify(self, loss: Tensor) -> Tensor:
        """What mixed precision multiplies the loss with."""
        return loss

    def _parameters(self) -> list[Tensor]:
        groups = self.optimizer.param_groups
        return [parameter for group in groups for parameter in group["params"] if parameter.requires_grad]

    def _accumulate(self, losses: Mapping[str, Tensor], absent: Collection[str], own: Mapping[str, set[int]]) -> None:
        """Add the gradients of each task that has labels on any process.

        Where one computation holds the parameters of several tasks, a task's loss gives those of others a gradient of
        zero; as without it, it does not reach them.
        """
        names = _present_anywhere([*losses], absent, next(iter(losses.values())).device)
        parameters = self._parameters()
        trained = [name for name in names if losses[name].requires_grad]
        for name in names:
            kept = self._gradients.setdefault(name, [None] * len(parameters))
            if name not in trained:
                continue
            # Unlike backward(), this calls none of the hooks by which DDP exchanges gradients.
            new: Sequence[Tensor | None] = torch.autograd.grad(
                losses[name], parameters, retain_graph=name != trained[-1], allow_unused=True
            )
            others = set().union(*own.values()) - own[name] if name in own else set()
            for number, (parameter, gradient) in enumerate(zip(parameters, new, strict=True)):
                if gradient is not None and id(parameter) not in others:
                    # A copy, in the layout of the parameter: autograd may give two parameters the same tensor.
                    before = kept[number]
                    kept[number] = torch.empty_like(parameter).copy_(gradient) if before is None else before + gradient

    def _set_gradients(self) -> None:
        """Write the combined gradients of the window where the optimizer looks for them."""
        parameters, common = self._parameters(), self._gradients.pop(COMMON, None)
        gradients = [*self._gradients.values()]
        rows = gradients if common is None else [*gradients, common]
        self._gradients = {}
        reached = self._average(parameters, rows)[: len(gradients)]
        shared = [number for number in range(len(parameters)) if sum(row[number] for row in reached) > 1]
        factors = self._factors([[row[number] for number in shared] for row in gradients])
        factors += [1.0] * (len(rows) - len(gradients))
        among = set(shared)
        for number, parameter in enumerate(parameters):
            terms = [
                (factor if number in among else 1.0) * gradient
                for factor, row in zip(factors, rows, strict=True)
                if (gradient := row[number]) is not None
            ]
            # Zero, not None, without a task: the model touches every parameter, and momentum and decay go on.
            parameter.grad = sum(terms[1:], terms[0]) if terms else torch.zeros_like(parameter)

    @staticmethod
    def _average(parameters: list[Tensor], gradients: list[list[Tensor | None]]) -> list[list[bool]]:
        """Average over the processes in place; return which task reaches which parameter on any of them."""
        reached = [[gradient is not None for gradient in row] for row in gradients]
        if get_world_size() == 1 or not gradients:
            return reached
        mask = torch.tensor(reached, dtype=torch.int32, device=parameters[0].device)
        all_reduce(mask, "max")
        reached = mask.bool().tolist()
        for row, marks in zip(gradients, reached, strict=True):
            for number, (parameter, mark) in enumerate(zip(parameters, marks, strict=True)):
                if mark and row[number] is None:
                    row[number] = torch.zeros_like(parameter)
            all_reduce_params([gradient for gradient in row if gradient is not None], bucket_size_mb=25, op="mean")
        return reached

    def _factors(self, gradients: list[list[Tensor | None]]) -> list[float]:
        """Factor of each task's gradients of the shared parameters, equal on all processes.

        A task whose gradient is zero has no direction, and no part in the surgery.
        """
        factors = np.ones(len(gradients))
        if not gradients or not gradients[0]:
            return factors.tolist()
        gram = _gram(gradients).cpu().numpy()
        active = np.flatnonzero(np.diag(gram) > 0)
        if np.isfinite(gram).all() and len(active) > 1:
            factors[active] = self._combine(gram[np.ix_(active, active)])
        agreed = torch.from_numpy(factors).to(next(g.device for row in gradients for g in row if g is not None))
        broadcast(agreed)
        return agreed.tolist()


@OPTIM_WRAPPERS.register_module()
class AmpGradientSurgeryOptimWrapper(GradientSurgeryOptimWrapper, AmpOptimWrapper):
    """:class:`GradientSurgeryOptimWrapper` in mixed precision, with the settings of MMEngine's AmpOptimWrapper.

    Ours: the surgery is done on the scaled gradients, because neither method depends on their scale; the loss scaler
    then finds overflows and clips as ever.
    """

    def _amplify(self, loss: Tensor) -> Tensor:
        return self.loss_scaler.scale(loss)


def _own(loss: Tensor, tasks: Iterable[str]) -> dict[str, set[int]]:
    """Of each task the parameters that it trains besides the shared ones, where the loss tells them."""
    parameters = getattr(loss, "task_parameters", None)
    return {} if parameters is None else {name: {id(each) for each in parameters(name)} for name in tasks}


def _present_anywhere(names: list[str], absent: Collection[str], device: torch.device) -> list[str]:
    """Tasks that have labels on this or another process: all run the backward passes of the same ones."""
    flags = torch.tensor([name not in absent for name in names], dtype=torch.int32)
    if get_world_size() > 1:
        flags = flags.to(device)
        all_reduce(flags, "max")
    return [name for name, flag in zip(names, flags.tolist(), strict=True) if flag]


def _gram(gradients: list[list[Tensor | None]]) -> Tensor:
    """Scalar products of the tasks' gradients, ``(T, T)`` float64, one parameter at a time."""
    total: Tensor | None = None
    for column in zip(*gradients, strict=True):
        rows = [number for number, gradient in enumerate(column) if gradient is not None]
        flat = torch.stack([column[row].flatten().double() for row in rows])
        if total is None:
            total = flat.new_zeros(len(gradients), len(gradients))
        index = torch.tensor(rows, device=flat.device)
        total[index[:, None], index] += flat @ flat.T
    assert total is not None
    return total
