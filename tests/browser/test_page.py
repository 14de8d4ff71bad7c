from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Page, expect

from stream.schema import topics
from tests.browser.conftest import Site, Watched
from tests.unit.monitor.feed import NAMES

pytestmark = pytest.mark.browser
Open = Callable[..., Watched]
LIVE_S = 2.0
HOSTILE = [
    "<script>window.hacked=1</script>",
    "<img src=x onerror=window.hacked=1>",
    "é" * 128,
    "🛒🧺",
    "مستخدم ١",
    "a/b?c#d&e",
]


def decoded(site: Site, topic: str) -> list[dict[str, Any]]:
    """What the topic says, newest last: the page is compared with this and not with the view."""
    return [json.loads(m.value) for m in site.messages if m.topic == topic and m.value is not None]


def panel(page: Page, heading: str) -> Any:
    return page.locator("section.panel", has=page.get_by_role("heading", name=heading))


def chart(page: Page, place: int) -> dict[str, Any]:
    """The options that ECharts itself holds for the chart at this place of the page."""
    script = """async (place) => {
      const { echarts } = await import("nicegui-echart");
      const all = document.querySelectorAll(".nicegui-echart");
      return JSON.parse(JSON.stringify(echarts.getInstanceByDom(all[place]).getOption()));
    }"""
    page.wait_for_function("(p) => document.querySelectorAll('.nicegui-echart canvas').length > p", arg=place)
    found: dict[str, Any] = page.evaluate(script, place)
    return found


def wait_for(check: Callable[[], bool], seconds: float = 15) -> float:
    began = time.monotonic()
    while not check():
        assert time.monotonic() - began < seconds, "the page did not get there"
        time.sleep(0.05)
    return time.monotonic() - began


def test_every_panel_shows_what_the_topics_say(site: Site, open_page: Open) -> None:
    watched = open_page(site.url)
    page = watched.page
    expect(page.get_by_role("heading", level=1)).to_contain_text("Learning from", timeout=15_000)
    newest = decoded(site, topics.METRICS)[-1]
    strip = page.locator(".strip")
    expect(strip).to_contain_text(f"{newest['gauges']['served_hr@10']:.3f}")
    expect(strip).to_contain_text(f"{newest['counters']['events']:,} so far")
    expect(strip).to_contain_text(f"p99 {newest['gauges']['freshness_p99_ms']:,.0f} ms")
    letters = [m for m in site.messages if m.topic == topics.DEAD_LETTERS]
    expect(panel(page, "Dead letters")).to_contain_text(str(len(letters)))
    expect(panel(page, "Dead letters").locator("pre")).to_have_text((letters[-1].value or b"").decode())
    for number, state in ((2, "open"), (1, "over")):
        row = page.get_by_role("row").filter(has_text=f"#{number}")
        expect(row).to_contain_text(state)
        expect(row).to_contain_text("more learning steps")
    shifts = sorted(decoded(site, topics.INTENT_SHIFTS), key=lambda s: -s["step"])
    first = panel(page, "Latest intent shifts").locator("tbody tr").first
    expect(first).to_contain_text(shifts[0]["user"])
    expect(first).to_contain_text(NAMES[shifts[0]["to"]])
    expect(first).to_contain_text(f"{shifts[0]['confidence']:.0%}")
    expect(first).to_contain_text(shifts[0]["evidence"][0])
    assert watched.faults == []


def test_the_charts_hold_the_topics_figures(site: Site, open_page: Open) -> None:
    page = open_page(site.url).page
    expect(page.get_by_role("heading", level=1)).to_contain_text("Learning from", timeout=15_000)
    reports = {m["ts"]: m["gauges"]["served_hr@10"] for m in decoded(site, topics.METRICS)}
    wait_for(lambda: bool(chart(page, 0)["series"][0].get("data")))
    accuracy = chart(page, 0)
    points = accuracy["series"][0]["data"]
    assert len(points) > 100
    assert all(abs(reports[ts] - value) < 1e-3 for ts, value in points)
    bands = accuracy["series"][0]["markArea"]["data"]
    assert [band[0]["name"] for band in bands] == ["#2", "#1"]
    catalog = {one["intent"]: one for one in decoded(site, topics.INTENT_CATALOG)}
    centers = {int(d["name"]): d["value"] for d in chart(page, 1)["series"][1]["data"]}
    assert set(centers) == set(catalog)
    for number, one in catalog.items():
        assert centers[number][:2] == pytest.approx(one["position"], abs=1e-6)
    shares = {s["name"]: s["data"][-1][1] for s in chart(page, 2)["series"] if s["data"]}
    for number, one in catalog.items():
        assert shares[NAMES[number]] == pytest.approx(one["share"], abs=1e-3)


