"""Take tasks out of a model, with the experts that they use.

    python tools/moe/prune.py configs/het_moe_synthetic.py work_dirs/het_moe_synthetic/iter_1500.pth \
        --tasks det --threshold 0.02 --evaluate --out work_dirs/pruned_det

An expert stays when one of the tasks gives it at least the threshold's share of its picks. The folder runs with
tools/test.py and tools/train.py. With one task it also holds stock_config.py and stock.pth, which the tools of mmdet,
mmseg or mmpretrain run.
"""

from __future__ import annotations

from mtadapt.engine.model_folder import check_folder, write_model
from mtadapt.engine.stock_model import stock_model
from mtadapt.engine.surgery import finish, open_network, surgery_parser
from mtadapt.errors import MTAdaptError, one_line_errors
from mtadapt.models.moe.surgery import prune


def main() -> None:
    """Prune."""
    parser = surgery_parser(__doc__)
    parser.add_argument("--tasks", nargs="+", required=True, help="tasks to keep")
    parser.add_argument("--threshold", type=float, default=0.0, help="smallest share of a task's picks (default: 0)")
    parser.add_argument("--keep-top-k", action="store_true", help="keep the most used where too few would be left")
    args = parser.parse_args()
    check_folder(args.out)
    before = open_network(args.config, args.checkpoint, args.cfg_options)
    config, state = prune(before.config, before.state, args.tasks, args.threshold, args.keep_top_k)
    finish("prune", args, before, config, state)
    try:
        path, _ = write_model(args.out, *stock_model(config, state), name="stock")
        print(f"stock config: {path}")
    except MTAdaptError as error:
        print(f"no stock config: {error}")


if __name__ == "__main__":
    with one_line_errors():
        main()
