/**
 * The tiles: a list of any length of which only what can be seen is in the document.
 *
 * Tiles are placed by their number, so an update costs what it changes and not the length of the list. The arrows move
 * from tile to tile (one of them is in the tab order), and the focus stays with its examinee when the order changes.
 *
 * @typedef {import("./wall-people.js").Person} Person
 */

import { describe, nameOf } from "./wall-text.js";
import { STATES } from "./wall-people.js";

/** Rows above and below what can be seen. */
const SPARE_ROWS = 2;
const SVG = "http://www.w3.org/2000/svg";

/** One tile; it writes only what differs from what it shows. */
class Tile {
  constructor() {
    this.slot = document.createElement("div");
    this.slot.className = "slot";
    this.slot.setAttribute("role", "listitem");
    this.button = document.createElement("button");
    this.button.type = "button";
    this.button.className = "tile";
    this.button.tabIndex = -1;
    const icon = document.createElementNS(SVG, "svg");
    icon.setAttribute("class", "icon");
    icon.setAttribute("viewBox", "0 0 16 16");
    icon.setAttribute("aria-hidden", "true");
    this._path = document.createElementNS(SVG, "path");
    icon.append(this._path);
    this._texts = ["id", "name", "word", "clock", "more"].map((part) => {
      const text = document.createElement("span");
      text.className = `tile-${part}`;
      return text;
    });
    this.button.append(icon, ...this._texts);
    this.slot.append(this.button);
    /** @type {string[]} */ this._shown = ["", "", "", "", ""];
    this._place = "";
    this._state = "";
    this.id = "";
    this.at = -1;
  }

  /** @param {Person} person @param {number} now @param {boolean} titled whether the words do not fit on it */
  show(person, now, titled) {
    const { word, clock, more } = describe(person, now);
    if (this.id !== person.id) {
      this.id = person.id;
      this.button.dataset.id = person.id;
    }
    if (this._state !== person.state) {
      this._state = person.state;
      this.button.dataset.state = person.state;
      this.button.dataset.tone = STATES[person.state].tone;
      this._path.setAttribute("d", STATES[person.state].path);
    }
    [person.id, person.name ?? "", word, clock, more].forEach((text, k) => {
      if (this._shown[k] === text) return;
      this._shown[k] = text;
      this._texts[k].textContent = text;
    });
    const title = titled ? [nameOf(person), word, clock].filter(Boolean).join(" · ") : "";
    if (this.button.title !== title) this.button.title = title;
  }

  /** @param {number} at @param {number} of @param {number} x @param {number} y */
  put(at, of, x, y) {
    const place = `translate(${x}px, ${y}px)`;
    if (this._place !== place) {
      this._place = place;
      this.slot.style.transform = place;
    }
    if (this.at !== at) this.slot.setAttribute("aria-posinset", String(at + 1));
    this.at = at;
    const size = String(of);
    if (this.slot.getAttribute("aria-setsize") !== size) this.slot.setAttribute("aria-setsize", size);
  }
}

/** Fires `open` (detail: the examinee's id) when one is chosen. */
export class Tiles extends EventTarget {
  /** @param {HTMLElement} root @param {() => number} now */
  constructor(root, now) {
    super();
    this._root = root;
    this._now = now;
    /** @type {readonly Person[]} */ this._people = [];
    /** @type {Map<string, number>} */ this._places = new Map();
    /** @type {Map<string, Tile>} */ this._tiles = new Map();
    /** @type {Tile[]} */ this._free = [];
    this._columns = 1;
    this._width = 0;
    this._pitch = 1;
    this._height = 1;
    this._dots = false;
    /** The tile in the tab order. @type {string | null} */ this._current = null;
    /** When a person last moved over the tiles: they should not run away then. */
    this.touched = -Infinity;
    new ResizeObserver(() => this.measure()).observe(root);
    addEventListener("scroll", () => this._render(), { passive: true });
    addEventListener("resize", () => this._render(), { passive: true });
    root.addEventListener("click", (event) => this._clicked(event));
    root.addEventListener("keydown", (event) => this._key(event));
    root.addEventListener("focusin", (event) => this._focused(event));
    root.addEventListener("pointermove", () => (this.touched = performance.now()), { passive: true });
  }

  /** How many tiles are in the document. */
  get drawn() {
    return this._tiles.size;
  }

  /** The size of a tile comes from the style sheet: call it when that has changed. */
  measure() {
    const style = getComputedStyle(this._root);
    const rem = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const read = (/** @type {string} */ name) => parseFloat(style.getPropertyValue(name)) * rem;
    const [least, height, gap] = [read("--tile-width"), read("--tile-height"), read("--tile-gap")];
    const space = this._root.clientWidth;
    this._columns = Math.max(1, Math.floor((space + gap) / (least + gap)));
    this._width = (space - gap * (this._columns - 1)) / this._columns;
    this._pitch = this._width + gap;
    this._height = height + gap;
    this._dots = document.documentElement.dataset.size === "dots";
    this._root.style.setProperty("--slot-width", `${this._width}px`);
    this._stretch();
    this._render();
  }

