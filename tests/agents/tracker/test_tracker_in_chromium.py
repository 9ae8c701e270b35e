"""The tracker in a real browser: a sample of `make tracker`, and what only a browser can show."""

from tests.rig.tracker.__main__ import run
from tests.rig.tracker.sessions import ENDS
from tests.rig.tracker.site import Site
from tests.worlds.chromium import Tab, find_chromium, running_chromium
from tests.worlds.collector import CollectorWorld
from tests.worlds.waiting import PAUSE_S, until

FRAME = """const frame = document.createElement("iframe");
frame.srcdoc = "<body style='height:200px'>Ad";
document.querySelector("[data-ad_slot]").append(frame);
await new Promise((loaded) => (frame.onload = loaded));
const box = frame.getBoundingClientRect();
return [box.x + 9, box.y + 9]"""


async def test_sessions_of_every_end_arrive_once_and_true(tmp_path):
    outcome = await run(find_chromium(), tmp_path, len(ENDS), 1)
    assert outcome.faults == []
    assert outcome.arrived == outcome.sessions
    assert set(outcome.sessions) == set(ENDS)
    assert outcome.copies > 0  # reports whose answer nobody read are sent again, and are known by their ids


async def click(tab: Tab, x: float, y: float) -> None:
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        await tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)


async def test_ads_count_when_they_are_seen_and_when_they_are_clicked(tmp_path):
    async with Site(CollectorWorld()).running() as site, running_chromium(find_chromium(), tmp_path) as browser:

        async def kinds() -> list[str]:
            return [line["event_type"] for line in await site.events()]

        async def arrived(kind: str, count: int) -> None:
            async def are_there() -> bool:
                await tab.run("new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
                await tab.run("advance(1_000)")
                return (await kinds()).count(kind) >= count

            await until(are_there, PAUSE_S)
            assert (await kinds()).count(kind) == count

        tab = await browser.tab(f"{site.url}/story/1")
        await arrived("ad_impression", 1)
        x, y = await tab.run(
            "{const box = document.querySelector('[data-ad_slot]').getBoundingClientRect(); [box.x + 5, box.y + 5]}"
        )
        await click(tab, x, y)
        await arrived("ad_click", 1)
        x, y = await tab.run(f"(async () => {{ {FRAME} }})()")
        await click(tab, x, y)
        await arrived("ad_click", 2)
        ads = [line for line in await site.events() if line["event_type"].startswith("ad_")]
        assert {(line["ad_slot"], line["creative_id"]) for line in ads} == {(1, "c-1")}
        await tab.run("localStorage.theirs = 'x', instream.push(['consent', false])")
        assert await tab.run("[Object.keys(localStorage), Object.keys(sessionStorage)]") == [["theirs"], []]
        await tab.close()


async def test_a_page_that_is_prerendered_counts_when_it_is_shown(tmp_path):
    async with Site(CollectorWorld()).running() as site, running_chromium(find_chromium(), tmp_path) as browser:
        await browser.call(
            "Target.createTarget", url=f"{site.url}/story/1?prerenders=2"
        )  # DevTools in a tab forbid it there

        async def viewed() -> list[str]:
            return [line["article_id"] for line in await site.events() if line["event_type"] == "page_view"]

        async def are(articles: list[str]) -> bool:
            return await viewed() == articles

        await until(lambda: site.loaded and are(["1"]), PAUSE_S, lambda: str(site.loaded))
        assert site.loaded == ["2,true"]
        site.go.set()
        await until(lambda: are(["1", "2"]), PAUSE_S)
