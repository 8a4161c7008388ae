/**
 * The tiles: a list of any length of which only what can be seen is in the document.
 *
 * Tiles are placed by their number, so an update costs what it changes and not the length of the list. The arrows move
 * from tile to tile (one of them is in the tab order), and the focus stays with its examinee when the order changes.
 *
 * @typedef {import("./wall-people.js").Person} Person
 */

import { t } from "./i18n.js";
import { describe, nameOf } from "./wall-text.js";
import { STATES } from "./wall-people.js";

/** Rows above and below what can be seen. */
const SPARE_ROWS = 2;

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
    this._icon = document.createElement("i");
    this._icon.className = "icon";
    this._texts = ["id", "name", "word", "clock", "more"].map((part) => {
      const text = document.createElement("span");
      text.className = `tile-${part}`;
      return text;
    });
    this.button.append(this._icon, ...this._texts);
    this.slot.append(this.button);
    /** @type {string[]} */ this._shown = ["", "", "", "", ""];
    this._x = this._y = -1;
    this._state = this._title = "";
    this.id = "";
    this.at = -1;
  }

  /** @param {Person} person @param {number} now @param {boolean} titled whether the words do not fit on it */
  show(person, now, titled) {
    if (this.id !== person.id) {
      this.id = person.id;
      this.button.dataset.id = person.id;
    }
    if (this._state !== person.state) {
      this._state = person.state;
      this.button.dataset.state = person.state;
      this.button.dataset.tone = STATES[person.state].tone;
      this._icon.style.backgroundImage = `var(--icon-${person.state})`;
    }
    const title = titled ? `${nameOf(person)} · ${t(`state.${person.state}`)}` : "";
    if (this._title !== title) this.button.title = this._title = title;
    if (titled) return;
    const { word, clock, more } = describe(person, now);
    [person.id, person.name ?? "", word, clock, more].forEach((text, k) => {
      if (this._shown[k] === text) return;
      this._shown[k] = text;
      this._texts[k].textContent = text;
    });
  }

  /** @param {number} at @param {number} of @param {number} x @param {number} y */
  put(at, of, x, y) {
    // Not by `transform`: that makes each tile a thing of its own to whoever puts the layers together, in each frame.
    if (this._x !== x) this.slot.style.left = `${x}px`;
    if (this._y !== y) this.slot.style.top = `${y}px`;
    [this._x, this._y] = [x, y];
    if (this.at !== at) this.slot.setAttribute("aria-posinset", String(at + 1));
    this.at = at;
    const size = String(of);
    if (this.slot.getAttribute("aria-setsize") !== size) this.slot.setAttribute("aria-setsize", size);
  }
}

/**
 * The indices of a longest increasing run of numbers (not of neighbours): what need not be moved to sort them.
 * @param {readonly number[]} numbers
 * @returns {number[]}
 */
export function longestRun(numbers) {
  /** Of each length, the index of the least number that a run of it ends with. @type {number[]} */
  const ends = [];
  /** @type {number[]} */
  const previous = [];
  numbers.forEach((number, index) => {
    let [low, high] = [0, ends.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (numbers[ends[middle]] < number) low = middle + 1;
      else high = middle;
    }
    previous[index] = low > 0 ? ends[low - 1] : -1;
    ends[low] = index;
  });
  const run = [];
  for (let index = ends.at(-1) ?? -1; index >= 0; index = previous[index]) run.push(index);
  return run.reverse();
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
    const before = [...this._tiles.values()];
    for (const id of wanted) {
      const at = /** @type {number} */ (this._places.get(id));
      let tile = this._tiles.get(id);
      if (!tile) {
        tile = this._free.pop() ?? new Tile();
        this._tiles.set(id, tile);
      }
      tile.show(this._people[at], now, this._dots);
      tile.put(at, this._people.length, (at % this._columns) * this._pitch, Math.floor(at / this._columns) * this._height);
      tile.button.tabIndex = id === this._current ? 0 : -1;
    }
    this._arrange(before, kept);
    if (this._free.length > 500) this._free.length = 500;
  }

  /**
   * Give the document the order that is seen, for screen readers. Moving an element costs far more than changing it, so
   * the longest run that is in order already stays, and with it the tile that has the focus (moved, it would lose it).
   * @param {Tile[]} before those that are in the document, in its order
   * @param {string | null} focused
   */
  _arrange(before, focused) {
    const stay = new Set(longestRun(before.map((tile) => tile.at)).map((at) => before[at]));
    const order = [...this._tiles.values()].sort((a, b) => a.at - b.at);
    let next = null;
    for (const tile of order.reverse()) {
      if (!stay.has(tile) && (tile.id !== focused || !tile.slot.isConnected)) this._root.insertBefore(tile.slot, next);
      next = tile.slot;
    }
    this._tiles = new Map(order.reverse().map((tile) => [tile.id, tile]));
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
