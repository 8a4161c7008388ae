/**
 * The settings of the wall: filters, search, order, size of the tiles, sound, keys. Stored for the next visit, except filters
 * and search, which would hide examinees unnoticed.
 *
 * @typedef {import("../examinees.js").State} State
 * @typedef {import("../examinees.js").Phase} Phase
 * @typedef {import("../examinees.js").Sort} Sort
 * @typedef {import("../tiles/tile.js").Size} Size
 */

import { languagePicker, t, useTexts } from "../../common/i18n.js";
import { element, setText } from "../../common/elements.js";
import { MARKS, ORDER, STATES } from "../examinees.js";
import { counted } from "../texts.js";
import { MARK_PATHS, MoreFilters } from "./more-filters.js";
import { texts as en } from "./texts.en.js";
import { texts as ko } from "./texts.ko.js";

const REMEMBERED = "examwire.wall";
const SOUND_ON = "M1 5h3l4-4v14l-4-4H1zM10 4.5a4.5 4.5 0 0 1 0 7zM10 1.5a7 7 0 0 1 0 13v-1.6a5.5 5.5 0 0 0 0-9.8z";
const SOUND_OFF = "M1 5h3l4-4v14l-4-4H1zM10 5l1-1 1.5 1.5L14 4l1 1-1.5 1.5L15 8l-1 1-1.5-1.5L11 9l-1-1 1.5-1.5z";
/** @type {readonly Sort[]} */
const SORTS = ["attention", "id", "name", "since"];
/**
 * Each size has an order of its own. The overview is a map: everybody keeps their place, and colours and shapes show
 * what has changed. With larger tiles only some fit on the screen, so those who need attention come first.
 * @type {Readonly<Record<Size, Sort>>}
 */
const SORTED = Object.freeze({ large: "attention", small: "attention", dots: "id" });
/** These filters are always shown while the exam is in a phase, also if no examinee is in the state. @type {Record<Phase, ReadonlySet<State>>} */
const ALWAYS = {
  BEFORE: new Set(["early", "notStarted"]),
  RUNNING: new Set(["exhausted", "lost", "waiting", "connected", "done", "never"]),
  OVER: new Set(["finished", "over"]),
};

useTexts({ en, ko });

/** Fires `change` when a setting has changed, `sound` when the alerts were switched on or off. */
export class Controls extends EventTarget {
  /** @param {import("../incidents/chime.js").Chime} chime */
  constructor(chime) {
    super();
    this._chime = chime;
    const stored = read();
    /** @type {Set<State>} */ this.states = new Set();
    this.search = "";
    this.size = /** @type {Size} */ (Object.hasOwn(SORTED, stored.size) ? stored.size : "large");
    /** @type {Record<Size, Sort>} */ this._sorts = { ...SORTED };
    for (const size of /** @type {Size[]} */ (Object.keys(SORTED))) {
      if (SORTS.includes(stored.sorts?.[size])) this._sorts[size] = stored.sorts[size];
    }
    /** Whether alerts are on: the sound, and the number in the title of the tab. */
    this.sound = stored.sound !== false;
    this.shortcuts = stored.shortcuts !== false;
    /** @type {Map<State | "all", HTMLButtonElement>} */ this._buttons = new Map();
    this._makeFilters();
    this.more = new MoreFilters();
    this.more.addEventListener("change", () => this._changed());
    this._wire();
    this.translate();
  }

  /** The order of the tiles in the size they have. */
  get sort() {
    return this._sorts[this.size];
  }

  // -- filters ---------------------------------------------------------------------------------------

  _makeFilters() {
    const group = element("filters");
    for (const state of /** @type {(State | "all")[]} */ (["all", ...ORDER])) {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "filter";
      button.dataset.state = state;
      if (state !== "all") {
        button.dataset.tone = STATES[state].tone;
        button.innerHTML = `<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="${STATES[state].path}" /></svg>`;
      }
      button.append(document.createElement("span"));
      button.addEventListener("click", () => this._toggle(state));
      this._buttons.set(state, button);
      group.append(button);
    }
  }

  /** @param {State | "all"} state */
  _toggle(state) {
    if (state === "all") this.states.clear();
    else if (!this.states.delete(state)) this.states.add(state);
    this._changed();
  }

  /** Draw the counts. @param {import("../examinees.js").People} people @param {Phase} phase where the exam is */
  count(people, phase) {
    const { counts } = people;
    const total = people.all.size;
    this.more.show(people);
    for (const [state, button] of this._buttons) {
      const pressed = state === "all" ? this.states.size === 0 : this.states.has(state);
      const count = state === "all" ? total : counts[state];
      button.setAttribute("aria-pressed", String(pressed));
      button.hidden = state !== "all" && count === 0 && !pressed && !ALWAYS[phase].has(state);
      button.classList.toggle("none", count === 0);
      const word = state === "all" ? t("filter.all") : t(`state.${state}`);
      setText(button.querySelector("span"), counted(word, count));
    }
  }

  /** Clear the search and the filters. @param {Iterable<State>} [states] to show only, from now on */
  clear(states = []) {
    this.states = new Set(states);
    this.more.clear();
    this.search = /** @type {HTMLInputElement} */ (element("search")).value = "";
    this._changed();
  }

