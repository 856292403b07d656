"""Prepare the training of a model on one task in which all but routers, head and a few experts rests.

    python tools/moe/adapt.py configs/het_moe_synthetic.py work_dirs/het_moe_synthetic/iter_1500.pth \
        --task det --train least --experts 2 --out work_dirs/adapted
    python tools/train.py work_dirs/adapted/config.py

The task is one of the model's own, or, with --from, one of another config, with its head, data and schedule; name then
with --start-from the task whose routers it continues.
"""

from __future__ import annotations

from mtadapt.engine.model_folder import check_folder
from mtadapt.engine.surgery import add_task_arguments, finish, open_network, surgery_parser, task_from
from mtadapt.errors import one_line_errors
from mtadapt.models.moe.surgery import CHOICES, adapt


def main() -> None:
    """Write what tools/train.py needs."""
    parser = surgery_parser(__doc__)
    add_task_arguments(parser, required=False)
    parser.add_argument(
        "--train", choices=CHOICES, default="least", help="which experts train: least or most used, or new"
    )
    parser.add_argument("--experts", type=int, default=0, help="how many of them in each layer (default: 0)")
    args = parser.parse_args()
    check_folder(args.out)
    task = task_from(args)
    before = open_network(args.config, args.checkpoint, args.cfg_options)
    config, state = adapt(before.config, before.state, task, args.train, args.experts, args.start_from, args.seed)
    finish("adapt", args, before, config, state)


if __name__ == "__main__":
    with one_line_errors():
        main()
