"""Messages by HTTP: what each answer means, within bounds, and no address in an error."""

from __future__ import annotations

import pytest

from gateway.adapters import hooks
from gateway.adapters.hooks import HttpHook
from gateway.ports.carrying import CarrierAway, NotNow, Undeliverable
from tests.contract.hook_receiver import receiving


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (200, None),
        (204, None),
        (301, Undeliverable),
        (307, Undeliverable),
        (400, Undeliverable),
        (401, Undeliverable),
        (404, Undeliverable),
        (410, Undeliverable),
        (408, NotNow),
        (500, NotNow),
        (429, CarrierAway),
        (502, CarrierAway),
        (503, CarrierAway),
    ],
)
async def test_what_follows_from_each_answer(status: int, error: type[Exception] | None) -> None:
    async with receiving() as receiver:
        receiver.answers = [status]
        hook = HttpHook(receiver.url)
        if error is None:
            await hook.post({"x-test": "1"}, b"{}")
        else:
            with pytest.raises(error, match=f"^127.0.0.1#[0-9a-f]{{8}} answered {status}"):
                await hook.post({"x-test": "1"}, b"{}")
        await hook.rest()
        ((headers, body),) = receiver.got  # a redirect is not followed
        assert (headers["x-test"], body) == ("1", b"{}")
        assert receiver.paths == ["/hook/S3CRET-PATH"]


async def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    async with receiving() as receiver:
        receiver.body = b"x" * (hooks._ANSWER_BYTES_MAX * 64)
        hook = HttpHook(receiver.url)
        await hook.post({}, b"{}")
        await hook.post({}, b"{}")
        await hook.rest()
        assert len(receiver.got) == 2


async def test_who_does_not_answer_is_away_and_the_address_is_not_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hooks, "_ATTEMPT_S", 0.2)
    async with receiving() as receiver:
        receiver.hangs = True
        hook = HttpHook(receiver.url)
        with pytest.raises(CarrierAway, match=r"did not answer within 0\.2 s") as hung:
            await hook.post({}, b"{}")
        await hook.rest()
    with pytest.raises(CarrierAway, match="cannot be reached") as gone:
        await hook.post({}, b"{}")
    await hook.rest()
    for told in (hung, gone):
        assert "S3CRET" not in str(told.value)


def test_two_addresses_of_one_host_have_two_names() -> None:
    first, second = (hooks.shown(f"https://hooks.example/{path}") for path in ("a", "b"))
    assert first.startswith("hooks.example#")
    assert first != second
