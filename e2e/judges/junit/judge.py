"""Validates the JUnit XML of `rampart check` against junit-10.xsd, the schema of Jenkins' xUnit plugin.

Usage: judge.py RAMPART SCHEMA
"""

import subprocess
import sys
import xml.etree.ElementTree as ET

import xmlschema

GOOD = """
apiVersion: v1
kind: Pod
metadata: {name: good, namespace: shop}
spec:
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: main
    image: registry.example.com/app:1
    securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
"""
# Whatever a manifest says must come out as text: markup, quotes, control characters, other scripts.
BAD = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: "a<b>&\\"']]>\\u0007\\u00e9\\u4e16", namespace: shop}
spec:
  template:
    spec:
      hostNetwork: true
      containers: [{name: "<!--&amp;\\u0001", image: a, securityContext: {privileged: true}}]
"""
UNREADABLE = "kind: [\n"
CASES = {
    # Input, and test cases and failures or errors that must be told.
    "good": (GOOD, 1, 0),
    "bad": (BAD, 1, 1),
    "both": (GOOD + "---" + BAD, 2, 1),
    "unreadable": (GOOD + "---\n" + UNREADABLE, 2, 1),
    "nothing": ("", 0, 0),
}


def main(rampart, schema):
    schema = xmlschema.XMLSchema(schema)
    for name, (manifests, cases, wrong) in CASES.items():
        command = [rampart, "check", "-", "--output=junit"]
        answer = subprocess.run(command, input=manifests.encode(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        schema.validate(answer.stdout.decode())
        root = ET.fromstring(answer.stdout)
        found = len(root.findall(".//testcase"))
        told = sum(1 for case in root.iter("testcase") if case.find("failure") is not None or case.find("error") is not None)
        assert (found, told) == (cases, wrong), f"{name}: {found} test cases, {told} wrong:\n{answer.stdout.decode()}"
    # The judge can refuse: an attribute that the schema doesn't know.
    broken = answer.stdout.decode().replace("<testsuites ", "<testsuites surely-not=\"1\" ")
    assert not schema.is_valid(broken), "the schema takes anything"
    print(f"junit: {len(CASES)} answers are as junit-10.xsd asks")


main(*sys.argv[1:])
