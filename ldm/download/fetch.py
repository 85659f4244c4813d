"""Fetch a file from the Hub: from where an interrupted download ended, and named when checked.

The Hub's client (huggingface_hub) makes the requests, so its settings apply: HF_ENDPOINT (a
mirror), HF_HUB_OFFLINE, HF_TOKEN and `hf auth login`, HF_HOME (its cache), HTTPS_PROXY.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from common.files import atomic_write, check_free_space, file_lock, is_web_page, sha256
from common.records import make_writable
from ldm.download.catalogue import RemoteFile, Source

log = logging.getLogger(__name__)


class SourceError(Exception):
    """A source does not give the file; another one may."""


def fetch(remote: RemoteFile, folder: Path, spare: int = 0) -> Path:
    """Download a file, unless it is there; the sources are tried in their order.

    What an interrupted download has fetched stays beside the file as `.<name>.part`; the next one
    continues it. A copy in the Hub client's cache is taken without a request.

    Args:
        remote: the file.
        folder: for it; created.
        spare: bytes of free disk space that are needed besides.

    Returns:
        its path. It has the expected size and SHA-256.

    Raises:
        ValueError: another file has its name.
        OSError: no source gives the file, or it cannot be written.
    """
    target = folder / remote.name
    make_writable(folder, folder)
    with _locked(target):
        if target.exists():
            _check_existing(target, remote)
        elif not _take_from_cache(remote, target):
            part = folder / f".{remote.name}.part"
            _download(remote, part, spare)
            part.replace(target)
            log.info("wrote %s: %d bytes, SHA-256 as expected", target, target.stat().st_size)
    return target


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(target, wait=False))
        except OSError:
            log.info("%s: another process is downloading it; waiting for its end", target)
            stack.enter_context(file_lock(target))
        yield


def _check_existing(target: Path, remote: RemoteFile) -> None:
    size = target.stat().st_size
    found = f"{size} bytes, expected {remote.size}"
    if remote.size in (size, None):
        log.info("%s exists already, its SHA-256 is being checked", target)
        digest = sha256(target)
        if digest == remote.sha256:
            return
        found = f"SHA-256 {digest}, expected {remote.sha256}"
    raise ValueError(f"{target}: is not the published file ({found}); remove it and try again")


def _take_from_cache(remote: RemoteFile, target: Path) -> bool:
    """Link or copy the file from the cache of the Hub's client, if it is there."""
    from huggingface_hub import try_to_load_from_cache

    for source in remote.sources:
        found = try_to_load_from_cache(
            source.repo, source.path, revision=source.revision, repo_type=source.kind
        )
        if isinstance(found, str) and sha256(Path(found)) == remote.sha256:
            try:
                target.hardlink_to(Path(found).resolve())
            except OSError:  # on another disk
                with atomic_write(target) as temporary:
                    shutil.copyfile(found, temporary)
            log.info("%s: taken from the Hub client's cache, %s", target, found)
            return True
    return False


def _download(remote: RemoteFile, part: Path, spare: int) -> None:
    """Fetch the file from the first source that gives it."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise OSError(
            f"{remote.name}: is neither in {part.parent} nor in the Hub client's cache, and "
            f"HF_HUB_OFFLINE forbids to download it"
        )
    failures = []
    for source in remote.sources:
        log.info("%s from %s", remote.name, source)
        try:
            _fetch_from(source, remote, part, spare)
            return
        except SourceError as error:
            log.warning("%s: %s", source, error)
            failures.append(f"{source}: {error}")
    so_far = part.stat().st_size if part.exists() else 0
    kept = f"; the {so_far} bytes that came are kept, try again to continue" if so_far else ""
    raise OSError(
        f"{remote.name}: no source gives it: {'; '.join(failures)}{kept}; HF_ENDPOINT names a "
        f"mirror of the Hub, HTTPS_PROXY a proxy"
    )


def _fetch_from(source: Source, remote: RemoteFile, part: Path, spare: int) -> None:
    """Complete the partial file from one source, and check it.

    Raises:
        SourceError: the source does not give the file.
        OSError: the disk is full, or cannot be written to.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import get_hf_file_metadata, http_get
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(
        source.repo,
        source.path,
        repo_type=source.kind,
        revision=source.revision,
        endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None,
    )
    with _source_errors(part):
        offer = get_hf_file_metadata(url)
    size = remote.size or offer.size
    if offer.commit_hash is None or size is None:
        raise SourceError("is no Hub: a proxy's or login page answers, or HF_ENDPOINT is wrong")
    if offer.size not in (size, None):
        raise SourceError(f"has a file of {offer.size} bytes, expected {size}")
    if len(offer.etag or "") == len(remote.sha256) and offer.etag != remote.sha256:
        raise SourceError(f"has a file of SHA-256 {offer.etag}, expected {remote.sha256}")

    start = part.stat().st_size if part.exists() else 0
    if start > size:
        part.unlink()
        start = 0
    check_free_space(part.parent, size - start + spare)
    if start:
        log.info("continuing after %d of %d bytes", start, size)
    with _source_errors(part), part.open("ab") as file:
        http_get(
            url,
            file,
            resume_size=start,
            headers=build_hf_headers(),
            expected_size=size,
            displayed_filename=remote.name,
        )
    digest = sha256(part)
    if digest != remote.sha256:
        part.unlink()
        if start:  # what an earlier run or another source left may be at fault
            log.warning("%s: SHA-256 is %s; once more from the beginning", source, digest)
            return _fetch_from(source, remote, part, spare)
        raise SourceError(f"gives a file of SHA-256 {digest}, expected {remote.sha256}")
    return None


@contextmanager
def _source_errors(part: Path) -> Iterator[None]:
    """Tell what the source is to blame for from what the disk is."""
    from huggingface_hub.errors import HTTPError

    try:
        yield
    except OSError as error:
        if not isinstance(error, HTTPError | ConnectionError) and error.errno is not None:
            reason = error.strerror or error
            raise OSError(f"{part}: cannot be written ({reason}); what came is kept") from error
        raise SourceError(_reason(error, part)) from error
    except HTTPError as error:
        raise SourceError(_reason(error, part)) from error


def _reason(error: Exception, part: Path) -> str:
    """Say in one line why a source failed; drop a partial file that is a web page."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return (
            f"refuses access ({status}): there is no such repository, or it wants a token "
            f"(HF_TOKEN, or `hf auth login`)"
        )
    if status == 404:
        return "has no such file (404)"
    if part.exists():
        with part.open("rb") as file:
            head = file.read(64)
        if is_web_page(head):
            part.unlink()
            return "gives a web page in place of the file (a proxy's, or to log in?)"
    return " ".join(str(error).split())[:200] or type(error).__name__
