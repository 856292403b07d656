"""Prepare the training of one task more, with experts of its own, in which all old parts rest.

    python tools/moe/extend.py configs/het_moe_cifar_bccd.py work_dirs/het_moe_cifar_bccd/iter_1000.pth \
        --from configs/het_moe_cifar_bccd_camvid.py --task sem_seg --experts 2 --out work_dirs/extended
    python tools/train.py work_dirs/extended/config.py
    python tools/moe/same_outputs.py configs/het_moe_cifar_bccd.py work_dirs/het_moe_cifar_bccd/iter_1000.pth \
        work_dirs/extended/config.py work_dirs/extended/training/extend/iter_1000.pth

The new task's head, data and schedule are those of the other config. The last command shows that what the model gave
before it still gives, to the bit.
"""

from __future__ import annotations

from mtadapt.engine.model_folder import check_folder
from mtadapt.engine.surgery import add_task_arguments, finish, open_network, surgery_parser, task_from
from mtadapt.errors import one_line_errors
from mtadapt.models.moe.surgery import Incoming, extend


def main() -> None:
    """Write what tools/train.py needs."""
    parser = surgery_parser(__doc__)
    add_task_arguments(parser, required=True)
    parser.add_argument("--experts", type=int, required=True, help="new experts in each layer")
    args = parser.parse_args()
    check_folder(args.out)
    task = task_from(args)
    assert isinstance(task, Incoming)
    before = open_network(args.config, args.checkpoint, args.cfg_options)
    config, state = extend(before.config, before.state, task, args.experts, args.start_from, args.seed)
    finish("extend", args, before, config, state)


if __name__ == "__main__":
    with one_line_errors():
        main()
