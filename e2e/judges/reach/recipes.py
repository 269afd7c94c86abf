"""Judges `rampart render` by the recipes of ahmetb/kubernetes-network-policy-recipes: said as intent, each becomes a
set that network-config-analyzer finds equivalent to the NetworkPolicies that the recipe describes.

    recipes.py RAMPART
"""

import json
import os
import subprocess
import sys
import tempfile

import yaml
from analyser import PROTOCOLS, analysed, manifests

PORTS = [53, 80, 5000, 8000]
ADDRESSES = ["8.8.8.8"]
NAMESPACES = {
    "default": {"labels": {}}, "secondary": {"labels": {"purpose": "production"}},
    "other": {"labels": {"team": "operations"}},
}
APPS = [
    {"app": "web"}, {"app": "foo"}, {"app": "apiserver"}, {"app": "bookstore"}, {"role": "monitoring"},
    {"type": "monitoring"}, {"app": "bookstore", "role": "db"}, {"app": "bookstore", "role": "search"},
    {"app": "bookstore", "role": "api"}, {"app": "inventory", "role": "web"},
]


def app(**labels):
    return {"matchLabels": labels}


def pods(selector, **where):
    return {"pods": {"selector": selector, **where}}


def intent(pods, namespace="default", ingress=None, egress=None):
    network = {"mode": "Enforce", "podSelector": pods, "isolate": [], "allowNoDns": True}
    for direction, rules in (("Ingress", ingress), ("Egress", egress)):
        if rules is not None:
            network["isolate"].append(direction)
            network[direction.lower()] = [{"name": f"r{number}", **rule} for number, rule in enumerate(rules)]
    return namespace, network


def policy(pods, namespace="default", **spec):
    types = [direction.capitalize() for direction in ("ingress", "egress") if direction in spec]
    return namespace, {"podSelector": pods, "policyTypes": types, **spec}


def every(*peers):
    return {"peers": list(peers), "anyPort": True}


ANY, ALL = {"any": True}, pods({}, namespaceSelector={})
WEB, FOO, PRODUCTION = app(app="web"), app(app="foo"), app(purpose="production")
DNS = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
REDIS = [app(app="bookstore", role="search"), app(app="bookstore", role="api"), app(app="inventory", role="web")]

# By recipe: what is meant, and what its text describes.
RECIPES = {
    "01 deny all traffic to an application": ([intent(WEB, ingress=[])], [policy(WEB, ingress=[])]),
    "02 limit traffic to an application": (
        [intent(app(app="bookstore", role="api"), ingress=[every(pods(app(app="bookstore")))])],
        [policy(app(app="bookstore", role="api"), ingress=[{"from": [{"podSelector": app(app="bookstore")}]}])]),
    "02a allow all traffic to an application": (
        [intent(WEB, ingress=[]), intent(WEB, ingress=[every(ANY)])],
        [policy(WEB, ingress=[]), policy(WEB, ingress=[{}])]),
    "03 deny all that is not listed in a namespace": ([intent({}, ingress=[])], [policy({}, ingress=[])]),
    "04 deny traffic from other namespaces": (
        [intent({}, "secondary", ingress=[every({"entity": "SameNamespace"})])],
        [policy({}, "secondary", ingress=[{"from": [{"podSelector": {}}]}])]),
    "05 allow traffic from all namespaces": (
        [intent(WEB, "secondary", ingress=[every(ALL)])],
        [policy(WEB, "secondary", ingress=[{"from": [{"namespaceSelector": {}}]}])]),
    "06 allow traffic from a namespace": (
        [intent(WEB, ingress=[every(pods({}, namespaceSelector=PRODUCTION))])],
        [policy(WEB, ingress=[{"from": [{"namespaceSelector": PRODUCTION}]}])]),
    "07 allow traffic from some pods in another namespace": (
        [intent(WEB, ingress=[every(pods(app(type="monitoring"), namespaceSelector=app(team="operations")))])],
        [policy(WEB, ingress=[{"from": [
            {"namespaceSelector": app(team="operations"), "podSelector": app(type="monitoring")}]}])]),
    "08 allow external traffic": (
        [intent({}, ingress=[]), intent(WEB, ingress=[every(ANY)])], [policy({}, ingress=[]), policy(WEB, ingress=[{}])]),
    "09 allow traffic only to a port": (
        [intent(app(app="apiserver"), ingress=[
            {"peers": [pods(app(role="monitoring"))], "ports": [{"port": 5000}]}])],
        [policy(app(app="apiserver"), ingress=[
            {"ports": [{"port": 5000}], "from": [{"podSelector": app(role="monitoring")}]}])]),
    "10 allow traffic from several applications": (
        [intent(app(app="bookstore", role="db"), ingress=[every(*map(pods, REDIS))])],
        [policy(app(app="bookstore", role="db"), ingress=[{"from": [{"podSelector": it} for it in REDIS]}])]),
    "11 deny egress from an application, but for DNS": (
        [intent(FOO, egress=[{"peers": [ANY], "ports": DNS}])], [policy(FOO, egress=[{"ports": DNS}])]),
    "12 deny all egress that is not listed from a namespace": ([intent({}, egress=[])], [policy({}, egress=[])]),
    "14 deny external egress": (
        [intent(FOO, egress=[{"peers": [ANY], "ports": DNS}, every(ALL)])],
        [policy(FOO, egress=[{"ports": DNS}, {"to": [{"namespaceSelector": {}}]}])]),
}


def world():
    made = [
        {"namespace": namespace, "name": f"{namespace}-{number}", "labels": labels, "ip": f"10.{place}.0.{number + 1}",
         "ports": []}
        for place, namespace in enumerate(NAMESPACES) for number, labels in enumerate(APPS)]
    return {"namespaces": NAMESPACES, "pods": made, "policies": []}


def rendered(rampart, intents, directory):
    items = [*manifests(world())] + [
        {"apiVersion": "rampart.dev/v1alpha1", "kind": "SecurityPolicy",
         "metadata": {"name": f"p{number}", "namespace": namespace}, "spec": {"network": network}}
        for number, (namespace, network) in enumerate(intents)]
    path = os.path.join(directory, "recipe.json")
    with open(path, "w") as file:
        json.dump({"apiVersion": "v1", "kind": "List", "items": items}, file)
    done = subprocess.run([rampart, "render", path], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"render exits {done.returncode}: {done.stderr}")
    return [it for it in yaml.safe_load_all(done.stdout) if it]


def main():
    rampart = sys.argv[1]
    with tempfile.TemporaryDirectory() as directory:
        ask = lambda policies: analysed(world() | {"policies": policies}, directory, PORTS, ADDRESSES)
        everything = ask([])
        for name, (intents, described) in RECIPES.items():
            described = [
                {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                 "metadata": {"name": f"d{number}", "namespace": namespace}, "spec": spec}
                for number, (namespace, spec) in enumerate(described)]
            wanted, found = ask(described), ask(rendered(rampart, intents, directory))
            if wanted != found:
                sys.exit(f"{name}: {sorted(map(str, wanted ^ found))[:5]} differ")
            is_void = name.startswith("02a")
            if not wanted or (wanted == everything) != is_void:
                sys.exit(f"{name}: says nothing")
    print(f"{len(RECIPES)} recipes, each equal to what it describes, of {len(everything)} connections")


main()
