import assert from "node:assert/strict";
import { test } from "node:test";

import { fitDots, rowLabel } from "../../../../actors/pages/static/proctor/tiles/fit.js";

const LIMITS = { least: 16, most: 32, spare: 80, otherwise: 24 };

test("2,000 dots fit beside and below everything else of a small laptop", () => {
  const { pitch, columns } = fitDots({ count: 2000, width: 1264, height: 571, ...LIMITS });
  assert.equal(columns, 70, "a round number");
  assert.ok(Math.ceil(2000 / columns) * pitch <= 491);
  assert.ok(columns * pitch <= 1264);
});

test("dots are as large as they can be; where they do not fit, they have the size for a finger", () => {
  assert.deepEqual(fitDots({ count: 30, width: 1264, height: 571, ...LIMITS }), { pitch: 32, columns: 35 });
  assert.deepEqual(fitDots({ count: 2000, width: 310, height: 200, ...LIMITS }), { pitch: 24, columns: 12 });
  assert.deepEqual(fitDots({ count: 2000, width: 1264, height: 540, ...LIMITS }).pitch, 16, "without room to spare");
  assert.deepEqual(fitDots({ count: 2000, width: 1264, height: 440, ...LIMITS }).pitch, 16, "nearly");
  assert.deepEqual(fitDots({ count: 0, width: 5, height: -100, ...LIMITS }), { pitch: 24, columns: 1 });
});

test("a row is named by the end of a long id", () => {
  assert.equal(rowLabel("E0001"), "E0001");
  assert.equal(rowLabel("2026-11-SEOUL-00071"), "…OUL-00071");
});
