# hvp_synthetic.py with CamVid's frames beside the rendered scenes. CamVid has boxes of four categories; the others get
# no name, so that they are unknown in its images.
_base_ = "hvp_synthetic.py"
train_dataloader = dict(
    dataset=dict(
        sources=dict(
            camvid=dict(
                tasks=dict(mlc="label"),
                dataset=dict(
                    type="MultiLabelDataset",
                    labels={{_base_.labels}},
                    reader=dict(
                        type="BDD100KLabels",
                        data_root="data/camvid",
                        split="train",
                        names={
                            "truck": [],
                            "bus": [],
                            "train": [],
                            "motorcycle": [],
                            "bicycle": [],
                            "traffic light": [],
                        },
                        remedy="python tools/dataset_converters/camvid_to_bdd100k.py CAMVID data/camvid writes them",
                    ),
                    pipeline={{_base_.train_pipeline}},
                ),
            )
        )
    ),
    batch_sampler=dict(mode="mixed", batch_size=dict(_delete_=True, synthetic=8, camvid=8)),
)
