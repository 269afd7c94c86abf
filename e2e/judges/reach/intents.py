"""Judges `rampart render` by network-config-analyzer: what random SecurityPolicies become allows what they say.

    intents.py RAMPART [CASES]

What they say is worked out here, from the spec alone.
"""

import ipaddress
import json
import os
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import yaml
from analyser import PROTOCOLS, analysed, manifests

PORTS = [53, 79, 80, 81, 443, 6443, 8080, 65535]
NAMESPACES = ["x", "y", "z"]
CLUSTER = ["10.0.0.0/8", "172.16.0.0/16"]
API_SERVER = "198.51.100.1:6443"
DNS = "169.254.20.10"
# In no range, in a range, left out of one, where clouds keep credentials, the name servers, the API server.
ADDRESSES = ["8.8.8.8", "203.0.113.5", "203.0.113.200", "169.254.169.254", DNS, "198.51.100.1"]


def labels(rng):
    return {key: rng.choice(["one", "two"]) for key in "ab" if rng.random() < 0.7}


def selector(rng):
    made = {}
    if rng.random() < 0.4:
        made["matchLabels"] = labels(rng)
    if rng.random() < 0.3:
        values = rng.sample(["one", "two", "three"], rng.randint(1, 2))
        made["matchExpressions"] = [{"key": rng.choice("abc"), "operator": rng.choice(["In", "NotIn"]), "values": values}]
    return made


def pods_peer(rng):
    made = {"selector": selector(rng)}
    shape = rng.randrange(3)
    if shape == 1:
        made["namespaces"] = rng.sample(NAMESPACES, rng.randint(1, 2))
    elif shape == 2:
        made["namespaceSelector"] = selector(rng)
    return {"pods": made}


def peer(rng, direction):
    shape = rng.randrange(10)
    if shape == 0:
        cidr, excepts = rng.choice([("0.0.0.0/0", []), ("203.0.113.0/24", ["203.0.113.128/25"]), ("8.0.0.0/8", [])])
        return {"external": {"cidrs": [cidr]} | ({"except": excepts} if excepts else {})}
    if shape == 1:
        return {"entity": "SameNamespace"}
    if shape == 2 and direction == "egress":
        return {"entity": rng.choice(["DNS", "APIServer"])}
    if shape == 2:
        return {"entity": "Webhooks"}
    if shape == 3:
        return {"service": {"name": rng.choice(["s", "t"])} | ({"namespace": "y"} if rng.random() < 0.5 else {})}
    if shape == 4 and rng.random() < 0.4:
        return {"any": True}
    return pods_peer(rng)


def port(rng):
    made = {"protocol": rng.choice(list(PROTOCOLS))} if rng.random() < 0.4 else {}
    shape = rng.randrange(4)
    if shape == 0:
        return made | {"port": rng.choice(["http", "dns"])}
    if shape == 1:
        return made | {"port": 80, "endPort": rng.choice([80, 81, 8080])}
    return made | {"port": rng.choice(PORTS)}


def rules(rng, direction):
    made = []
    for number in range(rng.randrange(4)):
        rule = {"name": f"r{number}", "peers": [peer(rng, direction) for _ in range(rng.randint(1, 3))]}
        if rng.random() < 0.2:
            rule["anyPort"] = True
        elif direction == "ingress" or not all(brings_ports(it) for it in rule["peers"]) or rng.random() < 0.5:
            rule["ports"] = [port(rng) for _ in range(rng.randint(1, 3))]
        made.append(rule)
    return made


def brings_ports(it):
    return "service" in it or it.get("entity") in ("DNS", "APIServer")


def intent(rng, number):
    isolate = rng.choice([["Ingress"], ["Egress"], ["Ingress", "Egress"]])
    network = {"mode": "Enforce", "podSelector": selector(rng), "isolate": isolate, "allowNoDns": True,
               "reciprocal": rng.choice(["Report", "Generate"])}
    for direction in isolate:
        network[direction.lower()] = rules(rng, direction.lower())
    metadata = {"name": f"p{number}", "namespace": rng.choice(NAMESPACES)}
    return {"apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy", "metadata": metadata,
            "spec": {"network": network}}


