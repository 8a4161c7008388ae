// What a chosen file is, and whether something of it is missing.

import assert from "node:assert/strict";
import { test } from "node:test";

import { inspected } from "../../../../actors/pages/static/mobile/picture-file.js";
import { undecodable } from "../../../../actors/pages/static/mobile/picture.js";

const bytes = (...parts) => Uint8Array.from(parts.flatMap((part) => (typeof part === "string" ? [...part].map((c) => c.charCodeAt(0)) : part)));
const segment = (marker, ...payload) => [0xff, marker, 0, payload.length + 2, ...payload];
const THUMBNAIL = segment(0xe1, 0xff, 0xd8, 0xff, 0xda, 1, 2, 0xff, 0xd9);
const FRAME = segment(0xc0, 8, 0x10, 0, 0x20, 0, 1, 1, 0x11, 0); // 4096 high, 8192 wide
const SCAN = [...segment(0xda, 1, 1, 0, 0, 63, 0), 9, 0xff, 0, 9, 0xff, 0xd0, 9, 9];
const JPEG = bytes([0xff, 0xd8], THUMBNAIL, FRAME, segment(0xc4, 0, 1, 2), [0xff], SCAN);
const END = [0xff, 0xd9];
const PNG = Uint8Array.from(Buffer.from("iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAAAAAA6mKC9AAAAD0lEQVR4nGNgRwMMI1sAALk9BwFzsPa5AAAAAElFTkSuQmCC", "base64"));

function cutAnywhere(whole, from) {
  for (let length = from; length < whole.length; length += 1) {
    assert.equal(inspected(whole.subarray(0, length)).whole, false, `${length} of ${whole.length} bytes`);
  }
}

test("a JPEG is whole when its own end marker is there, not that of its thumbnail", () => {
  const whole = bytes([...JPEG], END);
  assert.deepEqual(inspected(whole), { format: "JPEG", whole: true, pixels: 4096 * 8192 });
  assert.equal(inspected(bytes([...whole], "a film", END)).whole, true);
  cutAnywhere(whole, 3);
});

test("a panorama of a Galaxy phone may have a trailer instead of an end marker", () => {
  assert.equal(inspected(bytes([...JPEG], "film SEFH directory SEFT")).whole, true);
  assert.equal(inspected(bytes([...JPEG], "film SEFH directory SEF")).whole, false);
});

test("a PNG is whole when each chunk is as it was written", () => {
  assert.deepEqual(inspected(PNG), { format: "PNG", whole: true, pixels: 256 });
  cutAnywhere(PNG, 8);
  for (let place = 8; place < PNG.length; place += 1) {
    const damaged = PNG.slice();
    damaged[place] ^= 0x41;
    assert.equal(inspected(damaged).whole, false, `byte ${place}`);
  }
});

test("HEIC and AVIF are told from a film, and are whole when their boxes are", () => {
  const iso = (brand, ...boxes) => bytes([0, 0, 0, 16], "ftyp", brand, [0, 0, 0, 0], ...boxes);
  const box = [0, 0, 0, 10, ...bytes("mdat"), 1, 2];
  const long = [0, 0, 0, 1, ...bytes("mdat"), 0, 0, 0, 0, 0, 0, 0, 18, 1, 2];
  assert.deepEqual(inspected(iso("heic", box)), { format: "HEIC", whole: true, pixels: 0 });
  assert.deepEqual(inspected(iso("avif", long)), { format: "AVIF", whole: true, pixels: 0 });
  assert.equal(inspected(iso("mif1", [0, 0, 0, 0], "mdat", [1])).whole, true); // up to the end of the file
  assert.equal(inspected(iso("heic", box).slice(0, -1)).whole, false);
  assert.equal(inspected(iso("heic", long).slice(0, -1)).whole, false);
  assert.equal(inspected(iso("mp42", box)).format, null);
});

test("other formats are known by their names, and their ends where they have one", () => {
  const webp = bytes("RIFF", [6, 0, 0, 0], "WEBP", [1, 2]);
  assert.deepEqual(inspected(webp), { format: "WebP", whole: true, pixels: 0 });
  assert.equal(inspected(webp.slice(0, -1)).whole, false);
  assert.deepEqual(inspected(bytes("GIF89a and more;")), { format: "GIF", whole: true, pixels: 0 });
  assert.equal(inspected(bytes("GIF89a and more")).whole, false);
  const bmp = bytes("BM", [14, 0, 0, 0, 0, 0, 0, 0], [1, 2, 3, 4]);
  assert.equal(inspected(bmp).whole, true);
  assert.equal(inspected(bmp.slice(0, -1)).whole, false);
  for (const start of ["II*\0", "MM\0*"]) assert.equal(inspected(bytes(start, "12345678")).format, "TIFF");
  for (const text of ["%PDF-1.7 and more", "BMI is no picture", "hello"]) assert.equal(inspected(bytes(text)).format, null);
});

test("why a whole file cannot be decoded, in one word", () => {
  const reasons = [[null, 0], ["HEIC", 0], ["TIFF", 0], ["WebP", 0], ["JPEG", 12e6], ["JPEG", 200e6], ["PNG", 200e6]];
  assert.deepEqual(
    reasons.map(([format, pixels]) => undecodable(format, pixels)),
    ["NOT_AN_IMAGE", "HEIC", "IMAGE_NOT_SUPPORTED", "IMAGE_NOT_SUPPORTED", "IMAGE_DAMAGED", "IMAGE_TOO_LARGE", "IMAGE_TOO_LARGE"],
  );
});
