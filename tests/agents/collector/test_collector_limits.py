"""Who may post, and how often: keys that change without a restart, and rates of keys and addresses."""

import pytest

from app.collector import write_keys
from app.collector.rate_limits import RateLimits
from app.core.rate_limit import RateLimit
from app.errors import ConfigurationError, RequestRejected
from app.settings import Settings
from tests.worlds.collector import NDJSON, CollectorWorld, body
from tests.worlds.inbox import StandingClock
from tests.worlds.waiting import until

# --- rates


def test_a_name_may_send_its_rate_and_a_burst():
    limit = RateLimit(10)
    assert [limit.wait_s("a", 0.0) for _ in range(20)] == [0.0] * 20
    assert limit.wait_s("a", 0.0) == pytest.approx(0.1)
    assert limit.wait_s("b", 0.0) == 0.0
    assert limit.wait_s("a", 0.11) == 0.0
    assert limit.wait_s("a", 0.11) > 0
    assert sum(limit.wait_s("a", 1 + n / 100) == 0 for n in range(1000)) == pytest.approx(109, abs=10)


def test_a_rate_below_one_in_the_burst_still_takes_one():
    limit = RateLimit(0.1)
    assert limit.wait_s("a", 0.0) == 0.0
    assert limit.wait_s("a", 1.0) == pytest.approx(9.0)
    assert limit.wait_s("a", 10.0) == 0.0


def test_names_are_bounded_and_the_one_that_asked_longest_ago_is_forgotten():
    limit = RateLimit(0.1, most_names=3)
    for name in ("a", "b", "c"):
        limit.wait_s(name, 0.0)
    assert limit.wait_s("a", 0.0) > 0
    limit.wait_s("d", 0.0)
    assert len(limit) == 3
    assert limit.wait_s("a", 0.0) > 0
    assert limit.wait_s("b", 0.0) == 0.0


def test_the_addresses_of_one_ipv6_network_are_one_client():
    limits = RateLimits(Settings(address_requests_per_s=0.1))
    limits.check_address("2001:db8::1", 0.0)
    limits.check_address("2001:db8:0:1::1", 0.0)
    limits.check_address("192.0.2.1", 0.0)
    with pytest.raises(RequestRejected) as caught:
        limits.check_address("2001:db8::ffff:2", 0.0)
    assert (caught.value.status, caught.value.retry_after_s) == (429, 10)


@pytest.mark.parametrize("setting", ["key_requests_per_s", "address_requests_per_s"])
async def test_too_many_requests_are_429_and_nothing_of_them_is_kept(setting):
    clock = StandingClock()
    async with CollectorWorld(clock, trusted_proxies=("127.0.0.1/32",), **{setting: 0.5}).running() as world:
        here = {**NDJSON, "X-Forwarded-For": "198.51.100.1"}
        others = {
            "key_requests_per_s": ("X-Write-Key", "back"),
            "address_requests_per_s": ("X-Forwarded-For", "198.51.100.2"),
        }
        other = dict([*here.items(), others[setting]])
        assert (await world.post(body("a"), here)).status == 200
        refused = await world.post(body("b"), here)
        assert (refused.status, refused.body["error"], refused.headers["Retry-After"]) == (429, "rate_limited", "2")
        assert refused.headers["Access-Control-Allow-Origin"] == "*"
        assert (await world.post(body("c"), other)).status == 200
        clock.now_s += 2
        assert (await world.post(body("b"), here)).status == 200
        assert sorted(line["event_id"] for line in await world.stored_lines()) == ["a", "b", "c"]


async def test_an_address_is_counted_before_its_key_is_known():
    async with CollectorWorld(StandingClock(), address_requests_per_s=0.5).running() as world:
        wrong = {**NDJSON, "X-Write-Key": "guess"}
        assert [(await world.post(body("a"), wrong)).status for _ in range(2)] == [401, 429]


async def test_without_the_settings_there_is_no_limit():
    async with CollectorWorld(StandingClock()).running() as world:
        assert {(await world.post(body(str(n)))).status for n in range(30)} == {200}


# --- the file of keys


async def test_keys_of_the_file_change_without_a_restart(tmp_path, monkeypatch):
    monkeypatch.setattr(write_keys, "READ_INTERVAL_S", 0.01)
    file = tmp_path / "keys"
    file.write_text("# two keys\nold:browser\n\n both : server \n")
    async with CollectorWorld(write_keys={"demo": "browser"}, write_keys_file=file).running() as world:

        async def statuses(*keys):
            return [(await world.post(body("a"), {**NDJSON, "X-Write-Key": key})).status for key in keys]

        assert await statuses("demo", "old", "both", "new", "# two keys") == [200, 200, 200, 401, 401]
        replacement = tmp_path / "next"
        replacement.write_text("new:browser\nboth:server\n")
        replacement.replace(file)

        async def is_known():
            return await statuses("new") == [200]

        await until(is_known)
        assert await statuses("demo", "old", "both", "new") == [200, 401, 200, 200]


@pytest.mark.parametrize(
    "fault", [None, "", "secret-key", "secret-key:admin", "a:browser\na:server", "\xff:browser", "x" * 2_000_000]
)
async def test_a_file_that_does_not_fit_changes_nothing_and_shows_no_key(fault, tmp_path, monkeypatch):
    errors: list[str] = []
    monkeypatch.setattr(write_keys.log, "error", lambda event, error: errors.append(error), raising=False)
    file = tmp_path / "keys"
    file.write_text("old:browser")
    keys = write_keys.WriteKeys(Settings(write_keys={}, write_keys_file=file))
    file.unlink()
    if fault is not None:
        file.write_text(fault, encoding="latin-1")
    for _ in range(3):
        await keys.read_again()
        assert keys.find("old") == ("old", "browser")
    [error] = errors
    assert "INSTREAM_WRITE_KEYS_FILE" in error
    assert "secret-key" not in error
    file.write_text("new:browser")
    await keys.read_again()
    assert keys.find("new") == ("new", "browser")
    with pytest.raises(RequestRejected):
        keys.find("old")


def test_a_collector_does_not_start_with_a_file_that_does_not_fit(tmp_path):
    with pytest.raises(ConfigurationError, match=r"INSTREAM_WRITE_KEYS_FILE=.*No such file.*give a file"):
        write_keys.WriteKeys(Settings(write_keys={"a": "browser"}, write_keys_file=tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="name no key"):
        write_keys.WriteKeys(Settings(write_keys={}))
