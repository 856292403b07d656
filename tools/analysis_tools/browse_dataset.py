"""Draw what the training pipeline yields: boxes and maps after all transforms, as the model will see them.

Of a pre-training, the views, the hidden patches and the labels.

python tools/analysis_tools/browse_dataset.py configs/mt_synthetic_baseline.py --out-dir browse --num 12
python tools/analysis_tools/browse_dataset.py configs/hvp_synthetic.py --out-dir browse --num 12
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mmcv
from mmengine.registry import init_default_scope
from mmengine.utils import ProgressBar

from mtadapt.engine import CfgOptions, load_config
from mtadapt.errors import MTAdaptError, one_line_errors
from mtadapt.registry import DATASETS
from mtadapt.visualization import MultiTaskVisualizer
from mtadapt.visualization.views import draw_views


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(description="Draw what a pipeline yields")
    parser.add_argument("config", help="config file")
    parser.add_argument("--split", choices=["train", "val", "test"], default="train", help="which dataloader's dataset")
    parser.add_argument("--out-dir", default="work_dirs/browse", help="folder for the pictures")
    parser.add_argument("--num", type=int, default=12, help="how many samples, spread over the dataset")
    parser.add_argument("--cfg-options", nargs="+", action=CfgOptions, help="override settings, e.g. a.b=1")
    args = parser.parse_args()
    if args.num < 1:
        raise MTAdaptError(f"--num {args.num}: at least 1")
    config = load_config(args.config, args.cfg_options)
    init_default_scope(config.get("default_scope", "mtadapt"))
    dataset = DATASETS.build(config[f"{args.split}_dataloader"].dataset)
    visualizer = MultiTaskVisualizer()
    visualizer.dataset_meta = dataset.metainfo
    num = min(args.num, len(dataset))
    progress = ProgressBar(num)
    for index in range(num):
        data = dataset[index * len(dataset) // num]
        sample = data["data_samples"]
        file = Path(args.out_dir, f"{args.split}_{index:03d}_{Path(sample.img_path).stem}.jpg")
        if data["inputs"].dim() == 4:
            picture = draw_views(data["inputs"], sample, dataset.metainfo["tasks"]["mlc"]["classes"])
            mmcv.imwrite(picture[..., ::-1], str(file))
        else:
            image = data["inputs"].permute(1, 2, 0).numpy()[..., ::-1]
            visualizer.add_datasample(file.stem, image, sample, draw_pred=False, out_file=str(file))
        progress.update()
    print(f"\n{num} pictures in {args.out_dir}")


if __name__ == "__main__":
    with one_line_errors():
        main()
