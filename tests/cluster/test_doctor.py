"""Each way in which a node is unfit has its own message."""

import pytest

from dmlray.cluster.node_checks import NodeReport, problems

HERE = NodeReport("here", "3.11.7", {"dmlray": "1", "torch": "2", "ray": "3"})


@pytest.mark.parametrize(
    ("node", "messages"),
    [
        (NodeReport("n", "3.11.7", {"dmlray": "1", "torch": "2", "ray": "3"}), []),
        (NodeReport("n", "3.12.0", HERE.packages), ["n has python 3.12.0, this machine 3.11.7"]),
        (
            NodeReport("n", "3.11.7", {"torch": "2", "ray": "3"}),
            ["n has no dmlray, this machine 1"],
        ),
        (
            NodeReport("n", "3.11.7", {**HERE.packages, "torch": "9"}),
            ["n has torch 9, this machine 2"],
        ),
        (NodeReport("n", "", silence="nothing for 60 s"), ["n does not answer: nothing for 60 s"]),
        (
            NodeReport("n", "3.11.7", HERE.packages, ("/runs/.mark", "/images")),
            ["n does not share /runs with this machine (`out`)", "n does not see /images (data.ro"],
        ),
        (
            NodeReport(
                "n", "3.11.7", HERE.packages, unusable=("GPU 1: torch cannot use this GPU",)
            ),
            ["n, GPU 1: torch cannot use this GPU"],
        ),
    ],
)
def test_each_problem_of_a_node_is_listed(node: NodeReport, messages: list[str]) -> None:
    found = problems(HERE, [node], "/runs/.mark", "/runs")
    assert len(found) == len(messages)
    for problem, expected in zip(found, messages, strict=True):
        assert problem.startswith(expected)
