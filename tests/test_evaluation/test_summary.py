from mtadapt.evaluation import format_table


def test_table():
    metrics = {
        "det/bbox_mAP": 0.3125,
        "det/bbox_mAP_50": 0.55,
        "drivable/official_mIoU": 85.314,
        "drivable/strict_mIoU": 70.1,
        "sem_seg/aAcc": 91.0,
        "sem_seg/mIoU": 60.004,
        "depth/silog": 12.5,
        "time": 3,
    }
    assert format_table(metrics).splitlines() == [
        "+----------+---------------+-------+-------------+-----------+",
        "| task     | metric        | value | beside it   | its value |",
        "+----------+---------------+-------+-------------+-----------+",
        "| det      | bbox_mAP      | 0.312 | bbox_mAP_50 |     0.550 |",
        "| drivable | official_mIoU | 85.31 | strict_mIoU |     70.10 |",
        "| sem_seg  | mIoU          | 60.00 | aAcc        |     91.00 |",
        "| depth    | silog         | 12.50 |             |           |",
        "+----------+---------------+-------+-------------+-----------+",
        "det: bbox_mAP 0.312  bbox_mAP_50 0.550",
        "drivable: official_mIoU 85.31  strict_mIoU 70.10",
        "sem_seg: aAcc 91.00  mIoU 60.00",
        "depth: silog 12.50",
        "other: time 3.00",
    ]


def test_nothing_and_values_that_are_no_numbers():
    assert format_table({}) == "no task has numbers"
    assert format_table({"det/bbox_mAP": float("nan"), "det/note": "none"}).splitlines()[-1] == (
        "det: bbox_mAP nan  note none"
    )
