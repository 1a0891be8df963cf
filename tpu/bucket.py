"""Whether the bucket of a run can be used from this host, and is near it."""

import contextlib
import os
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

from finding import NOTE, Finding

# Where a multi-region or a pair of regions lies, by the beginning of its name.
CONTINENTS = {"US": "us-", "NAM": "us-", "EU": "europe-", "ASIA": "asia-"}


def bucket(workdir: str, any_region: bool) -> Iterator[Finding]:
    """Writes, reads and deletes an object in ``workdir``, then looks where the bucket lies."""
    import fsspec  # only here: it costs a second

    name = workdir.removeprefix("gs://").partition("/")[0]
    probe = f"{workdir.rstrip('/')}/.preflight-{uuid.uuid4().hex}"
    attempt = "written"
    try:
        files, path = fsspec.url_to_fs(probe, requests_timeout=30)
        files.pipe_file(path, b"preflight")
        attempt = "read"
        found = files.cat_file(path)
        attempt = "deleted"
        files.rm_file(path)
    except Exception as error:  # of many kinds: of gcsfs, aiohttp, google.auth
        if attempt == "read":
            with contextlib.suppress(Exception):
                files.rm_file(path)
        yield Finding("bucket", _refused(name, probe, attempt, error))
        return
    if found != b"preflight":
        yield Finding(
            "bucket", f"{probe} was read as {found!r}. Is {name} a bucket of Cloud Storage?"
        )
    try:
        facts = files.info(name)
    except Exception:  # it may hold objects, and still not be described to this account
        facts = {}
    yield from region(name, facts, metadata("instance/zone"), any_region)


def region(name: str, facts: dict[str, Any], zone: str, any_region: bool) -> Iterator[Finding]:
    """Traffic between regions is slow, and paid for by the gigabyte.

    Args:
      facts: what Cloud Storage says of the bucket.
      zone: as in ``projects/1/zones/us-central2-b``, or ``""``.
      any_region: whether a bucket elsewhere is meant.
    """
    where = str(facts.get("location", "")).upper()
    here = zone.rpartition("/")[2].rpartition("-")[0]
    if not where or not here:
        missing = "the zone of this machine" if where else f"the location of gs://{name}"
        yield Finding(NOTE, f"{missing} cannot be read, so bucket and TPU may lie far apart.")
        return
    kind = facts.get("locationType", "region")
    parts = [
        part.lower() for part in facts.get("customPlacementConfig", {}).get("dataLocations", [])
    ]
    if here == where.lower():
        return
    near = here in parts or (
        kind != "region"
        and any(where.startswith(k) and here.startswith(v) for k, v in CONTINENTS.items())
    )
    lies = f"gs://{name} lies in {where} ({kind}), this TPU in {here}"
    if near:
        yield Finding(NOTE, f"{lies}: that works; a bucket in {here} alone is faster and cheaper.")
    elif any_region:
        yield Finding(NOTE, f"{lies}: every gigabyte between them is paid for.")
    else:
        yield Finding(
            "region",
            f"{lies}: every gigabyte between them is paid for. Use a bucket in {here} (gcloud "
            f"storage buckets create gs://NAME --location={here}), or set SFT_ANY_REGION=1.",
        )


def metadata(path: str) -> str:
    """What the metadata server of Google Cloud says; ``""`` where there is none."""
    host = os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
    request = urllib.request.Request(
        f"http://{host}/computeMetadata/v1/{path}", headers={"Metadata-Flavor": "Google"}
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(request, timeout=10) as answer:
            return answer.read().decode().strip()
    except OSError:
        return ""


def _refused(name: str, probe: str, attempt: str, error: Exception) -> str:
    reason = " ".join(f"{error}".split())[:300] or type(error).__name__
    if isinstance(error, FileNotFoundError) and attempt == "written":
        return (
            f"there is no bucket gs://{name}. Correct --workdir, or create it: gcloud storage "
            f"buckets create gs://{name} --location=REGION"
        )
    code = getattr(error, "code", None)
    if str(code) in ("401", "403") or "forbidden" in reason.lower():
        key = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        account = metadata("instance/service-accounts/default/email")
        who = f"the account of {key}" if key else account or "this machine, which has no account"
        return (
            f"{probe} may not be {attempt} by {who} ({reason}). Allow it: gcloud storage buckets "
            f"add-iam-policy-binding gs://{name} --role=roles/storage.objectAdmin "
            f"--member=serviceAccount:{account or 'ACCOUNT'}; and the VM needs the scope "
            "cloud-platform."
        )
    return f"{probe} cannot be {attempt} ({reason}). Is Cloud Storage reachable from this machine?"