def test_times_say_which_clock_they_are_of(site: Site, open_page: Open) -> None:
    page = open_page(site.url).page
    expect(page.get_by_role("heading", level=1)).to_contain_text("Learning from", timeout=15_000)
    shifts = panel(page, "Latest intent shifts")
    expect(shifts.locator("thead th").first).to_have_text("Event time (UTC)")
    newest = max(decoded(site, topics.INTENT_SHIFTS), key=lambda s: s["step"])
    said = f"{datetime.fromtimestamp(newest['as_of']['ts'] / 1000, UTC):%Y-%m-%d %H:%M:%S}"
    expect(shifts.locator("tbody tr").first).to_contain_text(said)
    letter = [m for m in site.messages if m.topic == topics.DEAD_LETTERS][-1]
    said = f"{datetime.fromtimestamp(letter.timestamp_ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    expect(panel(page, "Dead letters").get_by_role("heading", level=3)).to_contain_text(said)
    for place in (0, 2):
        assert chart(page, place)["useUTC"] is True
    expect(panel(page, "Served accuracy")).to_contain_text("The time is the worker's clock, UTC.")


def test_news_are_on_the_page_within_two_seconds(make_site: Callable[..., Site], open_page: Open) -> None:
    site = make_site(20)
    watched = open_page(site.url)
    page = watched.page
    expect(page.get_by_role("heading", level=1)).to_contain_text("Learning from", timeout=15_000)
    user = "fresh <b>user</b>"
    began = time.monotonic()
    site.append([*site.feed.event(user), site.feed.shift(user, 2), site.feed.metrics(events_per_second=777.0)])
    expect(panel(page, "Latest intent shifts")).to_contain_text(user, timeout=5000)
    expect(page.get_by_role("heading", level=1)).to_contain_text("777", timeout=5000)
    expect(panel(page, "Newest lists")).to_contain_text(user, timeout=5000)
    assert time.monotonic() - began < LIVE_S
    assert watched.faults == []


def test_a_hidden_tab_is_sent_nothing_and_is_up_to_date_when_it_is_seen(
    make_site: Callable[..., Site], open_page: Open
) -> None:
    site = make_site(20)
    page = open_page(site.url).page
    expect(page.get_by_role("heading", level=1)).to_contain_text("Learning from", timeout=15_000)
    hide = """(hidden) => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
      if (hidden) { window.sent = 0; window.socket.on("update", () => window.sent++); }
    }"""
    page.wait_for_timeout(1500)
    page.evaluate(hide, True)
    page.wait_for_timeout(500)
    for rate in (555.0, 666.0, 777.0):
        site.append([*site.feed.step(), site.feed.metrics(events_per_second=rate)])
        page.wait_for_timeout(1200)
    assert page.evaluate("window.sent") == 0
    page.evaluate(hide, False)
    expect(page.get_by_role("heading", level=1)).to_contain_text("777", timeout=2000)


def test_a_viewer_costs_few_elements_and_small_news_few_bytes(make_site: Callable[..., Site], open_page: Open) -> None:
    site = make_site(20)
    page = open_page(site.url).page
    expect(page.get_by_role("heading", level=1)).to_contain_text("Learning from", timeout=15_000)
    assert (
        page.evaluate("[...document.querySelectorAll('[id]')].filter((one) => /^c[0-9]+$/.test(one.id)).length") < 200
    )
    page.wait_for_timeout(1500)
    page.evaluate("window.sent = []; window.socket.on('update', (one) => window.sent.push(Object.values(one)))")
    user = "one more"
    site.append([*site.feed.event(user), site.feed.shift(user, 2)])
    expect(panel(page, "Latest intent shifts")).to_contain_text(user, timeout=5000)
    page.wait_for_timeout(1500)
    tags = [one["tag"] for sent in page.evaluate("window.sent") for one in sent if isinstance(one, dict)]
    assert set(tags) == {"nicegui-rows"}  # the charts did not change, and every table is one element


