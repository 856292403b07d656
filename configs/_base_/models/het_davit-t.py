# het_r50.py with DaViT-Tiny as its backbone. Ours: the drop path rate of DaViT's ImageNet training, and a start from
# scratch, since ImageNet is one of the sources.
_base_ = "het_r50.py"
channels = [96, 192, 384, 768]
model = dict(
    backbone=dict(_delete_=True, type="MoEDaViT", arch="tiny", drop_path_rate=0.1, out_indices=(0, 1, 2, 3)),
    tasks=dict(
        cls=dict(head=dict(in_channels=768)),
        det=dict(neck=dict(in_channels=channels)),
        sem_seg=dict(decode_head=dict(in_channels=channels), auxiliary_head=dict(in_channels=384)),
    ),
)
