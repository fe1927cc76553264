"""Make nbs/images/page.png, the picture of the page in the README, with a real browser."""

from __future__ import annotations

import io
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from PIL import Image
from playwright.sync_api import sync_playwright

from studperf.schema.tables import write_atomically
from studperf.ui.child import page_process

PICTURE = Path(__file__).parents[1] / "nbs" / "images" / "page.png"


def wait(address: str, seconds: float = 60) -> None:
    """Until the page answers."""
    end = time.monotonic() + seconds
    while True:
        try:
            return urlopen(address).close()
        except URLError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def taken(address: str) -> bytes:
    """The page with the example filled in, down to the end of its reasons."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.goto(address)
        page.get_by_role("button", name="Fill in an example").click()
        page.locator(".one-falls").wait_for()
        page.mouse.move(0, 0)
        page.wait_for_timeout(1000)
        end = page.get_by_role("heading", name="What if").bounding_box()["y"]
        picture = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": 1100, "height": end - 10})
        browser.close()
    return picture


def main() -> None:
    with page_process(base_url="/") as child:
        address = f"{child.address}?token={child.token}"
        wait(address)
        picture = Image.open(io.BytesIO(taken(address))).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE)
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    print(f"{write_atomically(PICTURE, content.getvalue())}: {len(content.getvalue()):,} bytes")


if __name__ == "__main__":
    main()
