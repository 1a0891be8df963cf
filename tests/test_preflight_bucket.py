"""Whether preflight can use the bucket of a run, and where that lies."""

import contextlib

import bucket as buckets
import fake_gcs
import fake_metadata
import gcsfs
import preflight
import pytest
import test_preflight
from finding import NOTE
from test_preflight import TPU, found

machine = test_preflight.machine


@pytest.fixture
def cloud(monkeypatch):
    """Starts the bucket ``bucket`` and a VM's metadata server; returns the objects."""
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with contextlib.ExitStack() as stack:

        def start(zone="us-central2-b", **options):
            objects = Kept()
            host = stack.enter_context(fake_gcs.serve(objects, **options))
            monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)
            monkeypatch.setenv("GCE_METADATA_HOST", stack.enter_context(fake_metadata.serve(zone)))
            gcsfs.GCSFileSystem.clear_instance_cache()
            return objects

        yield start
    gcsfs.GCSFileSystem.clear_instance_cache()


def facts(location, kind="region", **more):
    return {"location": location, "locationType": kind, **more}


class Kept(dict):
    """Objects that remember what has been put, deleted since or not."""

    def __init__(self):
        self.put = []

    def __setitem__(self, name, content):
        self.put.append((name.rpartition("/")[0], content))
        super().__setitem__(name, content)


def test_a_bucket_is_written_read_and_left_as_it_was(cloud):
    objects = cloud(facts=facts("US-CENTRAL2"))
    assert found(buckets.bucket("gs://bucket/runs/a", False)) == ([], "")
    assert objects.put == [("runs/a", b"preflight")]
    assert objects == {}


@pytest.mark.parametrize(
    "method, attempt, left", [("POST", "written", 0), ("GET", "read", 0), ("DELETE", "deleted", 1)]
)
def test_a_refusal_names_the_attempt_and_the_account(cloud, method, attempt, left):
    objects = cloud(facts=facts("US-CENTRAL2"), refused=[method])
    codes, text = found(buckets.bucket("gs://bucket/runs/a", False))
    assert codes == ["bucket"] and len(objects) == left
    assert f"may not be {attempt} by {fake_metadata.ACCOUNT}" in text
    assert "roles/storage.objectAdmin" in text and "gs://bucket " in text


def test_a_refusal_names_the_key_where_there_is_one(cloud, monkeypatch):
    cloud(refused=["POST"])
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/none/key.json")
    text = buckets._refused("b", "gs://b/p", "written", OSError("Forbidden: x"))
    assert "the account of /none/key.json" in text


def test_no_such_bucket(cloud):
    cloud()
    codes, text = found(buckets.bucket("gs://other/runs/a", False))
    assert codes == ["bucket"] and "there is no bucket gs://other." in text


def test_any_other_error_is_told(cloud, monkeypatch):
    cloud()

    def fail(*_, **__):
        raise TimeoutError("nobody\nanswers")

    monkeypatch.setattr(gcsfs.GCSFileSystem, "pipe_file", fail)
    codes, text = found(buckets.bucket("gs://bucket/a", False))
    assert codes == ["bucket"] and "cannot be written (nobody answers)" in text


EU, PAIR = facts("EU", "multi-region"), facts("NAM4", "dual-region")
OWN_PAIR = facts("US", "dual-region", customPlacementConfig={"dataLocations": ["US-EAST5"]})
CASES = [
    (facts("US-EAST5"), "us-east5-a", []),
    (facts("US-EAST1"), "us-east5-a", ["region"]),
    (facts("EUROPE-WEST4"), "us-east5-a", ["region"]),
    (facts("US", "multi-region"), "us-east5-a", [NOTE]),
    (EU, "europe-west4-b", [NOTE]),
    (EU, "us-east5-a", ["region"]),
    (PAIR, "us-central1-a", [NOTE]),
    (PAIR, "europe-west4-a", ["region"]),
    (facts("ASIA1", "dual-region"), "asia-northeast1-b", [NOTE]),
    (OWN_PAIR, "us-east5-b", [NOTE]),
    ({}, "us-east5-a", [NOTE]),
    (facts("US-EAST5"), "", [NOTE]),
]


@pytest.mark.parametrize("where, zone, codes", CASES)
def test_region(where, zone, codes):
    zone = f"projects/1/zones/{zone}" if zone else ""
    assert found(buckets.region("b", where, zone, False))[0] == codes
    meant = found(buckets.region("b", where, zone, True))
    assert meant[0] == [NOTE] * len(codes)


@pytest.mark.parametrize("allowed, codes", [("", ["region"]), ("1", [NOTE])])
def test_region_of_a_real_question(cloud, machine, monkeypatch, allowed, codes):
    cloud(zone="europe-west4-a", facts=facts("US-EAST5"))
    monkeypatch.setenv("SFT_ANY_REGION", allowed)
    found_codes, text = found(preflight.check(["train", TPU, "--workdir=gs://bucket/a"], machine))
    assert found_codes == codes
    assert "lies in US-EAST5 (region), this TPU in europe-west4" in text


def test_an_account_that_may_not_describe_the_bucket_is_told(cloud):
    cloud(facts=None)
    codes, text = found(buckets.bucket("gs://bucket/a", False))
    assert codes == [NOTE] and "the location of gs://bucket cannot be read" in text


def test_no_metadata_server(monkeypatch):
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")
    assert buckets.metadata("instance/zone") == ""