def case(rng):
    namespaces = {name: {"labels": labels(rng)} for name in NAMESPACES} | {"kube-system": {"labels": {}}}
    pods = [{"namespace": "kube-system", "name": "dns", "labels": {"k8s-app": "kube-dns"}, "ip": "10.0.0.250", "ports": []}]
    for number in range(rng.randint(3, 7)):
        # A label of its own: of pods that are alike the analyser keeps two.
        pods.append({
            "namespace": rng.choice(NAMESPACES), "name": f"pod-{number}",
            "labels": labels(rng) | {"id": f"n{number}"}, "ip": f"10.0.0.{number + 1}",
            "ports": rng.choice([
                [{"name": "http", "port": 80, "protocol": "TCP"}],
                [{"name": "http", "port": 8080, "protocol": "TCP"}, {"name": "dns", "port": 80, "protocol": "UDP"}],
            ]),
        })
    services = [
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
         "spec": {"selector": {rng.choice("ab"): "one"}, "ports": [
             {"name": "http", "port": 443, "targetPort": "http"}, {"name": "raw", "port": 81, "protocol": "UDP"}]}}
        for name in "st" for namespace in NAMESPACES if rng.random() < 0.7]
    # In some namespaces everything is isolated by a policy of others, so that halves are rendered there.
    policies = [
        {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "deny", "namespace": name},
         "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}}
        for name in NAMESPACES if rng.random() < 0.4]
    intents = [intent(rng, number) for number in range(rng.randint(1, 3))]
    for one in intents:
        others = [it["metadata"] for it in intents if it["metadata"]["namespace"] != one["metadata"]["namespace"]]
        accepted = [{"namespace": it["namespace"], "policy": it["name"]} for it in others if rng.random() < 0.5]
        if accepted:
            one["spec"]["network"]["acceptFrom"] = accepted
    return {"namespaces": namespaces, "pods": pods, "policies": policies, "services": services, "intents": intents}


def matches(wanted, have):
    return all(have.get(key) == value for key, value in wanted.get("matchLabels", {}).items()) and all(
        (have.get(it["key"]) in it["values"]) == (it["operator"] == "In") for it in wanted.get("matchExpressions", []))