def test_an_erased_user_leaves_the_tables_at_once(make_site: Callable[..., Site], open_page: Open) -> None:
    site = make_site(20)
    page = open_page(site.url).page
    user = "soon-gone"
    site.append([*site.feed.event(user), site.feed.shift(user, 2)])
    shifts = panel(page, "Latest intent shifts")
    expect(shifts).to_contain_text(user, timeout=15_000)
    site.append([site.feed.erase(user), *site.feed.receipt(user)])
    expect(shifts).not_to_contain_text(user, timeout=3000)
    expect(panel(page, "Newest lists")).not_to_contain_text(user, timeout=3000)


@pytest.mark.parametrize("user", HOSTILE)
def test_users_with_hostile_ids_are_looked_up_and_shown_as_text(site: Site, open_page: Open, user: str) -> None:
    site.append([*site.feed.event(user), site.feed.shift(user, 1)])
    watched = open_page(site.url)
    page = watched.page
    page.get_by_label("User", exact=True).fill(user)
    page.get_by_role("button", name="Look up").click()
    expect(page.locator("h2.who")).to_have_text(user)
    person = page.locator("section.person")
    expect(person).to_contain_text("Source of the list: the model", timeout=15_000)
    listed = next(m for m in reversed(decoded(site, topics.RECOMMENDATIONS)) if m["user"] == user)
    for item in listed["items"][:3]:
        expect(person).to_contain_text(item["item"])
    expect(person).to_contain_text(listed["because"][0])
    expect(person).to_contain_text(next(m for m in decoded(site, topics.EVENTS) if m["user"] == user)["item"])
    assert page.evaluate("window.hacked") is None
    assert watched.faults == []


def test_a_user_id_may_hold_line_breaks(site: Site, open_page: Open) -> None:
    user = "two\nlines\n"
    site.append(site.feed.event(user))
    page = open_page(site.url, f"/user?id={quote(user)}").page
    expect(page.locator("section.person")).to_contain_text("Source of the list: the model", timeout=15_000)


def test_an_erased_user_has_a_receipt_that_can_be_read(site: Site, open_page: Open) -> None:
    user, feed = "was-here", site.feed
    site.append([*feed.event(user), feed.erase(user), *feed.receipt(user)])
    person = open_page(site.url, f"/user?id={user}").page.locator("section.person")
    expect(person).to_contain_text("This user was erased, and no event has come since.", timeout=15_000)
    expect(person.get_by_text("Recommended now")).to_be_hidden()
    asked = datetime.fromtimestamp(feed.now_ms / 1000, UTC)
    expect(person).to_contain_text(f"Requested at {asked:%Y-%m-%d %H:%M:%S} UTC, done at step {feed.number:,}.")
    cells = [row.locator("th, td").all_inner_texts() for row in person.locator("tbody tr:visible").all()]
    assert cells == [
        ["weights", "fade as learning goes on", "–"],
        ["checkpoints made before", "each is removed when engine.keep_checkpoints newer ones are finished", "–"],
        [
            "behavior-events",
            "the user's events and the request: 7 days after they were written",
            f"{asked + timedelta(days=7):%Y-%m-%d}",
        ],
    ]
    site.append(feed.event(user))
    expect(person.get_by_text("Recommended now")).to_be_visible()
    expect(person).to_contain_text("Source of the list: the model")


def test_an_unknown_user_and_a_retired_intent_are_explained(site: Site, open_page: Open) -> None:
    page = open_page(site.url, f"/user?id={quote('nobody at all')}").page
    expect(page.locator("section.person")).to_contain_text("say nothing about this user")
    for number in ("987", "9" * 23, "9" * 900):
        page = open_page(site.url, f"/intent/{number}", width=390).page
        expect(page.get_by_role("heading", level=2)).to_have_text("Not in the catalog")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_an_intent_has_a_page(site: Site, open_page: Open) -> None:
    watched = open_page(site.url, "/intent/3")
    page = watched.page
    expect(page.get_by_role("heading", level=2)).to_have_text("board games")
    newest = [one for one in decoded(site, topics.INTENT_CATALOG) if one["intent"] == 3][-1]
    expect(page.locator("section.panel").first).to_contain_text(f"{newest['share']:.1%} of the active users")
    for item in newest["top_items"]:
        expect(page.get_by_role("cell", name=item, exact=True).first).to_be_visible()
    assert watched.faults == []


