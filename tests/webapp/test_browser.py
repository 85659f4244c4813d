"""The page in a real Chromium without a window: what a visitor does, sees, and may do wrong."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the web page's packages are not installed")
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from tests.conftest import ROOT
from tests.webapp.stand_in import Served, served

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM or not DRIVER, reason="Chromium or its driver is missing"),
]
TOY = ROOT / "testset" / "locomotive.png"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-unsafe-swiftshader", "--use-gl=angle", "--use-angle=swiftshader",
    "--window-size=1280,1000",
]  # fmt: skip


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield browser
    browser.quit()


@pytest.fixture(autouse=True)
def short_videos(monkeypatch):
    monkeypatch.setattr("renderer.reconstruction.FRAMES", 4)


class Tab:
    """An open page."""

    def __init__(self, browser: Any, page: Served) -> None:
        self.browser = browser
        browser.switch_to.new_window("tab")
        browser.get(page.address)
        self.wait(lambda: self.one("#go").is_displayed())
        self.wait(lambda: self.one("#upload input[type=file]"))

    def one(self, selector: str) -> Any:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def wait(self, true: Callable[[], Any], seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            try:
                if found := true():
                    return found
            except Exception:
                if time.monotonic() > deadline:
                    raise
            assert time.monotonic() < deadline, self.one("body").text
            time.sleep(0.1)

    def send(self, path: Path) -> None:
        self.one("#upload input[type=file]").send_keys(str(path))

    def send_picture(self) -> None:
        self.send(TOY)
        self.wait(lambda: self.one("#mask img").get_property("naturalWidth") == 256)

    def click(self, selector: str) -> None:
        element = self.one(selector)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        time.sleep(0.3)
        element.click()

    def says(self, words: str, seconds: float = 240) -> None:
        self.wait(lambda: words in self.one("body").text, seconds)

    def close(self) -> None:
        self.browser.close()
        self.browser.switch_to.window(self.browser.window_handles[0])


@pytest.fixture
def tab(chromium) -> Iterator[Callable[[Served], Tab]]:
    first = chromium.window_handles[0]
    yield lambda page: Tab(chromium, page)
    for handle in chromium.window_handles:
        if handle != first:
            chromium.switch_to.window(handle)
            chromium.close()
    chromium.switch_to.window(first)


def colours(browser: Any, selector: str) -> np.ndarray:
    """What an element looks like, (H, W, 3)."""
    from io import BytesIO

    element = browser.find_element(By.CSS_SELECTOR, selector)
    with Image.open(BytesIO(element.screenshot_as_png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def requested(browser: Any) -> set[str]:
    """Addresses that pages have asked for since this was last asked."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
        and message["params"].get("documentURL", "").startswith("http")
    }


def test_a_visitor_sends_a_picture_and_gets_views_that_sharpen_and_a_mesh_to_turn(chromium, tab):
    with served(0.4) as page:
        requested(chromium)
        visitor = tab(page)
        visitor.send_picture()
        visitor.click("#go")
        bars, strips = [], []
        while True:
            seen = chromium.execute_script(
                "const bar = document.querySelector('[role=progressbar]'),"
                " views = document.querySelector('.sd-views');"
                "return [bar && +bar.getAttribute('aria-valuenow'),"
                " views && views.style.getPropertyValue('--sd-strip'),"
                " document.querySelector('#status').innerText]"
            )
            if "Done." in seen[2]:  # read together with the bar, which goes when this comes
                break
            bars.append(seen[0] or 0)
            if seen[1] and seen[1] not in strips:
                strips.append(seen[1])
            assert len(bars) < 1000
            time.sleep(0.1)
        assert len(strips) >= 4  # of 2 samples x 4 steps
        assert bars == sorted(bars)
        assert len(set(bars)) >= 6
        assert len(visitor.all(".sd-view")) == 16
        assert colours(chromium, ".sd-views").std() > 15
        assert len(visitor.all("#pick input")) == 2
        assert len(visitor.all("#files a[download], #files a[href*='file=']")) >= 4
        video = "return document.querySelector('#turning video').readyState"
        visitor.wait(lambda: chromium.execute_script(video) >= 2)
        visitor.wait(lambda: visitor.one("#model canvas").is_displayed())
        chromium.execute_script("document.querySelector('#model').scrollIntoView()")
        # saturated colours: the mesh, on white
        visitor.wait(lambda: np.ptp(colours(chromium, "#model"), axis=-1).max() > 80)
        addresses = requested(chromium)
        assert any(".glb" in address for address in addresses)
        own = (page.address, "data:", "blob:")
        assert [address for address in addresses if not address.startswith(own)] == []

        drawn = len(page.drawer.steps)
        worst = visitor.all("#pick input")[1]
        chromium.execute_script("arguments[0].click()", worst)
        visitor.click("#rebuild")
        visitor.wait(lambda: "Done." not in visitor.one("#status").text)
        visitor.says("Done.")
        assert len(page.drawer.steps) == drawn  # nothing is drawn anew


