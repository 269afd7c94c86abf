"""What network-config-analyzer says of a set of manifests."""

import io
import ipaddress
import json
import os
from contextlib import redirect_stderr, redirect_stdout

# It warns of much, on the stream that is there when it is loaded.
with redirect_stderr(io.StringIO()):
    from nca.CoreDS.Peer import BasePeerSet, IpBlock
    from nca.NetworkConfig.ResourcesHandler import ResourcesHandler
    from nca.Resources.PolicyResources.NetworkPolicy import PolicyConnectionsFilter

PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}


def namespaces(made):
    for name, namespace in made["namespaces"].items():
        # As the API server has it.
        known = namespace["labels"] | {"kubernetes.io/metadata.name": name}
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": known}}


def pods(made):
    for pod in made["pods"]:
        ports = [{"name": it["name"], "containerPort": it["port"], "protocol": it["protocol"]} for it in pod["ports"]]
        yield {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": pod["name"], "namespace": pod["namespace"], "labels": pod["labels"]},
            "spec": {"containers": [{"name": "a", "image": "a", "ports": ports}]},
            "status": {"podIP": pod["ip"], "hostIP": "172.16.0.1"},
        }


def manifests(made):
    """The objects of a case."""
    yield from namespaces(made)
    yield from pods(made)
    yield from made["policies"]


def written(directory, name, objects):
    """A file of them. JSON is YAML, and is written in a tenth of the time."""
    path = os.path.join(directory, f"{name}.yaml")
    with open(path, "w") as file:
        file.write("\n---\n".join(map(json.dumps, objects)))
    return [path]


def analysed(made, directory, asked, addresses=()):
    """The connections that the analyser allows: from, to, protocol, port. Some addresses are ends, too."""
    # Each in a file of its own: the analyser would read all of them for each.
    policies = written(directory, "policies", made["policies"])
    topology = written(directory, "namespaces", namespaces(made)), written(directory, "pods", pods(made))
    BasePeerSet.reset()
    noise = io.StringIO()
    with redirect_stdout(noise), redirect_stderr(noise):
        config = ResourcesHandler().get_network_config(policies, *topology, None)
        wanted = PolicyConnectionsFilter(calc_allowed=False, calc_denied=False)
        allowed = config.allowed_connections(res_conns_filter=wanted).all_allowed_conns
    names = {pod["name"]: f"{pod['namespace']}/{pod['name']}" for pod in made["pods"]}

    def ends(peers):
        for peer in peers:
            if isinstance(peer, IpBlock):
                ranges = [ipaddress.ip_network(str(it)) for it in peer.get_cidr_list()]
                yield from (it for it in addresses if any(ipaddress.ip_address(it) in held for held in ranges))
            elif peer.name in names:
                yield names[peer.name]

    found = set()
    for cube in allowed:
        cube = allowed.get_connectivity_cube(cube)
        sources, targets = (list(ends(cube[side])) for side in ("src_peers", "dst_peers"))
        for protocol, number in PROTOCOLS.items():
            if number not in cube["protocols"]:
                continue
            for port in (it for it in asked if it in cube.get_dim_directly("dst_ports")):
                found.update((source, target, protocol, port) for source in sources for target in targets)
    return found