def test_empty_topics_say_what_to_do(make_site: Callable[..., Site], open_page: Open) -> None:
    watched = open_page(make_site(0).url)
    page = watched.page
    expect(page.get_by_role("heading", level=1)).to_have_text("Nothing has arrived yet.")
    expect(page.locator(".standing")).to_contain_text("intentstream run")
    expect(page.get_by_text("No drift so far.")).to_be_visible()
    expect(page.get_by_text("No shift yet.")).to_be_visible()
    expect(page.get_by_text("None. Every record was accepted.")).to_be_visible()
    expect(page.get_by_text("The curve begins with the worker's first report.")).to_be_visible()
    assert watched.faults == []


def test_a_worker_that_is_gone_is_said_at_the_top(make_site: Callable[..., Site], open_page: Open) -> None:
    site = make_site(0)
    site.feed.now_ms = int(time.time() * 1000) - 300_000
    site.append(site.feed.step())
    page = open_page(site.url).page
    expect(page.get_by_role("heading", level=1)).to_contain_text("The worker has not reported", timeout=10_000)
    expect(page.get_by_role("status")).to_contain_text("as of its last report")


def test_a_page_that_lost_its_server_says_so_and_since_when(make_site: Callable[..., Site], open_page: Open) -> None:
    site = make_site(5)
    page = open_page(site.url).page
    heading = page.get_by_role("heading", level=1)
    expect(heading).to_contain_text("earning from", timeout=15_000)
    colour = "getComputedStyle(document.querySelector('.dot')).backgroundColor"
    good, strip = page.evaluate(colour), page.locator(".strip")
    site.process.send_signal(signal.SIGSTOP)  # hangs: the socket stays open and nothing comes
    lost = re.compile(r"No connection to the monitor since \d\d:\d\d:\d\d UTC; everything below is as of then")
    expect(heading).to_have_text(lost, timeout=9000)
    expect(page.get_by_role("status")).to_have_text(lost)
    expect(heading).to_have_count(1)
    expect(strip).to_have_css("opacity", "0.45")
    assert page.evaluate(colour) != good
    site.process.send_signal(signal.SIGCONT)
    expect(heading).to_contain_text("earning from", timeout=15_000)
    expect(strip).to_have_css("opacity", "1")
    site.process.kill()
    expect(heading).to_have_text(lost, timeout=3000)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1600])
def test_both_widths_and_both_themes(site: Site, open_page: Open, width: int, theme: str) -> None:
    watched = open_page(site.url, width=width, theme=theme)
    page = watched.page
    expect(page.get_by_role("heading", level=1)).to_contain_text("earning from", timeout=15_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(json.loads(background.replace("rgb(", "[").replace(")", "]"))) > 380) == (theme == "light")
    wait_for(lambda: chart(page, 0)["xAxis"][0]["axisLabel"]["color"] == ("#5c6359" if theme == "light" else "#9ca59b"))
    assert watched.faults == []


def test_a_small_screen_shows_whole_lists_and_the_whole_catalog(site: Site, open_page: Open) -> None:
    newest = decoded(site, topics.RECOMMENDATIONS)[-1]
    page = open_page(site.url, f"/user?id={quote(newest['user'])}", width=390).page
    rows = page.locator("section.person table", has=page.get_by_text("The newest list")).locator("tbody tr")
    expect(rows).to_have_count(len(newest["items"]), timeout=15_000)
    assert len(newest["items"]) > 6
    assert all(row.is_visible() for row in rows.all())
    page.goto(site.url)
    page.get_by_text("As a table").click()
    intents = panel(page, "Map of intents").locator("tbody tr")
    expect(intents.last).to_be_visible()
    assert intents.count() == len(NAMES) and all(row.is_visible() for row in intents.all())


