// Events about a connection: what must not count.

import assert from "node:assert/strict";
import { test } from "node:test";
import { decode } from "../../../../actors/pages/static/client/frames.js";

const event = (type, version, more = {}) => ({ type, data: { planId: "P001", examineeId: "E1", version, ...more } });

test("an event about a connection without a version, or with none that counts, is no message", () => {
  for (const version of [undefined, null, "7", 7.5, -1, 2 ** 53, true]) {
    const { messages, malformed } = decode(JSON.stringify(event("examinee_connected", version)));
    assert.deepEqual([messages.length, malformed], [0, 1], String(version));
  }
  assert.equal(decode(JSON.stringify(event("examinee_connected", 7))).messages.length, 1);
});
