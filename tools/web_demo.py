"""A web page that shows what a trained model sees in a picture.

    python tools/web_demo.py configs/mt_synthetic_lv.py work_dirs/mt_synthetic_lv/finetune \
        --examples data/synthetic/images/100k/val

Then open http://127.0.0.1:7860. The page can be reached from this machine alone, unless --host says otherwise. It needs
the extra 'web'.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mtadapt.apis import MultiTaskInferencer
from mtadapt.apis.web import Predictor, UploadLimits
from mtadapt.apis.web.server import check_extra, find_examples, open_port, serve
from mtadapt.engine import CfgOptions
from mtadapt.errors import one_line_errors


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config of the trained model")
    parser.add_argument("checkpoint", type=Path, help="its checkpoint, or the folder of its run")
    parser.add_argument("--examples", type=Path, help="folder with pictures to pick on the page")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind to; 0.0.0.0 lets the network in")
    parser.add_argument("--port", type=int, default=7860, help="port to bind to, 0 for any (default: 7860)")
    parser.add_argument("--max-upload-mb", type=float, default=20.0, help="largest file that is taken (default: 20)")
    parser.add_argument("--device", help="e.g. cpu or cuda:1; the first GPU by default")
    parser.add_argument(
        "--cfg-options", nargs="+", action=CfgOptions, help="override settings of the config, e.g. a.b=1"
    )
    return parser.parse_args()


def main() -> None:
    """Load the model and serve."""
    args = parse_args()
    limits = UploadLimits(megabytes=args.max_upload_mb)
    check_extra()
    opened = open_port(args.host, args.port)
    examples = find_examples(args.examples, limits)
    inferencer = MultiTaskInferencer(
        args.config, args.checkpoint, args.device, show_progress=False, cfg_options=args.cfg_options
    )
    predictor = Predictor(inferencer)
    if predictor.fixed:
        print(predictor.fixed)
    serve(predictor, examples, opened, limits)


if __name__ == "__main__":
    with one_line_errors():
        main()
