/**
 * One try to send a picture. XMLHttpRequest, because it is what tells the progress of an upload in every browser.
 */

import { retryAfterSeconds } from "./upload-rules.js";

/** Without a byte for so long the try is given up: a mobile network often breaks without saying so. */
export const STALLED_SECONDS = 20;

/**
 * @typedef {object} Shipment
 * @property {string} url
 * @property {string} token
 * @property {Blob} picture
 * @property {(share: number) => void} progress how much has left the phone, 0 to 1
 */

/**
 * Begin to send; `stop` ends it without a result for anybody.
 * @param {Shipment} shipment
 * @returns {{result: Promise<import("./upload-rules.js").Result>, stop: () => void}}
 */
export function send({ url, token, picture, progress }) {
  const request = new XMLHttpRequest();
  let stalled = false;
  /** @type {ReturnType<typeof setTimeout>} */
  let patience;
  const wait = () => {
    clearTimeout(patience);
    patience = setTimeout(() => {
      stalled = true;
      request.abort();
    }, STALLED_SECONDS * 1000);
  };
  const result = new Promise((resolve) => {
    request.upload.onprogress = (event) => {
      wait();
      if (event.lengthComputable && event.total > 0) progress(event.loaded / event.total);
    };
    request.onreadystatechange = wait;
    request.onloadend = () => {
      clearTimeout(patience);
      // Status 0: no answer came.
      resolve(request.status ? answerOf(request) : { kind: "network", stalled, offline: navigator.onLine === false });
    };
  });
  request.open("PUT", url);
  request.setRequestHeader("Authorization", `Bearer ${token}`);
  request.setRequestHeader("Content-Type", "image/jpeg");
  request.send(picture);
  wait();
  return { result: /** @type {Promise<import("./upload-rules.js").Result>} */ (result), stop: () => request.abort() };
}

/** @param {XMLHttpRequest} request @returns {import("./upload-rules.js").Result} */
function answerOf(request) {
  const retryAfter = retryAfterSeconds(request.getResponseHeader("Retry-After"), Date.now());
  return { kind: "answer", status: request.status, retryAfter, body: jsonOf(request.responseText) };
}

/** An answer that is no JSON comes from something in between, and its text is for nobody. @param {string} text */
function jsonOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/**
 * Where an examinee's picture goes (`PUT`; docs/protocol.md).
 * @param {{planId: string, examineeId: string}} pass
 * @param {{deviceId: string, model: string, osVersion: string}} device
 */
export function uploadUrl({ planId, examineeId }, device) {
  const place = `/v1/plans/${encodeURIComponent(planId)}/examinees/${encodeURIComponent(examineeId)}/mobile-sync`;
  const known = Object.entries(device).filter(([, value]) => value !== "");
  return `${place}?${new URLSearchParams(known)}`;
}
