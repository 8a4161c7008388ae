/**
 * How large the dots of the overview are, so that all of them fit into the window. Pure.
 */

/** Sizes are tried in steps of so many px. */
const STEP = 0.5;

/**
 * Choose the largest distance between dots with which all fit; `otherwise`, if they do not fit at all. Where there are many
 * columns, their number is round: the ids at the beginning of the rows are easier to count from.
 * @param {{count: number, width: number, height: number, least: number, most: number, otherwise: number}} given lengths in px
 * @returns {{pitch: number, columns: number}} `pitch`: from one dot to the next, in px
 */
export function fitDots({ count, width, height, least, most, otherwise }) {
  for (let pitch = most; pitch >= least; pitch -= STEP) {
    const columns = round(width / pitch);
    if (Math.ceil(count / columns) * pitch <= height) return { pitch, columns };
  }
  return { pitch: otherwise, columns: round(width / otherwise) };
}

/** Round a number of columns down. @param {number} columns */
function round(columns) {
  const unit = columns >= 50 ? 10 : columns >= 20 ? 5 : 1;
  return Math.max(1, Math.floor(columns / unit) * unit);
}

/** The label of a row has at most so many letters. */
const LABEL_LETTERS = 10;

/** Return an id as the label of a row: the end of a long one, which differs from row to row. @param {string} id */
export function rowLabel(id) {
  return id.length > LABEL_LETTERS ? `…${id.slice(1 - LABEL_LETTERS)}` : id;
}
