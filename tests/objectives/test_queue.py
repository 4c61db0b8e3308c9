"""The queue of past embeddings."""

import torch

from rscl_bench.objectives.queue import Queue


def test_queue_is_first_in_first_out() -> None:
    queue = Queue(5, 2)
    pushed = torch.arange(26.0).view(13, 2)
    for rows in torch.split(pushed, [2, 4, 7]):
        queue.push(rows)
        end = int(rows[-1, 1] + 1) // 2
        kept = {tuple(row) for row in pushed[max(0, end - 5) : end].tolist()}
        assert kept <= {tuple(row) for row in queue.rows.tolist()}
    assert {"rows", "place"} == set(queue.state_dict())