class Said:
    """What the policies of a case say of a connection."""

    def __init__(self, made):
        self.made = made
        self.services = {(it["metadata"]["namespace"], it["metadata"]["name"]): it["spec"] for it in made["services"]}

    def is_peer(self, policy, it, end):
        own = policy["metadata"]["namespace"]
        if "any" in it:
            return True
        if isinstance(end, str):
            address = ipaddress.ip_address(end)
            if it.get("entity") == "Webhooks":
                return end == API_SERVER.split(":")[0]
            if "external" not in it:
                return False
            inside = lambda ranges: any(address in ipaddress.ip_network(held) for held in ranges)
            left_out = it["external"].get("except", []) + CLUSTER + ["169.254.169.254/32"]
            return inside(it["external"]["cidrs"]) and not inside(left_out)
        if it.get("entity") == "SameNamespace":
            return end["namespace"] == own
        if "service" in it:
            namespace = it["service"].get("namespace", own)
            spec = self.services.get((namespace, it["service"]["name"]))
            return spec is not None and end["namespace"] == namespace and matches({"matchLabels": spec["selector"]}, end["labels"])
        if "pods" not in it:
            return False
        peers = it["pods"]
        if "namespaces" in peers:
            there = end["namespace"] in peers["namespaces"]
        elif "namespaceSelector" in peers:
            known = self.made["namespaces"][end["namespace"]]["labels"]
            there = matches(peers["namespaceSelector"], known)
        else:
            there = end["namespace"] == own
        return there and matches(peers["selector"], end["labels"])

    def has_port(self, listed, protocol, asked, targets):
        for it in listed:
            if it.get("protocol", "TCP") != protocol:
                continue
            if isinstance(it["port"], str):
                named = {(port["name"], port["protocol"], port["port"]) for pod in targets for port in pod["ports"]}
                if (it["port"], protocol, asked) in named:
                    return True
            elif it["port"] <= asked <= it.get("endPort", it["port"]):
                return True
        return False

    def service_ports(self, policy, rule, it):
        """Protocols and ports of the pods behind a Service that a rule is about."""
        namespace = it["service"].get("namespace", policy["metadata"]["namespace"])
        spec = self.services.get((namespace, it["service"]["name"]))
        found = set()
        for port in spec["ports"] if spec else []:
            protocol = port.get("protocol", "TCP")
            meant = [one for one in rule.get("ports", []) if one.get("protocol", "TCP") == protocol and (
                one["port"] == port["name"] if isinstance(one["port"], str)
                else one["port"] <= port["port"] <= one.get("endPort", one["port"]))]
            if "ports" in rule and not meant:
                continue
            target = port.get("targetPort", port["port"])
            if isinstance(target, str):
                behind = [pod for pod in self.made["pods"] if self.is_peer(policy, it, pod)]
                found |= {(protocol, one["port"]) for pod in behind for one in pod["ports"]
                          if (one["name"], one["protocol"]) == (target, protocol)}
            else:
                found.add((protocol, target))
        return found

    def rule_allows(self, policy, direction, rule, end, protocol, asked):
        network = policy["spec"]["network"]
        if direction == "ingress":
            targets = [pod for pod in self.made["pods"] if selects(policy, pod)]
        else:
            listed = [it for it in rule["peers"] if "pods" in it or it.get("entity") == "SameNamespace"]
            targets = [pod for pod in self.made["pods"] if any(self.is_peer(policy, it, pod) for it in listed)]
        for it in rule["peers"]:
            if direction == "egress" and it.get("entity") == "DNS":
                pod = not isinstance(end, str) and end["labels"].get("k8s-app") == "kube-dns"
                if (pod or end == DNS) and protocol in ("TCP", "UDP") and asked == 53:
                    return True
            elif direction == "egress" and it.get("entity") == "APIServer":
                if (end, protocol, asked) == (API_SERVER.split(":")[0], "TCP", 6443):
                    return True
            elif not self.is_peer(policy, it, end):
                continue
            elif rule.get("anyPort"):
                return True
            elif direction == "egress" and "service" in it:
                if (protocol, asked) in self.service_ports(policy, rule, it):
                    return True
            elif self.has_port(rule["ports"], protocol, asked, targets):
                return True
        return False

    def side(self, direction, own, other, protocol, asked):
        """Whether one end lets a connection through."""
        name, back = direction.capitalize(), "egress" if direction == "ingress" else "ingress"
        isolated = any(it["metadata"]["namespace"] == own["namespace"] for it in self.made["policies"])
        allowed = False
        for policy in self.made["intents"]:
            network = policy["spec"]["network"]
            if name in network["isolate"] and selects(policy, own):
                isolated = True
                allowed |= any(self.rule_allows(policy, direction, rule, other, protocol, asked)
                               for rule in network.get(direction, []))
            # The half of a policy about the other end.
            if (network["reciprocal"] == "Generate" and back.capitalize() in network["isolate"]
                    and not isinstance(other, str) and selects(policy, other)):
                allowed |= any(self.half_allows(policy, back, rule, own, protocol, asked)
                               for rule in network.get(back, []))
        return allowed or not isolated

    def half_allows(self, policy, direction, rule, end, protocol, asked):
        """Halves are of pods of the policy's own namespace, and of those that accept it, and rendered where those are
        provably isolated."""
        own, there = policy["metadata"]["namespace"], end["namespace"]
        consent = {"namespace": own, "policy": policy["metadata"]["name"]}
        if there != own and not any(
                consent in it["spec"]["network"].get("acceptFrom", []) and it["metadata"]["namespace"] == there
                for it in self.made["intents"]):
            return False
        denied = any(it["metadata"]["namespace"] == there for it in self.made["policies"])
        peers = [it for it in rule["peers"] if "pods" in it or "service" in it or it.get("entity") == "SameNamespace"]
        peers = [it for it in peers if self.is_peer(policy, it, end)]
        if not peers or not (denied or self.is_proven(policy, direction, peers)):
            return False
        behind = [it for it in peers if "service" in it and direction == "egress"]
        if any(rule.get("anyPort") or (protocol, asked) in self.service_ports(policy, rule, it) for it in behind):
            return True
        if len(behind) == len(peers):
            return False
        listed = [it for it in rule["peers"] if "pods" in it or it.get("entity") == "SameNamespace"]
        targets = [pod for pod in self.made["pods"] if (
            selects(policy, pod) if direction == "ingress" else any(self.is_peer(policy, it, pod) for it in listed))]
        return bool(rule.get("anyPort")) or self.has_port(rule["ports"], protocol, asked, targets)

    def is_proven(self, policy, direction, peers):
        raise Undecided


