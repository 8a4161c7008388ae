"""What is kept of a PNG looks as the browser shows the original: upright, in sRGB, over white."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING

from PIL import ImageCms

from actors.web_server.pictures.check import jpeg_of
from actors.web_server.pictures.limits import PictureLimits
from tests.browser.conftest import IN_A_BROWSER
from tests.support import pngs

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = IN_A_BROWSER

SHOWN = """async (pictures) => {
  const shown = [];
  for (const base64 of pictures) {
    const image = new Image();
    image.src = `data:;base64,${base64}`;
    await image.decode();
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    const context = canvas.getContext("2d");
    context.fillStyle = "#fff";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, 0, 0);
    const pixels = [];
    for (let y = 8; y < canvas.height; y += 16) {
      for (let x = 8; x < canvas.width; x += 16) pixels.push(...context.getImageData(x, y, 1, 1).data);
    }
    shown.push([canvas.width, canvas.height, pixels]);
  }
  return shown;
}"""
COLOURS = [(255, 0, 0), (0, 200, 0), (0, 0, 150), (200, 100, 50), (90, 90, 90)]
DEEP = [tuple(257 * sample for sample in colour) for colour in COLOURS]
SRGB_PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PNGS = {
    **{f"orientation {value}": pngs.png(COLOURS, chunks=[pngs.orientation(value)]) for value in range(1, 9)},
    "profile": pngs.png(COLOURS, chunks=[pngs.profile(SRGB_PROFILE)]),
    "exchanged": pngs.png(COLOURS, chunks=[pngs.gamma(0.45455), pngs.chromaticities(*pngs.SWAPPED)]),
    "gamma": pngs.png(COLOURS, chunks=[pngs.gamma(1)]),
    "grey": pngs.png([[10], [100], [200]], 8, pngs.GREY, [pngs.gamma(0.8)]),
    "Display P3": pngs.png(COLOURS, chunks=[pngs.code_points(12, 13)]),
    "BT.2020": pngs.png(COLOURS, chunks=[pngs.code_points(9, 1)]),
    "16 bits": pngs.png(DEEP, 16, chunks=[(b"tRNS", struct.pack(">3H", *DEEP[3]))]),
    "alpha": pngs.png([(*colour, 100) for colour in COLOURS], 8, pngs.RGB_ALPHA, [pngs.gamma(1)]),
}


async def test_what_is_kept_of_a_png_looks_as_the_original(browser: Browser) -> None:
    page = await browser.new_page()
    kept = [jpeg_of(png, PictureLimits(1_000_000)) for png in PNGS.values()]
    pictures = [base64.b64encode(picture).decode() for picture in (*PNGS.values(), *kept)]
    shown = await page.evaluate(SHOWN, pictures)
    await page.close()
    for name, original, ours in zip(PNGS, shown, shown[len(PNGS) :], strict=False):
        assert ours[:2] == original[:2], name
        assert max(abs(one - other) for one, other in zip(ours[2], original[2], strict=True)) <= 5, name
