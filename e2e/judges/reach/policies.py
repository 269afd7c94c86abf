"""Judges `rampart reach` by network-config-analyzer, on random NetworkPolicies of all shapes.

    policies.py RAMPART [CASES]

Every pair of pods is asked on every port that is declared or named anywhere. What is left out of the policies is
what the analyser is known to read otherwise than Kubernetes: rules of a direction that policyTypes leaves out, policies
without policyTypes, Exists and DoesNotExist in the podSelector of a peer (it looks at the policy's namespace alone),
and empty values of labels of namespaces. It reads an ipBlock as outside of the cluster only.
"""

import json
import os
import random
import subprocess
import sys
import tempfile

from analyser import PROTOCOLS, analysed

PORTS = [79, 80, 81, 90, 8080, 65535]
NAMESPACES = ["x", "y", "z"]


def labels(rng):
    return {key: rng.choice(["one", "two"]) for key in "ab" if rng.random() < 0.7}


def selector(rng, presence=True):
    made = {}
    if rng.random() < 0.5:
        made["matchLabels"] = labels(rng)
    if rng.random() < 0.5:
        operator = rng.choice(["In", "NotIn"] + (["Exists", "DoesNotExist"] if presence else []))
        expression = {"key": rng.choice("abc"), "operator": operator}
        if operator.endswith("In"):
            expression["values"] = rng.sample(["one", "two", "three"], rng.randint(1, 2))
        made["matchExpressions"] = [expression]
    return made


def peer(rng):
    shape = rng.randrange(5)
    if shape == 0:
        cidr, excepts = rng.choice(
            [("0.0.0.0/0", ["10.0.0.0/8"]), ("10.0.0.0/8", ["10.1.0.0/16"]), ("192.168.0.0/16", [])])
        return {"ipBlock": {"cidr": cidr, "except": excepts} if excepts else {"cidr": cidr}}
    made = {}
    if shape != 1:
        made["podSelector"] = selector(rng, presence=False)
    if shape != 2:
        made["namespaceSelector"] = selector(rng)
    return made


def port(rng):
    made = {}
    if rng.random() < 0.6:
        made["protocol"] = rng.choice(list(PROTOCOLS))
    shape = rng.randrange(4)
    if shape == 1:
        made |= {"port": rng.choice(["http", "dns"])}
    elif shape == 2:
        made |= {"port": rng.choice(PORTS)}
    elif shape == 3:
        made |= {"port": 80, "endPort": rng.choice([80, 85, 8080])}
    return made


def rules(rng, peers):
    made = []
    for _ in range(rng.randrange(3)):
        rule = {}
        if rng.random() < 0.8:
            rule[peers] = [peer(rng) for _ in range(rng.randint(1, 3))]
        if rng.random() < 0.7:
            rule["ports"] = [port(rng) for _ in range(rng.randint(1, 3))]
        made.append(rule)
    return made


def policy(rng, number):
    types = rng.choice([["Ingress"], ["Egress"], ["Ingress", "Egress"]])
    spec = {"podSelector": selector(rng), "policyTypes": types}
    if "Ingress" in types:
        spec["ingress"] = rules(rng, "from")
    if "Egress" in types:
        spec["egress"] = rules(rng, "to")
    metadata = {"name": f"p{number}", "namespace": rng.choice(NAMESPACES)}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def case(rng):
    namespaces = {name: {"labels": labels(rng)} for name in NAMESPACES}
    pods = []
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
    return {"namespaces": namespaces, "pods": pods, "policies": [policy(rng, n) for n in range(rng.randint(1, 5))]}


def main():
    rampart = sys.argv[1]
    cases = int(sys.argv[2]) if len(sys.argv) > 2 else 3000
    seed = int(os.environ.get("RAMPART_SEED") or random.randrange(2**63))
    print(f"RAMPART_SEED={seed}")
    rng = random.Random(seed)
    made = [case(rng) for _ in range(cases)]
    lines = "\n".join(json.dumps(it) for it in made)
    ours = [{} for _ in made]
    for protocol in PROTOCOLS:
        for asked in PORTS:
            flags = ["reach", "--input", "jsonl", "--ip-block", "external", "--port", f"{asked}/{protocol}"]
            answers = subprocess.run([rampart, *flags], input=lines, capture_output=True, text=True, check=True).stdout
            for known, answer in zip(ours, answers.splitlines(), strict=True):
                for cell in json.loads(answer)["cells"]:
                    known[(cell["from"], cell["to"], protocol, asked)] = cell["allowed"]
    compared = denied = 0
    with tempfile.TemporaryDirectory() as directory:
        for it, known in zip(made, ours):
            theirs = analysed(it, directory, PORTS)
            for connection, allowed in known.items():
                if connection[0] == connection[1]:
                    continue
                compared += 1
                denied += not allowed
                if allowed != (connection in theirs):
                    sys.exit(f"{connection}: rampart says {allowed}\n{json.dumps(it)}")
    print(f"{cases} cases, {compared} connections, {denied} of them denied: no difference")
    if not compared // 20 < denied < compared - compared // 20:
        sys.exit("hardly anything is denied, or hardly anything allowed")


main()
