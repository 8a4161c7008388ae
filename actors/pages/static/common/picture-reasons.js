/**
 * The usual reasons why a proctor asks for another picture (`RejectReason` of the protocol), in both languages. Whoever is told
 * one reads it in the language of their own page.
 */

import { hasText, t, useTexts } from "./i18n.js";

/** @type {readonly string[]} */
export const REASONS = Object.freeze(["BLURRED", "TOO_DARK", "INCOMPLETE", "WRONG_SUBJECT", "NO_CHALLENGE"]);

useTexts({
  en: {
    "picture.reason.BLURRED": "It is blurred.",
    "picture.reason.TOO_DARK": "It is too dark or too bright.",
    "picture.reason.INCOMPLETE": "Not everything is in the picture.",
    "picture.reason.WRONG_SUBJECT": "It shows something else.",
    "picture.reason.NO_CHALLENGE": "The number is missing or cannot be read.",
  },
  ko: {
    "picture.reason.BLURRED": "사진이 흐립니다.",
    "picture.reason.TOO_DARK": "사진이 너무 어둡거나 밝습니다.",
    "picture.reason.INCOMPLETE": "필요한 것이 사진에 모두 나오지 않았습니다.",
    "picture.reason.WRONG_SUBJECT": "다른 것이 찍혔습니다.",
    "picture.reason.NO_CHALLENGE": "숫자가 없거나 읽을 수 없습니다.",
  },
});

/** Return a reason for people: the text of a usual one, or the proctor's own words. @param {string | null | undefined} reason */
export function pictureReason(reason) {
  if (!reason) return "";
  const key = `picture.reason.${reason}`;
  return hasText(key) ? t(key) : reason;
}