  /** Show these, in this order. @param {readonly Person[]} people */
  order(people) {
    this._people = people;
    this._places = new Map(people.map((person, at) => [person.id, at]));
    if (this._current === null || !this._places.has(this._current)) this._current = people[0]?.id ?? null;
    this._stretch();
    this._render();
  }

  _stretch() {
    const rows = Math.ceil(this._people.length / this._columns);
    this._root.style.height = `${rows * this._height}px`;
  }

  /** These examinees have changed. @param {Iterable<string>} ids */
  refresh(ids) {
    const now = this._now();
    for (const id of ids) {
      const tile = this._tiles.get(id);
      const at = this._places.get(id);
      if (tile && at !== undefined) tile.show(this._people[at], now, this._dots);
    }
  }

  /** Time has passed: whatever counts goes on. */
  tick() {
    this.refresh(this._tiles.keys());
  }

  _render() {
    const top = this._root.getBoundingClientRect().top;
    const first = Math.max(0, Math.floor(-top / this._height) - SPARE_ROWS) * this._columns;
    const last = Math.min(
      this._people.length,
      (Math.ceil((innerHeight - top) / this._height) + SPARE_ROWS) * this._columns,
    );
    const focused = document.activeElement?.closest("#tiles .tile");
    const kept = focused instanceof HTMLElement ? (focused.dataset.id ?? null) : null;
    const wanted = new Set(this._people.slice(first, last).map((person) => person.id));
    if (kept !== null && this._places.has(kept)) wanted.add(kept);
    for (const [id, tile] of this._tiles) {
      if (wanted.has(id)) continue;
      this._tiles.delete(id);
      tile.slot.remove();
      this._free.push(tile);
    }
    const now = this._now();
    // The document has the order that is seen, for screen readers; the tile with the focus stays where it is.
    let next = this._root.firstElementChild;
    const inOrder = [...wanted].sort((a, b) => (this._places.get(a) ?? 0) - (this._places.get(b) ?? 0));
    for (const id of inOrder) {
      const at = /** @type {number} */ (this._places.get(id));
      let tile = this._tiles.get(id);
      if (!tile) {
        tile = this._free.pop() ?? new Tile();
        this._tiles.set(id, tile);
      }
      tile.show(this._people[at], now, this._dots);
      tile.put(at, this._people.length, (at % this._columns) * this._pitch, Math.floor(at / this._columns) * this._height);
      tile.button.tabIndex = id === this._current ? 0 : -1;
      if (tile.slot === next) next = next.nextElementSibling;
      else if (id !== kept || !tile.slot.isConnected) this._root.insertBefore(tile.slot, next);
    }
    if (this._free.length > 500) this._free.length = 500;
  }

  // -- choosing ------------------------------------------------------------------------------------

  /** @param {Event} event */
  _clicked(event) {
    const tile = event.target instanceof Element ? event.target.closest(".tile") : null;
    if (tile instanceof HTMLElement && tile.dataset.id) {
      this.dispatchEvent(new CustomEvent("open", { detail: tile.dataset.id }));
    }
  }

  /** @param {FocusEvent} event */
  _focused(event) {
    const tile = event.target instanceof Element ? event.target.closest(".tile") : null;
    if (event.target === this._root) this.focus();
    if (!(tile instanceof HTMLElement) || !tile.dataset.id) return;
    if (this._current !== null) this._tiles.get(this._current)?.button.setAttribute("tabindex", "-1");
    this._current = tile.dataset.id;
    tile.tabIndex = 0;
  }

  /** @param {KeyboardEvent} event */
  _key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this._current === null) return;
    const page = Math.max(1, Math.floor(innerHeight / this._height) - 1) * this._columns;
    const at = this._places.get(this._current) ?? 0;
    /** @type {Record<string, number>} */
    const to = {
      ArrowLeft: at - 1,
      ArrowRight: at + 1,
      ArrowUp: at - this._columns,
      ArrowDown: at + this._columns,
      PageUp: Math.max(at % this._columns, at - page),
      PageDown: Math.min(this._people.length - 1, at + page),
      Home: 0,
      End: this._people.length - 1,
    };
    const goal = to[event.key];
    if (goal === undefined) return;
    event.preventDefault();
    this.touched = performance.now();
    if (goal >= 0 && goal < this._people.length) this.focus(this._people[goal].id);
  }

  /**
   * Give the focus to an examinee's tile (default: the one in the tab order), and bring it into view.
   * @param {string | null} [id]
   * @returns {boolean} whether it is on the wall
   */
  focus(id = this._current) {
    const at = id === null ? undefined : this._places.get(id);
    if (id === null || at === undefined) return false;
    this._current = id;
    const y = Math.floor(at / this._columns) * this._height;
    const top = this._root.getBoundingClientRect().top + y;
    const above = parseFloat(getComputedStyle(document.documentElement).scrollPaddingTop) || 0;
    if (top < above) scrollBy(0, top - above - 8);
    else if (top + this._height > innerHeight) scrollBy(0, top + this._height - innerHeight + 8);
    this._render();
    let tile = this._tiles.get(id);
    if (!tile) return false;
    tile.button.focus({ preventScroll: true });
    return true;
  }
}