  // -- settings --------------------------------------------------------------------------------------

  _wire() {
    const search = /** @type {HTMLInputElement} */ (element("search"));
    search.addEventListener("input", () => {
      this.search = search.value;
      this._changed();
    });
    const sort = /** @type {HTMLSelectElement} */ (element("sort"));
    sort.value = this.sort;
    sort.addEventListener("change", () => {
      this._sorts[this.size] = /** @type {Sort} */ (sort.value);
      this._changed();
    });
    const size = /** @type {HTMLSelectElement} */ (element("size"));
    size.value = this.size;
    size.addEventListener("change", () => {
      this.size = /** @type {Size} */ (size.value);
      sort.value = this.sort;
      document.documentElement.dataset.size = this.size;
      this._changed();
    });
    document.documentElement.dataset.size = this.size;
    const shortcuts = /** @type {HTMLInputElement} */ (element("shortcuts"));
    shortcuts.checked = this.shortcuts;
    shortcuts.addEventListener("change", () => {
      this.shortcuts = shortcuts.checked;
      this._keep();
    });
    element("help-button").addEventListener("click", () => this.help());
    languagePicker(/** @type {HTMLSelectElement} */ (element("language")));
    this._chime.addEventListener("change", () => this._drawSound());
    // Not when a pointer goes down: the button then has a shorter text, what is below it moves up, and the click that
    // follows when the pointer goes up hits nothing.
    let wasBlocked = this._chime.blocked;
    for (const type of /** @type {const} */ (["keydown", "click"])) {
      addEventListener(type, (event) => {
        // The click that a key makes comes after its keydown, which has allowed the sound already.
        if (type === "keydown" || event.detail > 0) wasBlocked = this._chime.blocked;
        void this._chime.allow();
      }, { capture: true });
    }
    element("sound").addEventListener("click", () => {
      if (!this.sound || !wasBlocked) this.toggleSound();
      else void this._chime.try();
      wasBlocked = false;
    });
    element("sound-try").addEventListener("click", () => void this._chime.try());
  }

  _changed() {
    this._keep();
    this.dispatchEvent(new Event("change"));
  }

  toggleSound() {
    this.sound = !this.sound;
    if (this.sound) void this._chime.try();
    this._keep();
    this._drawSound();
    this.dispatchEvent(new Event("sound"));
  }

  _drawSound() {
    const button = element("sound");
    const state = this.sound ? (this._chime.blocked ? "blocked" : "on") : "off";
    button.setAttribute("aria-pressed", String(this.sound));
    button.dataset.sound = state;
    button.title = t(state === "blocked" ? "sound.blocked.means" : "sound.key");
    button.querySelector("path")?.setAttribute("d", state === "on" ? SOUND_ON : SOUND_OFF);
    setText(button.querySelector(".tool-word"), t(`sound.${state}`));
  }

  help() {
    const dialog = /** @type {HTMLDialogElement} */ (element("help"));
    if (!dialog.open) dialog.showModal();
  }

  /** Draw in another language. */
  translate() {
    this._drawSound();
    const keys = [["← ↑ ↓ →", "arrows"], ["Enter", "enter"], ["/", "search"], ["f", "filter"], ["m", "sound"], ["?", "help"], ["Esc", "escape"]];
    element("keys").replaceChildren(...keys.map(([key, what]) => {
      const row = document.createElement("tr");
      const [name, meaning] = [document.createElement("th"), document.createElement("td")];
      name.scope = "row";
      name.append(Object.assign(document.createElement("kbd"), { textContent: key }));
      meaning.textContent = t(`key.${what}`);
      row.append(name, meaning);
      return row;
    }));
    const states = ORDER.map((state) => legendItem(STATES[state], t(`state.${state}`), t(`means.${state}`)));
    const marks = MARKS.map((mark) => legendItem({ tone: "warn", path: MARK_PATHS[mark] }, t(`mark.${mark}`), t(`means.${mark}`)));
    element("legend").replaceChildren(...states, ...marks);
  }

  _keep() {
    const { size, _sorts: sorts, sound, shortcuts } = this;
    try {
      localStorage.setItem(REMEMBERED, JSON.stringify({ size, sorts, sound, shortcuts }));
    } catch {
      // Storage is blocked: the settings last until the page is closed.
    }
  }
}

/** Create an item of the legend. @param {{tone: string, path: string}} look @param {string} word @param {string} meaning */
function legendItem({ tone, path }, word, meaning) {
  const item = document.createElement("li");
  item.dataset.tone = tone;
  item.innerHTML = `<svg class="icon" viewBox="0 0 16 16" aria-hidden="true"><path d="${path}" /></svg><span><strong></strong> <span></span></span>`;
  setText(item.querySelector("strong"), `${word}:`);
  setText(item.querySelector("span > span"), meaning);
  return item;
}

/** @returns {Record<string, any>} the stored settings, unchecked */
function read() {
  try {
    const stored = JSON.parse(localStorage.getItem(REMEMBERED) ?? "{}");
    return typeof stored === "object" && stored !== null ? stored : {};
  } catch {
    return {};
  }
}
