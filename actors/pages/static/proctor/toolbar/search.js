/**
 * The search of the wall: finds examinees by id, name and labels while the query is still being typed. Pure.
 *
 * - Case, diacritics, quotes and full-width letters do not matter: "obrien" finds "O’Brien", "lukasz" finds "Łukasz".
 * - Initial consonants find Korean names: "ㄱㅁㅈ" finds 김민준. So does each state of a syllable that a Korean keyboard
 *   shows on the way: "이민호" begins as "임", "김민준" is "김믽" before the last vowel.
 * - An id that was typed on a Korean keyboard is understood: "ㄷ001" finds E001.
 * - The name of a label and a value find exactly that value: "room 3", "고사실 3", "3고사실".
 *
 * @typedef {{text: string, labels: Readonly<Record<string, string>>}} Searched `text`: id, name and values, `folded`
 * @typedef {(person: Searched) => boolean} Condition
 * @typedef {ReadonlyMap<string, ReadonlyMap<string, number>>} Labels the values of each label that are in use
 */

import { latinKeys } from "../../common/korean-keys.js";

/** Letters that Unicode does not decompose into a letter and a mark. @type {Readonly<Record<string, string>>} */
const LETTERS = Object.freeze({ ß: "ss", æ: "ae", œ: "oe", ø: "o", đ: "d", ð: "d", ħ: "h", ı: "i", ł: "l", ŧ: "t", þ: "th" });
const SPECIAL = new RegExp(`[${Object.keys(LETTERS).join("")}]`, "g");
const QUOTES = /['"`´ʻʼʹ‘’‚‛“”„‟′″«»＇＂]/g;
/** Everything but the letters of Korean keyboards, which NFKD would replace with parts of syllables. */
const NOT_JAMO = /[^\u3131-\u3163]+/g;
/** Texts that need nothing but lower case: most ids and Korean names. */
const PLAIN = /^[\w\s.,·/()#가-힣-]*$/;

/** Return a text in the form in which texts are compared. @param {string} text */
export function folded(text) {
  const lower = text.toLowerCase();
  if (PLAIN.test(lower)) return lower;
  return lower.replace(QUOTES, "").replace(NOT_JAMO, (part) => part.normalize("NFKD")).replace(/\p{M}+/gu, "")
    .replace(SPECIAL, (letter) => LETTERS[letter]).replace(/\p{Pd}/gu, "-").normalize("NFC");
}

/**
 * Return what an examinee must fulfil to be found: all words of the query; `null`: the query is empty.
 *
 *     const found = searchFor("ㄱㅁ room 3", people.labels, labelName);
 *     const shown = found === null ? all : all.filter(found);
 *
 * @param {string} query
 * @param {Labels} [labels]
 * @param {(name: string) => string} [labelName] what people call a label
 * @returns {Condition | null}
 */
export function searchFor(query, labels = new Map(), labelName = (name) => name) {
  const text = folded(query);
  const words = text.split(/\s+/).filter(Boolean);
  if (words.length === 0) return null;
  const names = [...labels.keys()].flatMap((label) => (
    [...new Set([folded(label), folded(labelName(label))])].map((name) => ({ label, words: name.split(/\s+/) }))));
  /** @type {Condition[]} */
  const conditions = [];
  for (let at = 0; at < words.length; at += 1) {
    const name = names.find((each) => each.words.every((word, k) => words[at + k] === word));
    const value = name && words[at + name.words.length];
    const values = value ? valuesOf(labels.get(name.label), value) : null;
    if (name && values) {
      conditions.push((person) => values.has(person.labels[name.label]));
      at += name.words.length; // and the value
    } else {
      const unfinished = at === words.length - 1 && !/\s$/.test(text);
      conditions.push(wordCondition(words[at], unfinished, labels, names));
    }
  }
  return (person) => conditions.every((fulfils) => fulfils(person));
}

/**
 * Return the condition of one word: it is in the text, or is the name of a label, with or without a value ("3고사실").
 * @param {string} word @param {boolean} unfinished whether more of it may be typed
 * @param {Labels} labels @param {{label: string, words: string[]}[]} names
 * @returns {Condition}
 */
function wordCondition(word, unfinished, labels, names) {
  const pattern = HANGUL.test(word) ? koreanPattern(word, unfinished) : null;
  const latin = pattern !== null && NOT_KOREAN.test(word) ? latinKeys(word) : null;
  const inText = (/** @type {string} */ text) => (
    (pattern === null ? text.includes(word) : pattern.test(text)) || (latin !== null && text.includes(latin)));
  for (const { label, words: [name, ...others] } of names) {
    if (others.length > 0 || (!word.startsWith(name) && !word.endsWith(name))) continue;
    const value = word.startsWith(name) ? word.slice(name.length) : word.slice(0, -name.length);
    const values = valuesOf(labels.get(label), value);
    if (values) return (person) => values.has(person.labels[label]) || inText(person.text);
  }
  return (person) => inText(person.text);
}

/**
 * Return the values of a label that are meant: the one that is typed, else those that begin with it; `null`: none.
 * @param {ReadonlyMap<string, number> | undefined} known @param {string} typed folded; empty: all
 */
function valuesOf(known, typed) {
  const values = [...(known?.keys() ?? [])];
  const equal = values.filter((value) => folded(value) === typed);
  const meant = equal.length > 0 ? equal : values.filter((value) => folded(value).startsWith(typed));
  return meant.length > 0 ? new Set(meant) : null;
}

// -- Korean ------------------------------------------------------------------------------------------------------------

// A syllable is 0xAC00 + (initial × 21 + vowel) × 28 + final (The Unicode Standard, chapter 3.12).
const INITIALS = "ㄱㄲㄴㄷㄸㄹㅁㅂㅃㅅㅆㅇㅈㅉㅊㅋㅌㅍㅎ";
const FINALS = "\0ㄱㄲㄳㄴㄵㄶㄷㄹㄺㄻㄼㄽㄾㄿㅀㅁㅂㅄㅅㅆㅇㅈㅊㅋㅌㅍㅎ";
const [FIRST, VOWELS] = [0xac00, 21];
/** Consonants that a keyboard makes of two. @type {Readonly<Record<string, string>>} */
const DOUBLE = Object.freeze({ ㄳ: "ㄱㅅ", ㄵ: "ㄴㅈ", ㄶ: "ㄴㅎ", ㄺ: "ㄹㄱ", ㄻ: "ㄹㅁ", ㄼ: "ㄹㅂ", ㄽ: "ㄹㅅ", ㄾ: "ㄹㅌ",
  ㄿ: "ㄹㅍ", ㅀ: "ㄹㅎ", ㅄ: "ㅂㅅ", ㄲ: "ㄱㄱ", ㄸ: "ㄷㄷ", ㅃ: "ㅂㅂ", ㅆ: "ㅅㅅ", ㅉ: "ㅈㅈ" });
/** How many vowels a keyboard makes of one and another, by its number: ㅗ becomes ㅘ, ㅙ, ㅚ. They follow it in Unicode. */
const LONGER_VOWELS = new Map([[8, 3], [13, 3], [18, 1]]);
const HANGUL = /[가-힣ㄱ-ㅣ]/;
/** No Korean word has a digit, or a vowel alone. */
const NOT_KOREAN = /[\dㅏ-ㅣ]/;

/**
 * Return what a word with Korean letters finds. The last syllable of an unfinished word stands for all that may become of
 * it: its final consonant may be the initial of the next syllable.
 * @param {string} word @param {boolean} unfinished
 */
function koreanPattern(word, unfinished) {
  const letters = [...word];
  const last = letters.length - 1;
  return new RegExp(letters.map((letter, at) => (
    INITIALS.includes(letter) || letter in DOUBLE ? withInitial(letter)
      : letter >= "가" && letter <= "힣" && unfinished && at === last ? begunWith(letter)
        : letter.replace(/[\\^$.*+?()[\]{}|/-]/, "\\$&"))).join(""));
}

/** Return the pattern of syllables with these initials. @param {string} letter one consonant, or two in one letter @returns {string} */
function withInitial(letter) {
  const initial = INITIALS.indexOf(letter);
  const single = initial < 0 ? letter : `[${letter}${syllable(initial, 0, 0)}-${syllable(initial, VOWELS - 1, FINALS.length - 1)}]`;
  const two = DOUBLE[letter];
  return two ? `(?:${single}|${withInitial(two[0])}${withInitial(two[1])})` : single;
}

/** Return the pattern of what a syllable may become while it is typed. @param {string} letter a syllable */
function begunWith(letter) {
  const code = letter.charCodeAt(0) - FIRST;
  const final = code % FINALS.length;
  const vowel = Math.floor(code / FINALS.length) % VOWELS;
  const initial = Math.floor(code / FINALS.length / VOWELS);
  if (final === 0) {
    const longest = vowel + (LONGER_VOWELS.get(vowel) ?? 0);
    return `[${letter}-${syllable(initial, longest, FINALS.length - 1)}]`;
  }
  const consonant = FINALS[final];
  const longer = [...FINALS].map((each, at) => (DOUBLE[each]?.[0] === consonant ? syllable(initial, vowel, at) : "")).join("");
  const [first, second] = DOUBLE[consonant] ?? ["\0", consonant];
  const splits = [syllable(initial, vowel, FINALS.indexOf(first)) + withInitial(second)];
  if (INITIALS.includes(consonant) && first !== "\0") splits.push(syllable(initial, vowel, 0) + withInitial(consonant));
  return `(?:[${letter}${longer}]|${splits.join("|")})`;
}

/** @param {number} initial @param {number} vowel @param {number} final */
function syllable(initial, vowel, final) {
  return String.fromCharCode(FIRST + (initial * VOWELS + vowel) * FINALS.length + final);
}
