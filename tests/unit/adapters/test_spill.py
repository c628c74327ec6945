"""Spill files survive their process, say what is damaged, and stay within their bound."""

from __future__ import annotations

import logging
import os
import resource
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from zlib import crc32

import pytest

from gateway.adapters import spill_file
from gateway.adapters.embedded.errors import EmbeddedError
from gateway.adapters.spill import SpillFiles
from gateway.core.quota.settle import Settlement
from tests.fakes.metrics import SeenMetrics

EVENT = b'{"event_id":"r","payer":"ada \\"\xc3\xa9\\"\\n"}'


def settlement(rid: str, tokens: int = 50) -> Settlement:
    return Settlement(rid, "ada", "settle", 1, 0, tokens, 7, EVENT, "free", None, None, 100, (80,))


@contextmanager
def spill_in(
    place: Path, owner: str = "proxy-1", bytes_max: int = 10_000_000
) -> Iterator[tuple[SpillFiles, SeenMetrics]]:
    metrics = SeenMetrics()
    spill = SpillFiles(place, owner, metrics, bytes_max)
    yield spill, metrics
    spill.close()


def files(place: Path) -> list[Path]:
    return sorted(place.iterdir())


def left(place: Path) -> list[Settlement]:
    """What a next process finds; it is killed before it has sent any."""
    with spill_in(place, "next") as (spill, _):
        return list(spill.left())


def written(place: Path, *settlements: Settlement) -> Path:
    """The file of a process that kept these and was killed."""
    with spill_in(place) as (spill, _):
        for each in settlements:
            spill.keep(each)
    (path,) = files(place)
    return path


# --- what is kept ------------------------------------------------------------------------------


def test_what_was_kept_is_found_by_the_next_process_unchanged(tmp_path: Path) -> None:
    kept = [settlement("a", 1), settlement("b", 2)]
    written(tmp_path, *kept)
    assert left(tmp_path) == kept


