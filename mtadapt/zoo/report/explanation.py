"""What the columns of the report mean, in the words that both pages print."""

from __future__ import annotations

#: Title and text of each point.
EXPLANATION = (
    (
        "Numbers",
        "Mean ± standard deviation over the seeds (n - 1 below). AP, mIoU and accuracies are in percent, of the last "
        "validation of each run. The highest mean of a column is marked on the page; that alone does not show it to be "
        "higher than the next. Runs under another protocol or label setting stand in another table, because their "
        "numbers do not compare.",
    ),
    (
        "Multi-task delta",
        "Mean over the tasks of the relative change against a network that trains one task alone, from the same "
        "checkpoint, with the same labels and the same seed (Vandenhende et al. 2021); then mean ± standard deviation "
        "over the seeds. Above zero the tasks help each other. Without such a baseline there is no delta, and a note "
        "says so. The second delta, where it is given, is against the baselines of one checkpoint for all rows.",
    ),
    (
        "Significance",
        "Runs of the same seed are paired: mean difference in points, its 95 % interval, p of the two-sided paired t "
        "test, and p by Holm's method for the number of comparisons in the list. With three seeds an interval is 2.5 "
        "standard deviations of the differences to each side, so only large differences can show, and a difference "
        "without a small p is not shown to be none. With fewer than three common seeds there is no test.",
    ),
    (
        "Cost",
        "Device hours are the seconds of training with its validations times the devices; they compare on the same "
        "device only. Trainings that made a checkpoint are listed by themselves and belong to its price. The "
        "single-task baselines are one network a task; their cost and size are those of all tasks together.",
    ),
    (
        "Checkpoints",
        "Loaded is the share of the backbone's parameters and statistics that came from the file, from the report that "
        "each run wrote when it loaded it.",
    ),
)
