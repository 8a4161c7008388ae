/** The keys of the usual Korean keyboard (KS X 5002), for what was typed while it was not set to Latin letters. */

/**
 * The keys of each consonant and vowel, in the order of Unicode: those that begin a syllable, the vowels, and those that end one.
 * @type {ReadonlyMap<string, string>}
 */
const KEYS_OF_JAMO = new Map(/** @type {[number, string][]} */ ([
  [0x1100, "r r s e e f a q q t t d w w c z x v g"],
  [0x1161, "k o i o j p u p h hk ho hl y n nj np nl b m ml l"],
  [0x11a8, "r r rt s sw sg e f fr fa fq ft fx fv fg a q qt t t d w c z x v g"],
]).flatMap(([first, row]) => row.split(" ").map((keys, place) => /** @type {[string, string]} */ ([String.fromCodePoint(first + place), keys]))));

/**
 * Return the Latin letters on the keys of Korean ones, "e001" for "ㄷ001", and plain letters for full-width ones. Everything else
 * stays, decomposed.
 * @param {string} text
 */
export function latinKeys(text) {
  return [...text.normalize("NFKD")].map((letter) => KEYS_OF_JAMO.get(letter) ?? letter).join("");
}