class Undecided(Exception):
    """Whether a half is rendered depends on what can be proven; such a connection is not compared."""


def selects(policy, pod):
    return not isinstance(pod, str) and pod["namespace"] == policy["metadata"]["namespace"] and matches(
        policy["spec"]["network"]["podSelector"], pod["labels"])


def rendered(rampart, made, directory):
    path = os.path.join(directory, "intents.json")
    with open(path, "w") as file:
        items = [*manifests(made), *made["services"], *made["intents"]]
        json.dump({"apiVersion": "v1", "kind": "List", "items": items}, file)
    flags = ["--network-cluster-cidrs", ",".join(CLUSTER), "--network-api-server", API_SERVER]
    done = subprocess.run([rampart, "render", path, *flags], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"render exits {done.returncode}: {done.stderr}\n{json.dumps(made)}")
    return [it for it in yaml.load_all(done.stdout, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) if it]


def main():
    rampart = sys.argv[1]
    cases = int(sys.argv[2]) if len(sys.argv) > 2 else 1000
    seed = int(os.environ.get("RAMPART_SEED") or random.randrange(2**63))
    print(f"RAMPART_SEED={seed}")
    rng = random.Random(seed)
    compared = denied = undecided = policies = 0
    made_of = [case(rng) for _ in range(cases)]
    # The next one is rendered while one is analysed; no more of them once a difference is found.
    ahead = ThreadPoolExecutor(max_workers=1)
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        stack.callback(ahead.shutdown, cancel_futures=True)
        for made, rules in zip(made_of, ahead.map(lambda it: rendered(rampart, it, directory), made_of)):
            said = Said(made)
            policies += len(made["intents"])
            world = made | {"policies": made["policies"] + rules}
            theirs = analysed(world, directory, PORTS, ADDRESSES)
            ends = made["pods"] + ADDRESSES
            name = lambda end: end if isinstance(end, str) else f"{end['namespace']}/{end['name']}"
            for source in ends:
                for target in ends:
                    if source is target or isinstance(source, str) and isinstance(target, str):
                        continue
                    for protocol in PROTOCOLS:
                        for asked in PORTS:
                            try:
                                wanted = all([
                                    isinstance(source, str) or said.side("egress", source, target, protocol, asked),
                                    isinstance(target, str) or said.side("ingress", target, source, protocol, asked)])
                            except Undecided:
                                undecided += 1
                                continue
                            connection = (name(source), name(target), protocol, asked)
                            compared += 1
                            denied += not wanted
                            if wanted != (connection in theirs):
                                sys.exit(f"{connection}: the intent says {wanted}\n{json.dumps(made)}\n{json.dumps(world['policies'])}")
    print(f"{policies} SecurityPolicies in {cases} cases, {compared} connections, {denied} of them denied, "
          f"{undecided} left out: no difference")
    if not compared // 20 < denied < compared - compared // 20 or undecided > compared // 4:
        sys.exit("hardly anything is denied, or hardly anything allowed, or compared")


main()
