// The list that is printed or saved: cells as the server writes them (tests/support/csv_cells.json), and what is filtered.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { useTexts } from "../../../../actors/pages/static/common/i18n.js";
import { texts as wall } from "../../../../actors/pages/static/proctor/locales/en.js";
import { csvCell, csvTable } from "../../../../actors/pages/static/proctor/toolbar/listing/csv.js";
import { filterText, stamp } from "../../../../actors/pages/static/proctor/toolbar/listing/table.js";
import { texts as list } from "../../../../actors/pages/static/proctor/toolbar/listing/texts.en.js";

useTexts({ en: { ...wall, ...list } });

test("no cell is a formula, and each is written as by the server", () => {
  const cells = JSON.parse(readFileSync(new URL("../../../support/csv_cells.json", import.meta.url), "utf8"));
  for (const [text, cell] of cells) assert.equal(csvCell(text), cell, text);
  assert.equal(csvCell("a\u202eb"), "a\\u202eb");
  assert.equal(csvTable([["ID", "=A"], ["E1", 7]]), "\ufeffID,'=A\r\nE1,7\r\n");
});

test("a saved time is one that every spreadsheet reads", () => {
  assert.equal(stamp(new Date(2026, 0, 3, 4, 5, 6).getTime()), "2026-01-03 04:05:06");
  assert.equal(stamp(null), "");
});

test("the paper says which examinees are on it", () => {
  const view = { states: new Set(["lost", "exhausted"]), marks: new Set(), labels: new Map([["room", new Set(["A"])]]), search: " kim " };
  assert.equal(filterText(view, null), "Lost or Shut out; Room A; search “kim”");
  assert.equal(filterText({}, null), "");
});
