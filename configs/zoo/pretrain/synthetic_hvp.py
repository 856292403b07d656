"""Pre-training of the zoo on rendered scenes: that of camvid_hvp.py without CamVid's frames.

python tools/dataset_converters/synthetic_bdd100k.py data/synthetic --train 200 --val 40 --size 320x192 --seed 0
python tools/train.py configs/zoo/pretrain/synthetic_hvp.py
"""

_base_ = "camvid_hvp.py"
train_dataloader = dict(
    dataset=dict(sources=dict(_delete_=True, synthetic={{_base_.train_dataloader.dataset.sources.synthetic}})),
    batch_sampler=dict(_delete_=True, type="HeterogeneousBatchSampler", batch_size=16),
)
