"""The executor ``ray`` on a real cluster: two nodes on the loopback interface, one of which is lost on the way."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
from workshop import Workshop, eventually

from duomod.experiments.executors.ray import LOOPBACK, Ray, RaySettings
from duomod.experiments.records import born
from duomod.experiments.schedule import StepsFailed
from duomod.experiments.steps import Kind, Step

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (extra 'ray')")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        yield from started()


def started() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "node_ip_address": LOOPBACK}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.workers = [cluster.add_node(num_cpus=1, node_ip_address=LOOPBACK) for _ in range(2)]
    cluster.wait_for_nodes()
    yield cluster
    ray = importlib.import_module("ray")
    ray.shutdown()  # of a test that failed half-way
    cluster.shutdown()


def plan(workshop: Workshop) -> list[Step]:
    """Two steps that write their numbers, slowly, and one that adds them up."""

    def writes(name: str, number: int) -> Step:
        target = workshop.folder / f"{name}.txt"
        return workshop.step(name, f"time.sleep(3); open({str(target)!r}, 'w').write('{number}')")

    code = f"""
os.chdir({str(workshop.folder)!r})
open('sum.txt', 'w').write(str(sum(int(open(name + '.txt').read()) for name in 'ab')))
"""
    return [writes("a", 20), writes("b", 22), workshop.step("sum", code, kind=Kind.AGGREGATE, needs=("a", "b"))]


def test_a_lost_node_costs_time_and_changes_nothing(
    workshop: Workshop, cluster: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    at_home = Workshop(tmp_path_factory.mktemp("local"))
    at_home.run(*plan(at_home))
    executor = LosesANode(RaySettings(address=cluster.address), workshop.records, jobs=1)
    executor.cluster = cluster
    steps = plan(workshop)
    workshop.run(*steps, executor=executor)
    assert (workshop.folder / "sum.txt").read_text() == (at_home.folder / "sum.txt").read_text() == "42"
    records = [workshop.records.read(step) for step in steps]
    assert [record.state for record in records if record] == ["done"] * 3
    assert sorted(record.attempt for record in records if record) == [1, 1, 2]
    assert len(workshop.times("a")) == len(workshop.times("b")) == 1


class LosesANode(Ray):
    """Removes one of the two nodes when both run a step."""

    cluster: Any = None

    def results(self) -> list[Any]:
        if self.cluster is not None:
            cluster, self.cluster = self.cluster, None
            paths = [self.records.folder / f"{name}.json" for name in "ab"]
            assert eventually(lambda: all(path.exists() for path in paths), seconds=60)
            cluster.remove_node(cluster.workers.pop(), allow_graceful=False)
        return super().results()


def test_a_failure_is_told_in_the_steps_own_words_and_not_tried_again(workshop: Workshop, cluster: Any) -> None:
    executor = Ray(RaySettings(address=cluster.address), workshop.records, jobs=1)
    step = workshop.step("a", "sys.exit('error: no data')")
    with pytest.raises(StepsFailed, match="a: no data"):
        workshop.run(step, executor=executor)
    assert workshop.records.log(step).read_text().count("$ ") == 1


def test_stopping_ends_the_steps(workshop: Workshop, cluster: Any) -> None:
    executor = Ray(RaySettings(address=cluster.address), workshop.records, jobs=1)
    step = workshop.step("a", seconds=60)
    executor.submit([step])
    assert eventually(lambda: workshop.records.path(step).exists())
    running = workshop.records.read(step)
    executor.stop()
    assert running is not None
    assert eventually(lambda: born(running.pid) is None)