def test_it_survives_sigkill(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        SpillFiles(tmp_path, "proxy-1", SeenMetrics()).keep(settlement("a"))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert left(tmp_path) == [settlement("a")]


def test_nothing_is_written_while_there_is_nothing_to_keep(tmp_path: Path) -> None:
    with spill_in(tmp_path / "spill") as (spill, metrics):
        spill.done("a")
        assert list(spill.left()) == []
        assert files(tmp_path / "spill") == []
    assert metrics.seen == []


def test_what_is_done_is_not_left_and_the_last_one_takes_the_file_along(tmp_path: Path) -> None:
    with spill_in(tmp_path) as (spill, metrics):
        for rid in "abc":
            spill.keep(settlement(rid))
        spill.done("b")
        spill.done("b")
        spill.done("never kept")
    assert left(tmp_path) == [settlement("a"), settlement("c")]
    with spill_in(tmp_path) as (spill, metrics):
        assert [each.rid for each in spill.left()] == ["a", "c"]
        assert metrics.of("spilled")[-1] == files(tmp_path)[0].stat().st_size
        spill.done("c")
        assert len(files(tmp_path)) == 1
        spill.done("a")
        assert files(tmp_path) == []
        assert metrics.of("spilled")[-1] == 0
        spill.keep(settlement("d"))
    assert left(tmp_path) == [settlement("d")]


def test_of_one_rid_the_last_that_was_kept_counts(tmp_path: Path) -> None:
    written(tmp_path, settlement("a", 1), settlement("b"), settlement("a", 2))
    assert left(tmp_path) == [settlement("b"), settlement("a", 2)]


def test_only_its_user_may_read_it(tmp_path: Path) -> None:
    with spill_in(tmp_path / "spill") as (spill, _):
        spill.keep(settlement("a"))
    (path,) = files(tmp_path / "spill")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.name.startswith("proxy-1-")


def test_a_directory_of_somebody_else_s_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(EmbeddedError, match="nobody else may write"):
        SpillFiles(tmp_path, "proxy-1", SeenMetrics())


# --- owners ------------------------------------------------------------------------------------


def test_the_file_of_a_process_that_lives_is_left_to_it(tmp_path: Path) -> None:
    with spill_in(tmp_path) as (mine, _), spill_in(tmp_path, "proxy-2") as (other, _):
        mine.keep(settlement("a"))
        assert list(other.left()) == []
        assert list(mine.left()) == []  # it knows its own
        mine.done("a")
    assert files(tmp_path) == []


def test_what_one_has_taken_over_no_other_takes(tmp_path: Path) -> None:
    written(tmp_path, settlement("a"), settlement("b"))
    with spill_in(tmp_path, "first") as (first, _), spill_in(tmp_path, "second") as (second, _):
        assert len(list(first.left())) == 2
        assert list(second.left()) == []
        first.done("a")
    assert left(tmp_path) == [settlement("b")]


def test_what_is_done_before_its_turn_comes_is_left_out(tmp_path: Path) -> None:
    written(tmp_path, settlement("a"), settlement("b"))
    with spill_in(tmp_path) as (spill, _):
        found = spill.left()
        assert next(found).rid == "a"
        spill.done("b")
        assert list(found) == []


def test_what_was_taken_over_and_kept_anew_is_done_in_both_files(tmp_path: Path) -> None:
    written(tmp_path, settlement("a"))
    with spill_in(tmp_path) as (spill, _):
        assert len(list(spill.left())) == 1
        spill.keep(settlement("a", 2))
        spill.done("a")
        assert files(tmp_path) == []


def test_an_owner_whose_new_file_was_taken_for_a_dead_one_s_makes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_ours: Callable[[int], bool] = spill_file._is_ours
    with spill_in(tmp_path) as (spill, _), spill_in(tmp_path, "other") as (other, _):

        def late(descriptor: int) -> bool:
            monkeypatch.setattr(spill_file, "_is_ours", is_ours)
            assert list(other.left()) == []  # it finds an empty file, and removes it
            return is_ours(descriptor)

        monkeypatch.setattr(spill_file, "_is_ours", late)
        spill.keep(settlement("a"))
    assert left(tmp_path) == [settlement("a")]


# --- damage ------------------------------------------------------------------------------------


def test_a_record_torn_at_any_byte_is_left_out_and_said_and_the_file_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, settlement("a"), settlement("b"))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first + 1, len(whole)):
        path.write_bytes(whole[:cut])
        caplog.clear()
        with spill_in(tmp_path) as (spill, metrics):
            assert list(spill.left()) == [settlement("a")], cut
            assert "cut off" in caplog.text
            assert metrics.of("spill_failed") == []
            spill.done("a")
        assert files(tmp_path) == []


def test_a_line_after_a_torn_one_that_was_taken_over_is_whole(tmp_path: Path) -> None:
    path = written(tmp_path, settlement("a"), settlement("b"), settlement("c"))
    path.write_bytes(path.read_bytes()[:-5])
    with spill_in(tmp_path) as (spill, _):
        assert len(list(spill.left())) == 2
        spill.done("a")
    assert left(tmp_path) == [settlement("b")]


def test_damage_at_any_byte_of_the_middle_is_reported_and_the_file_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, settlement("a"), settlement("b"), settlement("c"))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    last = whole.rindex(b"\n", 0, -1)
    for place in range(first, last):  # all of b but its newline
        spoilt = bytearray(whole)
        spoilt[place] ^= 1
        path.write_bytes(spoilt)
        caplog.clear()
        with spill_in(tmp_path) as (spill, metrics):
            assert {each.rid for each in spill.left()} == {"a", "c"}, place
            assert f"the line at byte {first} is damaged" in caplog.text
            assert metrics.of("spill_failed")[0] == "damaged"
            spill.done("a")
            spill.done("c")
        (aside,) = files(tmp_path)
        assert aside.suffix == ".damaged"
        assert aside.read_bytes().startswith(bytes(spoilt))
        assert left(tmp_path) == []
        aside.unlink()


