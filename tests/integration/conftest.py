# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures. A failing test shows the logs of all agents."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cluster import Cluster  # noqa: E402


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    cluster = getattr(item, "cluster", None)
    if report.when == "call" and report.failed and cluster:
        for name, node in cluster.nodes.items():
            report.sections.append((f"poplind of {name}", node.log()[-8000:]))


@pytest.fixture
def make_cluster(request):
    """A function that makes a cluster with a running etcd; all are closed at the end."""
    clusters = []

    def make(**settings):
        cluster = Cluster(settings)
        clusters.append(cluster)
        request.node.cluster = cluster
        return cluster.start_etcd()

    yield make
    complaints = {}
    for cluster in clusters:
        for node in cluster.nodes.values():
            if node.process and node.process.alive():
                node.process.end()
        complaints.update(cluster.complaints())
        cluster.close()
    assert not complaints, "\n".join(f"{k}:\n{v}" for k, v in complaints.items())


@pytest.fixture
def cluster(make_cluster):
    """Short leases, so that deaths are seen soon."""
    return make_cluster(LEASE_TTL=5)
