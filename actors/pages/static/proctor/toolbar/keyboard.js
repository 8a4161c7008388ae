/**
 * The shortcut keys of the wall: `/` to the search, `f` to the filters, `m` for the alerts, `?` for help,
 * Escape to close. Single letters can be switched off (WCAG 2.1.4), and are ignored in text fields. They work under a Korean
 * input method, too; a key that ends or cancels a composition does nothing else.
 *
 * @typedef {{controls: import("./controls.js").Controls, tiles: import("../tiles/tiles.js").Tiles,
 *   panel: import("../panel/panel.js").Panel, list: import("../incidents/list.js").IncidentList}} Parts
 */

import { element } from "../../common/elements.js";
import { latinKeys } from "../../common/korean-keys.js";

/**
 * Return which key was pressed: a small letter, a digit, a sign, or the name of another key. A letter of another alphabet
 * stands for the key that it is on (`code`), and so does "Process", which a browser says while an input method is active.
 * @param {Pick<KeyboardEvent, "key" | "code" | "shiftKey">} event
 */
export function keyOf({ key, code, shiftKey }) {
  if (!key) return ""; // a browser that fills in a field says that a key was pressed
  const typed = key.normalize("NFKC"); // full-width letters
  if (/^[!-~]$/.test(typed)) return typed.toLowerCase();
  if (/^[A-Z]/.test(typed) && typed !== "Process" && typed !== "Unidentified") return typed;
  const [, place] = /^(?:Key|Digit)(\w)$/.exec(code) ?? [];
  if (place) return place.toLowerCase();
  if (code === "Slash") return shiftKey ? "?" : "/";
  return code || latinKeys(key);
}

/**
 * Whether a key in a text field belongs to an input method. Safari ends the composition before the key, but gives it the code
 * 229 as well.
 * @param {Pick<KeyboardEvent, "isComposing" | "keyCode">} event
 */
export function isComposing({ isComposing: composing, keyCode }) {
  return composing || keyCode === 229;
}

/** Listen for the shortcuts. @param {Parts} parts of the wall */
export function listenForKeys(parts) {
  const { controls, tiles } = parts;
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const { target } = event;
    const typing = target instanceof Element && target.matches("input:not([type=checkbox]), textarea, select");
    if (typing && isComposing(event)) return;
    const key = keyOf(event);
    if (key === "Escape") escape(target, parts);
    else if (!typing && controls.shortcuts && shortcut(key, controls)) event.preventDefault();
    else if (target === element("search") && key === "ArrowDown" && tiles.focus()) event.preventDefault();
  });
}

/** Do what a shortcut is for. @param {string} key @param {Parts["controls"]} controls @returns {boolean} whether it is one */
function shortcut(key, controls) {
  if (key === "/") element("search").focus();
  else if (key === "f") element("filters").querySelector("button")?.focus();
  else if (key === "m") controls.toggleSound();
  else if (key === "?") controls.help();
  else return false;
  return true;
}

/**
 * Close one thing: the typed search, else the panel, else the chosen incident, else the filters.
 * @param {EventTarget | null} target @param {Parts} parts
 */
function escape(target, { controls, panel, list }) {
  if (target === element("search") && controls.search) controls.clear();
  else if (panel.open) panel.close();
  else if (list.only !== null) list.choose(null);
  else controls.clear();
}
