import assert from "node:assert/strict";
import { test } from "node:test";

import { isComposing, keyOf } from "../../../../actors/pages/static/proctor/toolbar/keyboard.js";

test("a shortcut is the key of its letter, whatever the keyboard is set to", () => {
  /** @type {[Partial<KeyboardEvent>, string][]} */
  const presses = [
    [{ key: "m", code: "KeyM" }, "m"],
    [{ key: "M", code: "KeyM" }, "m"], // caps lock
    [{ key: "m", code: "Semicolon" }, "m"], // AZERTY: the letter counts, not the place
    [{ key: ",", code: "KeyM" }, ","],
    [{ key: "ㅡ", code: "KeyM" }, "m"],
    [{ key: "ㄹ", code: "KeyF" }, "f"],
    [{ key: "ㄲ", code: "KeyR", shiftKey: true }, "r"],
    [{ key: "ㅁ", code: "KeyZ" }, "z"], // a Korean layout with three sets of letters
    [{ key: "ь", code: "KeyM" }, "m"],
    [{ key: "ㅡ", code: "" }, "m"], // a remote desktop
    [{ key: "ㅋ", code: "" }, "z"],
    [{ key: "Process", code: "KeyM", keyCode: 229 }, "m"],
    [{ key: "Process", code: "Slash", keyCode: 229 }, "/"],
    [{ key: "Process", code: "Slash", shiftKey: true, keyCode: 229 }, "?"],
    [{ key: "Unidentified", code: "Digit3" }, "3"],
    [{ key: "Process", code: "Escape", keyCode: 229 }, "Escape"],
    [{ key: "／", code: "Slash" }, "/"], // full-width
    [{ key: "Escape", code: "Escape" }, "Escape"],
    [{ key: "ArrowLeft", code: "ArrowLeft" }, "ArrowLeft"],
    [{ key: "?", code: "Minus", shiftKey: true }, "?"],
    [{}, ""], // the browser has filled in a field
  ];
  for (const [press, key] of presses) assert.equal(keyOf({ code: "", shiftKey: false, ...press }), key, JSON.stringify(press));
});

test("a key that a composition takes is no key of the page, also in Safari, which ends the composition first", () => {
  assert.ok(isComposing({ isComposing: true, keyCode: 27 }));
  assert.ok(isComposing({ isComposing: false, keyCode: 229 }));
  assert.ok(!isComposing({ isComposing: false, keyCode: 27 }));
});
