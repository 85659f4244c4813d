"""The page in headless Chromium: the whole way of a visitor, and mistakes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("gradio", reason="the web page's packages are not installed")
pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from tests.chromium import needs_chromium, open_chromium
from tests.conftest import ROOT
from tests.webapp.serve import ServedPage, serve_page

pytestmark = needs_chromium
TOY = ROOT / "testset" / "locomotive.png"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with open_chromium(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(autouse=True)
def short_videos(monkeypatch):
    monkeypatch.setattr("renderer.reconstruction.FRAMES", 4)


class Tab:
    """An open page."""

    def __init__(self, browser: Any, page: ServedPage) -> None:
        self.browser = browser
        browser.switch_to.new_window("tab")
        browser.get(page.address)
        self.wait(lambda: self.one("#go").is_displayed())
        self.wait(lambda: self.one("#upload input[type=file]"))

    def one(self, selector: str) -> Any:
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def wait(self, condition: Callable[[], Any], seconds: float = 60) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            try:
                if found := condition():
                    return found
            except Exception:
                if time.monotonic() > deadline:
                    raise
            assert time.monotonic() < deadline, self.one("body").text
            time.sleep(0.1)

    def upload(self, path: Path) -> None:
        self.one("#upload input[type=file]").send_keys(str(path))

    def open_toy(self) -> None:
        self.upload(TOY)
        self.wait(lambda: self.one("#mask img").get_property("naturalWidth") == 256)

    def click(self, selector: str) -> None:
        element = self.one(selector)
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        time.sleep(0.3)
        element.click()

    def expect_text(self, text: str, seconds: float = 240) -> None:
        self.wait(lambda: text in self.one("body").text, seconds)


@pytest.fixture
def tab(chromium) -> Iterator[Callable[[ServedPage], Tab]]:
    first = chromium.window_handles[0]
    yield lambda page: Tab(chromium, page)
    for handle in chromium.window_handles:
        if handle != first:
            chromium.switch_to.window(handle)
            chromium.close()
    chromium.switch_to.window(first)


def colours(browser: Any, selector: str) -> np.ndarray:
    """Screenshot of an element, (H, W, 3)."""
    element = browser.find_element(By.CSS_SELECTOR, selector)
    with Image.open(BytesIO(element.screenshot_as_png)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def requested(browser: Any) -> set[str]:
    """URLs that pages have requested since the last call."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    return {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
        and message["params"].get("documentURL", "").startswith("http")
    }


def test_an_upload_becomes_views_that_sharpen_and_a_mesh_that_is_displayed(chromium, tab):
    with serve_page(0.4) as page:
        requested(chromium)
        visitor = tab(page)
        visitor.open_toy()
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
            if "Done." in seen[2]:  # read at the same moment as the bar, which it replaces
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

        visitor.click("#convert")
        visitor.expect_text("model-obj-")

        steps = len(page.view_generator.steps)
        worst = visitor.all("#pick input")[1]
        chromium.execute_script("arguments[0].click()", worst)
        visitor.click("#rebuild")
        visitor.wait(lambda: "Done." not in visitor.one("#status").text)
        visitor.expect_text("Done.")
        assert len(page.view_generator.steps) == steps  # no views are generated again


def test_a_click_on_the_image_erases_and_undo_restores(chromium, tab):
    with serve_page() as page:
        visitor = tab(page)
        visitor.open_toy()
        editor = next(iter(page.sessions._sessions.values())).editor
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


def test_bad_files_get_clear_messages_and_the_page_still_works(chromium, tab, tmp_path):
    fake, large = tmp_path / "fake.png", tmp_path / "large.png"
    fake.write_bytes(b"this is not an image")
    large.write_bytes(np.random.default_rng(0).bytes(30 * 10**6))
    with serve_page() as page:
        visitor = tab(page)
        visitor.click("#go")
        visitor.expect_text("Upload an image first")
        visitor.upload(fake)
        visitor.expect_text("This file is not a readable image")
        visitor.upload(large)
        visitor.wait(lambda: "maximum" in visitor.one("body").text.lower())
        visitor = tab(page)
        visitor.open_toy()
        visitor.click("#go")
        visitor.expect_text("Done.")


def test_the_stop_button_stops_the_job(tab):
    with serve_page(0.5) as page:
        visitor = tab(page)
        visitor.open_toy()
        visitor.click("#go")
        visitor.expect_text("Generating sample 1")
        visitor.click("#stop")
        visitor.expect_text("Stopped.")
        visitor.wait(lambda: not page.view_generator.running, 10)
        assert len(page.view_generator.steps) < 8
        visitor.click("#go")
        visitor.expect_text("Done.")


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_its_width(chromium, tab, width):
    with serve_page() as page:
        visitor = tab(page)
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        visitor.open_toy()
        visitor.click("#go")
        visitor.expect_text("Done.")
        assert chromium.execute_script("return document.documentElement.scrollWidth") <= width
        chromium.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_browser_that_was_given_the_token_once_can_use_the_page(tab, chromium):
    token = "a-token-of-some-length"
    with serve_page(interface={"token": token}) as page:
        chromium.get(page.address.replace("//", f"//visitor:{token}@") + "config")
        visitor = tab(page)
        visitor.open_toy()
        visitor.click("#go")
        visitor.expect_text("Done.")
