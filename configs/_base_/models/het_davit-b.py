# het_r50.py with DaViT-Base as its backbone. Ours: the drop path rate of DaViT's ImageNet training, and a start from
# scratch, since ImageNet is one of the sources.
_base_ = "het_r50.py"
channels = [128, 256, 512, 1024]
model = dict(
    backbone=dict(_delete_=True, type="MoEDaViT", arch="base", drop_path_rate=0.4, out_indices=(0, 1, 2, 3)),
    tasks=dict(
        cls=dict(head=dict(in_channels=1024)),
        det=dict(neck=dict(in_channels=channels)),
        sem_seg=dict(decode_head=dict(in_channels=channels), auxiliary_head=dict(in_channels=512)),
    ),
)