def test_a_click_on_the_picture_erases_and_undo_takes_it_back(chromium, tab):
    with served() as page:
        visitor = tab(page)
        visitor.send_picture()
        editor = next(iter(page.visits._visits.values())).editor
        before = editor.alpha.copy()
        image = visitor.one("#mask img")
        chromium.execute_script("arguments[0].scrollIntoView({block: 'center'})", image)
        time.sleep(0.5)
        ActionChains(chromium).move_to_element(image).click().perform()
        visitor.wait(lambda: not np.array_equal(editor.alpha, before))
        rows, columns = np.nonzero(editor.alpha != before)
        assert abs(rows.mean() - 128) < 12  # in the middle, where the click was
        assert abs(columns.mean() - 128) < 12
        visitor.click("#undo")
        visitor.wait(lambda: np.array_equal(editor.alpha, before))


def test_bad_files_get_clear_messages_and_the_page_goes_on(chromium, tab, tmp_path):
    fake, large = tmp_path / "fake.png", tmp_path / "large.png"
    fake.write_bytes(b"this is not a picture")
    large.write_bytes(np.random.default_rng(0).bytes(30 * 10**6))
    with served() as page:
        visitor = tab(page)
        visitor.click("#go")
        visitor.says("Send a picture first")
        visitor.send(fake)
        visitor.says("This file is not a picture that can be read")
        visitor.send(large)
        visitor.wait(lambda: "maximum" in visitor.one("body").text.lower())
        visitor = tab(page)
        visitor.send_picture()
        visitor.click("#go")
        visitor.says("Done.")


def test_a_double_click_makes_one_job(chromium, tab):
    with served(0.2) as page:
        visitor = tab(page)
        visitor.send_picture()
        button = visitor.one("#go")
        chromium.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        time.sleep(0.3)
        ActionChains(chromium).double_click(button).perform()
        visitor.says("Done.")
        assert page.drawer.most_at_once == 1
        assert len(page.drawer.steps) == 8  # 2 samples of 4 steps


@pytest.mark.parametrize("way", ["close", "stop"])
def test_a_closed_tab_or_the_stop_button_ends_the_job(chromium, tab, way):
    with served(0.5) as page:
        visitor = tab(page)
        visitor.send_picture()
        visitor.click("#go")
        visitor.says("Drawing sample 1")
        began = time.monotonic()
        if way == "close":
            visitor.close()
        else:
            visitor.click("#stop")
            visitor.says("Stopped.")
        while page.drawer.at_once:
            assert time.monotonic() - began < 10
            time.sleep(0.05)
        assert len(page.drawer.steps) < 8
        if way == "stop":
            visitor.click("#go")
            visitor.says("Done.")
            return
        while any(page.visits.root.iterdir()):
            assert time.monotonic() - began < 10
            time.sleep(0.05)


def test_two_tabs_of_one_browser_are_both_served(chromium, tab):
    """Ten visitors are in test_server.py: a browser opens six connections to a server at most, and
    each tab keeps two."""
    with served(0.02, max_queue=20) as page:
        tabs = []
        for _ in range(2):
            visitor = tab(page)
            visitor.send_picture()
            tabs.append((visitor, chromium.current_window_handle))
        for _, handle in tabs:
            chromium.switch_to.window(handle)
            chromium.execute_script("document.querySelector('#go').click()")
        for visitor, handle in tabs:
            chromium.switch_to.window(handle)
            visitor.says("Done.", 400)
        assert page.drawer.most_at_once == 1


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_its_width(chromium, tab, width):
    with served() as page:
        visitor = tab(page)
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        visitor.send_picture()
        visitor.click("#go")
        visitor.says("Done.")
        assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
