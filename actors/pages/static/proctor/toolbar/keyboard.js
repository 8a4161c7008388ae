/**
 * The shortcut keys of the wall: `/` to the search, `f` to the filters, `m` for the alerts, `?` for help,
 * Escape to close. Single letters can be switched off (WCAG 2.1.4), and are ignored in text fields.
 *
 * @typedef {{controls: import("./controls.js").Controls, tiles: import("../tiles/tiles.js").Tiles,
 *   panel: import("../panel/panel.js").Panel, list: import("../incidents/list.js").IncidentList}} Parts
 */

import { element } from "../../common/elements.js";

/** Listen for the shortcuts. @param {Parts} parts of the wall */
export function listenForKeys(parts) {
  const { controls, tiles } = parts;
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const { target } = event;
    const typing = target instanceof Element && target.matches("input:not([type=checkbox]), textarea, select");
    if (event.key === "Escape") escape(target, parts);
    else if (!typing && controls.shortcuts && shortcut(event.key, controls)) event.preventDefault();
    else if (target === element("search") && event.key === "ArrowDown" && tiles.focus()) event.preventDefault();
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
