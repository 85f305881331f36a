"""Takes the pictures of docs/app.md from an app that runs, with a model of texts and of molecules.

python scripts/app.py --model runs/demo/model --molecule_model runs/molecules/training/best &
python -m tests.support.app_pictures http://127.0.0.1:7860
"""

import shutil
import sys
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from tests.support.project import ROOT


def fill(page: Any, name: str, text: str) -> None:
    """Fill a text in the tab of a model."""
    page.fill(f"#{name}_text textarea", text)
    page.click(f"#{name}_run")
    page.wait_for_selector(f"#{name}_said:has-text('Choose a token')")


def take(page: Any, name: str) -> None:
    """Take a picture of what is seen, in few colours, so that it stays small."""
    path = ROOT / "docs" / f"{name}.png"
    page.wait_for_timeout(1000)
    page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(96).save(path, optimize=True)


def main() -> None:
    """Use the app as the page tells it."""
    with sync_playwright() as playwright:
        options = {"executable_path": shutil.which("chromium"), "args": ["--no-sandbox"]}
        page = playwright.chromium.launch(**options).new_page(
            viewport={"width": 900, "height": 780}
        )
        page.set_default_timeout(90_000)
        page.goto(sys.argv[1])
        page.wait_for_selector("#model_run")
        page.wait_for_timeout(2000)
        fill(page, "model", "And the king {blank:3} his servants, and they {blank:3} the city.")
        page.locator("#model_view button.came").nth(3).click()
        page.wait_for_selector("#model_others label")
        take(page, "app_text")
        page.click("button[role=tab]:has-text('Molecule')")
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size({"width": 390, "height": 900})
        fill(page, "molecule_model", "c1ccccc1{blank:8}")
        take(page, "app_molecule")


if __name__ == "__main__":
    main()
