// Decodes frames and checks their messages, so that the other modules get only messages of a valid shape. Pure.

import { CHANGES, PLAN_CHANGES } from "./plan-view.js";

/** @typedef {import("./plan-view.js").Message} Message */

/**
 * Return the valid messages of a frame and the number of its malformed elements. Types that are not known are valid: a
 * newer server may send them.
 * @param {unknown} text
 * @returns {{messages: Message[], malformed: number}}
 */
export function decode(text) {
  let parsed;
  try {
    parsed = typeof text === "string" ? JSON.parse(text) : null;
  } catch {
    parsed = null;
  }
  const elements = Array.isArray(parsed) ? parsed : [parsed];
  const messages = elements.filter(isMessage).map((message) => ({ type: message.type, data: message.data ?? {} }));
  return { messages, malformed: elements.length - messages.length };
}

/** @param {any} value */
export const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);

/** @param {any} element @returns {boolean} */
function isMessage(element) {
  if (!isObject(element) || typeof element.type !== "string") return false;
  const data = element.data ?? {};
  if (!isObject(data)) return false;
  if (element.type === "welcome") return isWelcome(data);
  if (element.type === "migrate") return isUrls(data.endpoints);
  if (element.type === "plan_snapshot") return Array.isArray(data.examinees) && data.examinees.every(isRow);
  if (element.type === "examinee_enrolled" && !(isObject(data.connection) && isObject(data.reconnect))) return false;
  if (element.type === "examinee_resumed" && !isObject(data.connection)) return false;
  if (PLAN_CHANGES.has(element.type)) {
    if (element.type === "plan_notice" && typeof data.actionId !== "string") return false;
    return Number.isSafeInteger(data.version) && data.version >= 0;
  }
  if (CHANGES.has(element.type)) {
    // A connection event must have a version: without one it would count as newer than any.
    const version = element.type.startsWith("examinee_") ? data.version : (data.version ?? 0);
    return typeof data.examineeId === "string" && Number.isSafeInteger(version) && version >= 0;
  }
  return true;
}

/** @param {any} data */
function isWelcome(data) {
  const { reconnect: policy, heartbeatSeconds } = data;
  /** @param {any} value */
  const isNumber = (value) => Number.isFinite(value) && value >= 0;
  return (
    heartbeatSeconds > 0 &&
    Number.isFinite(heartbeatSeconds) &&
    isUrls(data.endpoints) &&
    isObject(policy) &&
    isNumber(policy.maxAttempts) &&
    isNumber(policy.jitter) &&
    Array.isArray(policy.backoffSeconds) &&
    policy.backoffSeconds.every(isNumber)
  );
}

/** @param {any} value @returns {value is string[]} */
export const isUrls = (value) => Array.isArray(value) && value.every((url) => typeof url === "string");

/** @param {any} row */
const isRow = (row) =>
  isObject(row) &&
  typeof row.examineeId === "string" &&
  Number.isSafeInteger(row.version) &&
  [row.connection, row.mobileSync, row.reconnect].every(isObject) &&
  Number.isSafeInteger(row.mobileSync.version);
