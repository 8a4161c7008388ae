/**
 * The rows of the wall that are in the document.
 *
 * A tile belongs to a place and shows whoever stands there: a new order changes what some tiles say, but moves no
 * element and lays nothing out anew. A row is a layer of its own to the browser, so a change in it paints this row and
 * no other. When there is much to write it takes some frames, row by row, so that nothing on the page waits for it.
 *
 * Only the tile that has the focus goes where its examinee goes, and what is around it makes room: taken out of the
 * document it would lose the focus.
 *
 * @typedef {import("../examinees.js").Person} Person
 * @typedef {import("./tile.js").Size} Size
 */

import { Tile } from "./tile.js";

/** So many ms of a frame are for writing; what the browser makes of that takes some three times as long. */
const WRITE_MS = 4;

class Row {
  constructor() {
    this.element = document.createElement("div");
    this.element.className = "tile-row";
    this.element.setAttribute("role", "presentation");
    /** @type {Tile[]} */ this.tiles = [];
    this.at = -1;
  }

  /** Let it have so many tiles. @param {number} count @param {Size} size */
  fit(count, size) {
    while (this.tiles.length > count) this.tiles.pop()?.slot.remove();
    while (this.tiles.length < count) {
      const tile = new Tile(size);
      this.tiles.push(tile);
      this.element.append(tile.slot);
    }
  }
}

export class Rows {
  /** @param {HTMLElement} root @param {() => number} now ms, by the servers' clock */
  constructor(root, now) {
    this._root = root;
    this._now = now;
    /** By their number. @type {Map<number, Row>} */ this._rows = new Map();
    /** @type {Size} */ this._size = "large";
    this._columns = 1;
    this._pitch = 1;
    /** @type {readonly Person[]} */ this._people = [];
    /** @type {Tile | null} */ this._stop = null;
    /** Those that show an earlier order yet. @type {Set<Row>} */ this._late = new Set();
    this._writing = false;
  }

  /**
   * How the tiles stand.
   * @param {Size} size
   * @param {number} columns
   * @param {number} pitch from a row to the next, in px
   */
  shape(size, columns, pitch) {
    if (size !== this._size) {
      for (const row of this._rows.values()) row.element.remove();
      this._rows.clear();
      this._late.clear();
      this._stop = null;
    }
    [this._size, this._columns, this._pitch] = [size, columns, pitch];
    for (const row of this._rows.values()) row.element.style.top = `${row.at * pitch}px`;
  }

  /** How many tiles are in the document. */
  get drawn() {
    return [...this._rows.values()].reduce((sum, row) => sum + row.tiles.length, 0);
  }

  /** The tile at a place, if it is drawn; it shows who stands there now. @param {number} at @returns {Tile | undefined} */
  tile(at) {
    const row = this._rows.get(Math.floor(at / this._columns));
    if (row && this._late.has(row)) this._fill(row);
    return row?.tiles[at % this._columns];
  }

  /** All that show the latest order. @returns {Iterable<Tile>} */
  *tiles() {
    for (const row of this._rows.values()) if (!this._late.has(row)) yield* row.tiles;
  }

  /**
   * Draw these rows and no others. A row that is drawn already is left as it is.
   * @param {readonly number[]} wanted
   */
  view(wanted) {
    const kept = new Set(wanted);
    const free = [...this._rows.values()].filter((row) => !kept.has(row.at));
    for (const row of free) this._rows.delete(row.at);
    let moved = free.length > 0;
    for (const at of wanted) {
      if (this._rows.has(at)) continue;
      const row = free.pop() ?? new Row();
      this._place(row, at);
      this._late.add(row);
      moved = true;
    }
    for (const row of free) {
      row.element.remove();
      this._late.delete(row);
    }
    if (moved) this._inOrder(null);
    this._write();
  }

  /**
   * Show these people, in the rows that are drawn and in `wanted`.
   * @param {readonly Person[]} people
   * @param {readonly number[]} wanted
   * @param {number} current the place of the tile in the tab order; where the focus goes if it is on a tile
   */
  show(people, wanted, current) {
    this._people = people;
    const focused = document.activeElement;
    const held = [...this._rows.values()].find((row) => row.tiles.some((tile) => tile.button === focused));
    if (held && people.length > 0) this._carry(held, held.tiles.findIndex((tile) => tile.button === focused), current);
    for (const row of this._rows.values()) this._late.add(row);
    this.view(wanted);
    this.stopAt(current);
  }

  /** Write what fits into this frame, the rest in the next ones. */
  _write() {
    const began = performance.now();
    for (const row of this._late) {
      this._fill(row);
      if (performance.now() - began > WRITE_MS) break;
    }
    if (this._late.size === 0 || this._writing) return;
    this._writing = true;
    requestAnimationFrame(() => {
      this._writing = false;
      this._write();
    });
  }

  /** The tile at this place is the one in the tab order. @param {number} at */
  stopAt(at) {
    const tile = this.tile(at) ?? null;
    if (this._stop !== null && this._stop !== tile) this._stop.stop = false;
    if (tile !== null) tile.stop = true;
    this._stop = tile;
  }

  /** @param {Row} row @param {number} at */
  _place(row, at) {
    row.at = at;
    row.element.style.top = `${at * this._pitch}px`;
    this._rows.set(at, row);
  }

  /** @param {Row} row */
  _fill(row) {
    this._late.delete(row);
    const now = this._now();
    const [first, of] = [row.at * this._columns, this._people.length];
    row.fit(Math.max(0, Math.min(this._columns, of - first)), this._size);
    row.tiles.forEach((tile, column) => {
      tile.put(first + column, of);
      tile.show(this._people[first + column], now);
    });
  }

  /**
   * Let a tile stand at another place, by moving everything else: its row becomes the row there.
   * @param {Row} row @param {number} column @param {number} to
   */
  _carry(row, column, to) {
    const [from, goal] = [row.at, Math.floor(to / this._columns)];
    if (from !== goal) {
      const other = this._rows.get(goal);
      this._rows.delete(from);
      if (other) this._place(other, from);
      this._place(row, goal);
      this._inOrder(row);
    }
    const goalColumn = to % this._columns;
    if (column === goalColumn) return;
    row.fit(Math.max(row.tiles.length, goalColumn + 1), this._size);
    const [tile] = row.tiles.splice(column, 1);
    row.tiles.splice(goalColumn, 0, tile);
    arrange(row.element, row.tiles.map((one) => one.slot), tile.slot);
  }

  /** Give the document the order that is seen, for screen readers. @param {Row | null} held is not moved */
  _inOrder(held) {
    const rows = [...this._rows.values()].sort((a, b) => a.at - b.at);
    const focused = held?.element ?? rows.find((row) => row.element.contains(document.activeElement))?.element ?? null;
    arrange(this._root, rows.map((row) => row.element), focused);
  }
}

/**
 * Put elements in order; one of them is not moved. @param {Element} parent @param {Element[]} elements
 * @param {Element | null} held
 */
function arrange(parent, elements, held) {
  /** @type {Element | null} */
  let next = null;
  for (const element of elements.reverse()) {
    if (element !== held && (element.parentNode !== parent || element.nextSibling !== next)) parent.insertBefore(element, next);
    next = element;
  }
}
