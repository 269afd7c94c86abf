"""Keys and KeyRecords, made by their documented form alone."""

import hashlib
import json
import zlib

BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def base62(number, digits):
    text = ""
    for _ in range(digits):
        number, rest = divmod(number, 62)
        text = BASE62[rest] + text
    return text


def key(id, number=7):
    """`<prefix>_<id>_<43 of base62><CRC-32 of all before it, 6 of base62>`."""
    text = f"acme_live_{id}_{base62(int.from_bytes(hashlib.sha256(bytes([number])).digest(), 'big'), 43)}"
    return text + base62(zlib.crc32(text.encode()), 6)


def record(id, **change):
    spec = {
        "apiKey": {"namespace": "shop", "name": "orders", "version": 1},
        "digest": "sha256:" + hashlib.sha256(key(id).encode()).hexdigest(),
        "owner": {"customerId": "shop"},
        "role": "Editor",
        "verbs": ["Read", "Write"],
        "permissions": ["orders.read"],
        "audiences": ["orders-api"],
        "state": "Active",
        "limits": {"perSecond": 1000, "burst": 10000, "perMinute": 10000, "perHour": 100000, "perDay": 100000},
        "expiresAt": "2126-01-01T00:00:00Z",
    }
    spec.update(change)
    object = {"apiVersion": "rampart.dev/v1alpha1", "kind": "KeyRecord", "metadata": {"name": id}, "spec": spec}
    return json.dumps({**object, "spec": {name: value for name, value in spec.items() if value is not None}})


RECORDS = [
    record("good0000"),
    record("expired0", expiresAt="2026-01-01T00:00:00Z"),
    record("revoked0", state="Revoked", digest=None, role=None, verbs=None, permissions=None, limits=None),
    record("suspend0", state="Suspended"),
    record("replaced", state="Deprecated", replacedBy="good0000", destroyAt="2126-01-01T00:00:00Z"),
    record("foreign0", audiences=["payments-api"]),
    record("limited0", limits={"perSecond": 2, "burst": 2, "perMinute": 2, "perHour": 2, "perDay": 2}),
    record("limited1", limits={"perSecond": 2, "burst": 2, "perMinute": 2, "perHour": 2, "perDay": 2}),
    record("limited2", limits={"perSecond": 2, "burst": 2, "perMinute": 2, "perHour": 2, "perDay": 2}),
    record("exports0", permissions=["orders.*"]),
]
