/**
 * One place on the wall and the examinee that it shows. It updates only what has changed.
 *
 * @typedef {import("../examinees.js").Person} Person
 * @typedef {"large" | "small" | "dots"} Size
 */

import { language, t } from "../../common/i18n.js";
import { describe, nameOf } from "../texts.js";
import { STATES } from "../examinees.js";

/** What is written on a tile. What does not fit on it is in its name, for screen readers and as a tooltip. */
const PARTS = Object.freeze({
  large: /** @type {const} */ (["id", "name", "word", "clock", "more"]),
  small: /** @type {const} */ (["id", "word", "clock"]),
  dots: /** @type {const} */ ([]),
});

/** So many letters always fit; CJK letters count twice. */
const SHORT = 10;
const LATIN = /^[\u0000-\u024f\u2010-\u2027]*$/;

export class Tile {
  /** @param {Size} size */
  constructor(size) {
    this._size = size;
    /** The list item; its place in the list does not change with whom it shows. */
    this.slot = document.createElement("div");
    this.slot.className = "slot";
    this.slot.setAttribute("role", "listitem");
    this.button = document.createElement("button");
    this.button.type = "button";
    this.button.className = "tile";
    this.button.tabIndex = -1;
    this.slot.append(this.button);
    /** What the icon is the background of: thousands of dots are an element less each. @type {HTMLElement} */
    this._icon = this.button;
    if (size !== "dots") {
      this._icon = document.createElement("i");
      this._icon.className = "icon";
      this.button.append(this._icon);
    }
    /** @type {[keyof ReturnType<typeof said>, Text][]} */
    this._texts = PARTS[size].map((part) => {
      const element = span(`tile-${part}`);
      const text = document.createTextNode("");
      element.append(text);
      this.button.append(element);
      return [part, text];
    });
    if (size === "large") {
      // Id and name share a line, which is theirs alone: what is beside the other lines takes nothing from it.
      const who = span("tile-who");
      who.append(...this.button.querySelectorAll(".tile-id, .tile-name"));
      this._icon.after(who);
    }
    this._shown = { id: "", state: "", label: "", language: "", at: -1, of: -1, stop: false };
    /** @type {string | null} */ this._name = null;
  }

  /** The examinee that it shows. */
  get id() {
    return this._shown.id;
  }

  /** Its place in the list, from 0. */
  get at() {
    return this._shown.at;
  }

  /** @param {number} at @param {number} of how many there are */
  put(at, of) {
    const shown = this._shown;
    if (shown.at !== at) this.slot.setAttribute("aria-posinset", String(at + 1));
    if (shown.of !== of) this.slot.setAttribute("aria-setsize", String(of));
    [shown.at, shown.of] = [at, of];
  }

  /** Whether it is the one in the tab order. @param {boolean} stop */
  set stop(stop) {
    if (this._shown.stop === stop) return;
    this._shown.stop = stop;
    this.button.tabIndex = stop ? 0 : -1;
  }

  /** @param {Person} person @param {number} now ms, by the servers' clock */
  show(person, now) {
    const shown = this._shown;
    const { id, state, name } = person;
    const same = shown.id === id && shown.state === state && this._name === name && shown.language === language();
    if (same && this._size === "dots") return; // it has no countdown
    if (shown.id !== id) this.button.dataset.id = id;
    if (shown.state !== state) {
      this.button.dataset.state = state;
      this.button.dataset.tone = STATES[state].tone;
      this._icon.dataset.icon = state;
    }
    [shown.id, shown.state, this._name, shown.language] = [id, state, name, language()];
    if (this._size === "dots") {
      this._label(nameOf(person), t(`state.${state}`));
      return;
    }
    const words = detailOf(person, now);
    for (const [part, text] of this._texts) {
      if (text.data === words[part]) continue;
      text.data = words[part];
      // Cutting off a text costs the browser a layer of its own: only long texts get it.
      text.parentElement?.classList.toggle("long", isLong(text.data));
    }
    if (this._size === "small") this._label(nameOf(person), words.word, words.clock, words.more);
  }

  /** What it says to screen readers, when not all of it is written there. @param {...string} words */
  _label(...words) {
    const label = words.filter(Boolean).join(" · ");
    if (this._shown.label !== label) this.button.setAttribute("aria-label", (this._shown.label = label));
  }
}

/** @param {Person} person @param {number} now */
function detailOf(person, now) {
  return { id: person.id, name: person.name ?? "", ...describe(person, now) };
}

/** @param {string} className */
function span(className) {
  return Object.assign(document.createElement("span"), { className });
}

/** @param {string} text */
function isLong(text) {
  return text.length * (LATIN.test(text) ? 1 : 2) > SHORT;
}