def test_a_line_of_another_release_that_cannot_be_read_is_damage_too(tmp_path: Path) -> None:
    path = written(tmp_path, settlement("a"))
    with path.open("ab") as file:
        file.write(spill_file._line("b").replace(b'"b"', b'{"b":1}'))
        text = b'[{"rid":"c"},{}]'
        file.write(b"%08x %b\n" % (crc32(text), text))
    with spill_in(tmp_path) as (spill, metrics):
        assert list(spill.left()) == [settlement("a")]
    assert metrics.of("spill_failed") == ["damaged", "damaged"]


def test_a_file_that_cannot_be_read_stops_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.spill").symlink_to("/dev/null")
    written(tmp_path / "spill", settlement("a"))
    (tmp_path / "spill" / "a.spill").symlink_to("/dev/null")
    assert left(tmp_path / "spill") == [settlement("a")]
    assert "cannot be read" in caplog.text


# --- bounds ------------------------------------------------------------------------------------


def test_beyond_its_bound_nothing_is_written_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with spill_in(tmp_path, bytes_max=1000) as (spill, metrics):
        for place in range(20):
            spill.keep(settlement(f"rid-{place}"))
        kept = files(tmp_path)[0].read_bytes().count(b"\n")
        assert 2 <= kept < 10
        assert metrics.of("spill_failed") == ["full"] * (20 - kept)
        assert caplog.text.count("cannot be written") == 1
        for place in range(20):  # also of those that are not on disk
            spill.done(f"rid-{place}")
        assert files(tmp_path) == []
        spill.keep(settlement("again"))
        assert "are written to" in caplog.text
    assert left(tmp_path) == [settlement("again")]


def test_a_full_disk_is_said_and_leaves_nothing_half_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with spill_in(tmp_path) as (spill, metrics):
        spill.keep(settlement("a"))
        size_bytes = files(tmp_path)[0].stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes + 20, hard))
        try:
            spill.keep(settlement("b"))
            spill.keep(settlement("c"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert metrics.of("spill_failed") == ["disk", "disk"]
        assert caplog.text.count("cannot be written") == 1
        assert files(tmp_path)[0].stat().st_size == size_bytes
        spill.keep(settlement("d"))
        spill.done("b")
    assert left(tmp_path) == [settlement("a"), settlement("d")]


def test_a_disk_that_takes_no_first_line_leaves_no_file(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with spill_in(tmp_path) as (spill, metrics):
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
        try:
            spill.keep(settlement("a"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert metrics.of("spill_failed") == ["disk"]
        assert files(tmp_path) == []


def test_a_directory_that_is_gone_is_said(tmp_path: Path) -> None:
    with spill_in(tmp_path / "spill") as (spill, metrics):
        (tmp_path / "spill").rmdir()
        spill.keep(settlement("a"))
        assert metrics.of("spill_failed") == ["disk"]


def test_what_no_longer_counts_does_not_make_the_file_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill_file, "_WASTE_BYTES_MIN", 2000)
    with spill_in(tmp_path, bytes_max=4000) as (spill, metrics):
        for round_ in range(200):  # the progress of two streams, noted again and again
            spill.keep(settlement("a", round_))
            spill.keep(settlement("b", round_))
        for round_ in range(200):  # and others that come and go
            spill.keep(settlement(f"rid-{round_}"))
            spill.done(f"rid-{round_}")
        assert metrics.of("spill_failed") == []
        (path,) = files(tmp_path)
        assert max(metrics.of("spilled")) < 2600
        assert metrics.of("spilled")[-1] == path.stat().st_size
    assert left(tmp_path) == [settlement("a", 199), settlement("b", 199)]


def test_a_full_disk_hinders_no_compaction_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spill_file, "_WASTE_BYTES_MIN", 1000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with spill_in(tmp_path) as (spill, metrics):
        for place in range(20):
            spill.keep(settlement(f"rid-{place}"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
        try:
            for place in range(15):
                spill.done(f"rid-{place}")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert metrics.of("spill_failed") == []
        assert len(files(tmp_path)) == 1
        spill.done("rid-15")
    assert [each.rid for each in left(tmp_path)] == [f"rid-{place}" for place in range(16, 20)]
