# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures. A failing test shows the logs of all agents and of etcd.

Whatever ends a test, a signal that ends all of them included, nothing of its cluster is left.
"""
import contextlib
import signal
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cluster import Cluster  # noqa: E402


def pytest_configure():
    """A SIGTERM ends the tests as Ctrl-C does: with everything closed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.when != "call" or not report.failed:
        return
    for cluster in getattr(item, "clusters", []):
        for name, node in cluster.nodes.items():
            report.sections.append((f"poplind of {name}", node.log()[-8000:]))
        report.sections.append(("etcd", cluster.etcd_log()[-1500:]))


@pytest.fixture
def make_cluster(request):
    """A function that makes a cluster with a running etcd; all are closed at the end."""
    clusters = request.node.clusters = []

    def make(members=1, start=True, **settings):
        cluster = Cluster(settings, members=members)
        clusters.append(cluster)
        return cluster.start_etcd() if start else cluster

    complaints = {}
    try:
        yield make
        for cluster in clusters:
            complaints.update(cluster.complaints())
    finally:
        with contextlib.ExitStack() as stack:
            for cluster in clusters:
                stack.callback(cluster.close)
    assert not complaints, "\n".join(f"{k}:\n{v}" for k, v in complaints.items())


@pytest.fixture
def cluster(make_cluster):
    """Short leases, so that deaths are seen soon."""
    return make_cluster(LEASE_TTL=5)
