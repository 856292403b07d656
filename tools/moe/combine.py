"""Let tasks of a model use the routers of others, or mixtures of them; tasks with equal routes share one pass.

    python tools/moe/combine.py configs/het_moe_synthetic.py work_dirs/het_moe_synthetic/iter_1500.pth \
        --routes det=sem_seg --evaluate --out work_dirs/combined
    ... --routes det=0.5*det+0.5*sem_seg sem_seg=0.5*det+0.5*sem_seg

The weights stay as they are: the config gets model.routing.
"""

from __future__ import annotations

from mtadapt.engine.measure import ALL_TASKS
from mtadapt.engine.model_folder import check_folder
from mtadapt.engine.surgery import finish, open_network, surgery_parser
from mtadapt.errors import one_line_errors
from mtadapt.models.moe.surgery import combine, parse_routes


def main() -> None:
    """Write the config with the routes."""
    parser = surgery_parser(__doc__)
    parser.add_argument("--routes", nargs="+", required=True, help="TASK=ROUTER or TASK=0.5*ROUTER+0.5*ROUTER")
    args = parser.parse_args()
    check_folder(args.out)
    routes = parse_routes(args.routes)
    before = open_network(args.config, args.checkpoint, args.cfg_options)
    gflops = finish("combine", args, before, *combine(before.config, before.state, routes))["after"]["gflops"]
    if ALL_TASKS in gflops:
        apart = sum(each["total"] for name, each in gflops.items() if name not in ("size", ALL_TASKS))
        print(f"all tasks in one pass: {gflops[ALL_TASKS]['total']:.3f} GFLOPs; one after the other: {apart:.3f}")


if __name__ == "__main__":
    with one_line_errors():
        main()
