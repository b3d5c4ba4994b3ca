"""Pictures of reports in a headless Chromium, to look at: python benchmarks/screenshots.py FOLDER REPORT.html …

Each page at the width of a desk and of a phone, and in the dark, whole; and as PDF, as it prints.
"""

import os
import shutil
import sys
from pathlib import Path

LOOKS = {
    "desk": {"viewport": {"width": 1280, "height": 900}},
    "phone": {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
}
SLICE = 3000
"""Pixels of a page in one picture: a longer one is too small to read when it is looked at whole."""


def main(folder: Path, pages: list[Path]) -> None:
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        sys.exit("there is no chromium, chromium-browser or google-chrome on this machine")
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        for page in pages:
            for name, look in LOOKS.items():
                context = browser.new_context(**look)
                shown = context.new_page()
                shown.goto(page.resolve().as_uri())
                height = shown.evaluate("document.documentElement.scrollHeight")
                width = look["viewport"]["width"]
                for i, top in enumerate(range(0, height, SLICE)):
                    clip = {"x": 0, "y": top, "width": width, "height": min(SLICE, height - top)}
                    shown.screenshot(path=folder / f"{page.stem}-{name}-{i:02d}.png", clip=clip, full_page=True)
                if name == "desk":
                    shown.pdf(path=folder / f"{page.stem}.pdf", prefer_css_page_size=True)
                context.close()
        browser.close()
    print(f"{len(list(folder.glob('*.png')))} pictures in {folder}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), [Path(argument) for argument in sys.argv[2:]])