def test_the_theme_can_be_chosen_and_is_remembered(site: Site, open_page: Open) -> None:
    page = open_page(site.url).page
    expect(page.get_by_role("heading", level=1)).to_contain_text("earning from", timeout=15_000)
    page.get_by_label("Colors").select_option("dark")
    expect(page.locator("body")).to_have_class(re.compile("body--dark"))
    page.reload()
    expect(page.locator("body")).to_have_class(re.compile("body--dark"), timeout=10_000)


def test_keyboard_and_screen_reader(site: Site, open_page: Open) -> None:
    page = open_page(site.url).page
    expect(page.get_by_role("heading", level=1)).to_contain_text("earning from", timeout=15_000)
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the figures")
    for picture in page.get_by_role("img").all():
        assert picture.get_attribute("aria-label")
    for name in ("15 min", "2 days"):
        page.get_by_role("button", name=name).focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name=name)).to_have_attribute("aria-pressed", "true")
    for table in page.get_by_role("table").all():
        assert table.locator("caption").text_content()
    assert page.get_by_role("main").count() == 1 == page.get_by_role("heading", level=1).count()
    assert page.locator("html").get_attribute("lang") == "en-US"


def test_dead_letters_can_be_leafed_through(make_site: Callable[..., Site], open_page: Open) -> None:
    site = make_site(0)
    site.append([site.feed.letter("not_json", f"<img src=x onerror=alert({n})>".encode()) for n in range(3)])
    watched = open_page(site.url)
    letters = panel(watched.page, "Dead letters")
    shown, place = letters.locator("pre"), letters.locator(".letter .chips .sub")
    older, newer = letters.get_by_role("button", name="Older"), letters.get_by_role("button", name="Newer")
    expect(shown).to_have_text("<img src=x onerror=alert(2)>", timeout=10_000)
    expect(place).to_have_text("1 of 3 kept")
    expect(newer).to_be_disabled()
    older.click()
    expect(shown).to_have_text("<img src=x onerror=alert(1)>")
    newer.click()
    expect(place).to_have_text("1 of 3 kept")
    older.click()
    site.append([site.feed.letter("not_json", f"<img src=x onerror=alert({n})>".encode()) for n in range(3, 502)])
    expect(place).to_have_text("500 of 500 kept", timeout=10_000)  # it stays, although those around it come and go
    expect(shown).to_have_text("<img src=x onerror=alert(2)>")  # the one looked at is gone: the next one
    expect(older).to_be_disabled()
    site.append([site.feed.letter("not_json", b"newest")])
    expect(shown).to_have_text("<img src=x onerror=alert(3)>", timeout=10_000)
    newer.click()
    expect(shown).to_have_text("<img src=x onerror=alert(4)>")
    site.append([site.feed.letter("not_json", b"newest")])
    expect(place).to_have_text("500 of 500 kept", timeout=10_000)
    expect(shown).to_have_text("<img src=x onerror=alert(4)>")
    assert watched.faults == []


def test_with_a_token_the_page_asks_for_it(make_site: Callable[..., Site], open_page: Open) -> None:
    token = "a-token-of-some-length"
    page = open_page(make_site(5, token).url).page
    expect(page).to_have_url(re.compile("/login$"))
    page.get_by_label("Token").fill("wrong-token-wrong-token")
    page.get_by_role("button").click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label("Token").fill(token)
    page.get_by_role("button").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("earning from", timeout=15_000)
    page.context.clear_cookies()
    page.goto(page.url + "user?id=" + quote("a&b=c d"))
    expect(page).to_have_url(re.compile("/login.next="))
    page.get_by_label("Token").fill("wrong-token-wrong-token")
    page.get_by_role("button").click()
    expect(page.get_by_role("alert")).to_be_visible()
    page.get_by_label("Token").fill(token)
    page.get_by_role("button").click()
    expect(page.locator("h2.who")).to_have_text("a&b=c d", timeout=15_000)
    page.context.clear_cookies()
    page.goto(
        page.url.partition("user")[0] + "login?next=" + quote('//evil.example/"><script>window.hacked=1</script>')
    )
    page.get_by_label("Token").fill(token)
    page.get_by_role("button").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("earning from", timeout=15_000)
    assert page.evaluate("window.hacked") is None
