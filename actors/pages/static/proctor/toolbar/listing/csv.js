/**
 * A CSV table for people, by the rules of the server's tables (`csv_table` of protocol/texts.py): RFC 4180, UTF-8 with the BOM
 * without which Excel does not take it for UTF-8, and no cell that a spreadsheet takes for a formula. Pure.
 */

/** What a spreadsheet takes for the beginning of a formula, also with a full-width sign; or what was escaped as one. */
const FORMULA = /^'*\s*[=+\-@＝＋－＠]/u;
/** Commands and invisible characters; names have none, for the server removes them where they arrive. */
const COMMANDS = /[\p{Cc}\u202a-\u202e\u2066-\u2069\u00ad\u180e\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\u2028\u2029]/gu;
/** @type {Readonly<Record<string, string>>} */
const SHORT = Object.freeze({ "\n": "\\n", "\t": "\\t" });

/** Return the text of a file. @param {readonly (readonly (string | number)[])[]} rows the header first */
export function csvTable(rows) {
  return `\ufeff${rows.map((row) => `${row.map(csvCell).join(",")}\r\n`).join("")}`;
}

/** Return a cell as it stands in the file. @param {string | number} value */
export function csvCell(value) {
  if (typeof value === "number") return String(value);
  const escaped = value.replace(COMMANDS, escapeCharacter);
  const cell = FORMULA.test(escaped) ? `'${escaped}` : escaped;
  return /[",\r\n]/.test(cell) ? `"${cell.replaceAll('"', '""')}"` : cell;
}

/** @param {string} character */
function escapeCharacter(character) {
  const code = character.charCodeAt(0);
  if (SHORT[character]) return SHORT[character];
  return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
}
